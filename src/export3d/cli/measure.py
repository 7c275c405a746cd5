"""`export3d measure-expression`: identity and expression in beta-hat and beta', in numbers and as t-SNE (Fig. 8)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from export3d.cli.common import entry, say, set_threads
from export3d.errors import DataError, UsageError
from export3d.reading import read_log

if TYPE_CHECKING:
    from export3d.evaluation.scores.expression_content import CodeRow
    from export3d.evaluation.scores.expression_sample import ExpressionSample
    from export3d.expression.lebs import LeBS
    from export3d.heads.clips.extractor import LinearExtractor

COLUMNS = ("between_identity_share", "identity_1nn", "identity_1nn_frames", "r2", "r2_within", "r2_quadratic")
EXTRACTOR_FILE = "extractor.safetensors"


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Measure on people whom training never saw how much identity and expression CLeBS keeps of beta-hat."""

    expression: Path
    """Run folder of `export3d pretrain`, its expression.safetensors, or a model with a frozen encoder."""
    data: Path
    """Clips of test people (`export3d heads render --split test`): pictures for the retrieval, and the extractor."""
    identities: int = 0
    """Measure on so many test people whose landmarks are drawn without rendering; 0 takes the people of --data."""
    frames: int = 34
    """Frames of each drawn person."""
    compare: tuple[Path, ...] = ()
    """Further runs to put in the same table."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the numbers, with the command, the seed and the date."""
    figure: Path | None = None
    """PNG or JPEG: t-SNE of beta-hat and of beta' side by side, coloured by identity."""
    figure_identities: int = 16
    """People in the figure, the first ones."""
    head_model: Path | None = None
    """As in `heads render`; needed with --identities."""
    seed: int = 0
    """Seed of the landmark noise of drawn people."""
    threads: int = 0
    """Threads; 0 is automatic."""


def run(options: MeasureOptions, command: str) -> None:
    """Measure, print the table, write what was asked for."""
    from export3d.data import ClipDataset
    from export3d.evaluation.scores import expression_content as content
    from export3d.files import file_sha256, measured_now, write_json
    from export3d.heads.clips.extractor import NUM_EXPRESSION
    from export3d.training.phases.pretrain_files import FACE_NETWORK_FILE, check_space, load_face_network

    if options.figure is not None and options.figure.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"--figure: expected a .png or .jpg name; got {options.figure}.")
    set_threads(options.threads)
    dataset = ClipDataset(options.data)
    expression, notes = _load(options.expression)
    check_space(dataset.extractor, expression.config.space, str(options.data))
    extractor = _extractor(options, dataset, notes)
    others = {f"beta' of {path.name}": _load(path)[0] for path in options.compare}
    sample = _sample(options, dataset, extractor)
    spread = extractor.mode_spread[:NUM_EXPRESSION].numpy()
    rows = content.measure_codes(expression, sample, spread, others=others)
    chances = content.chances(sample)
    verdicts = content.verdicts(rows, chances["identity_1nn"])
    coefficients = content.lambda_of(expression, sample.beta)
    run_folder = options.expression if options.expression.is_dir() else options.expression.parent
    face_network = run_folder / FACE_NETWORK_FILE
    contrast: dict[str, Any] | None = None
    if face_network.exists():
        contrast = content.measure_contrast(expression, load_face_network(face_network)[0], dataset, notes["pretrain"])
        log = reversed(read_log(run_folder / "metrics.jsonl"))
        contrast["train_retrieval"] = next((entry["retrieval"] for entry in log if "retrieval" in entry), None)
    _print(rows, chances, contrast, verdicts)
    shown = _draw(options.figure, sample, coefficients, options.figure_identities)
    if options.output is not None:
        drawn = {"drawn_without_rendering": options.identities > 0}
        facts: dict[str, Any] = {
            "command": command,
            **measured_now(),
            "seed": options.seed,
            "sample": {"identities": sample.identities, "frames": len(sample.beta), **drawn},
            "run": {"steps": notes["step"], "pretrain": notes.get("pretrain")},
            "weights_sha256": file_sha256(_file(options.expression)),
            "extractor": extractor.info,
            "chance": chances,
            "near_chance_factor": content.NEAR_CHANCE,
            "verdicts": verdicts,
            "rows": [asdict(row) for row in rows],
            "contrast": contrast,
            "coefficient_length": content.coefficient_lengths(coefficients),
            "figure": shown,
        }
        write_json(options.output, facts)
        say(f"wrote {options.output}")


measure_expression_main = entry("measure-expression", MeasureOptions, run, typed=True)


def _file(path: Path) -> Path:
    """The file that holds the encoder."""
    from export3d.training.phases.pretrain_files import EXPRESSION_FILE

    return path / EXPRESSION_FILE if path.is_dir() else path


def _load(path: Path) -> tuple[LeBS, dict[str, Any]]:
    """The frozen encoder of a run or of a model, and the notes of its file."""
    from export3d.training.phases.pretrain_files import EXPRESSION_FILE, load_expression
    from export3d.training.phases.train_inputs import expression_of_model

    is_run = path.is_dir() or path.name.startswith(Path(EXPRESSION_FILE).stem)
    return load_expression(path) if is_run else expression_of_model(path)


def _draw(path: Path | None, sample: ExpressionSample, coefficients: Any, people: int) -> dict[str, int] | None:
    """t-SNE of the first people; returns how many people and frames it shows."""
    from export3d.evaluation.figures.expression_figure import tsne_figure
    from export3d.images import write_sheet

    if path is None:
        return None
    shown = sample.first(people)
    picture = tsne_figure(shown, coefficients[sample.identity < people])
    write_sheet(path, picture)
    say(f"wrote {path}")
    return {"people": shown.identities, "frames": len(shown.beta)}


def _extractor(options: MeasureOptions, dataset: Any, notes: dict[str, Any]) -> LinearExtractor:
    """The extractor of the clips, which must have made both their beta and that of the run."""
    from export3d.heads.clips.extractor import LinearExtractor

    file = options.data / EXTRACTOR_FILE
    extractor = LinearExtractor.load(file)
    made = {options.data: dataset.extractor["sha256"], options.expression: notes["extractor"]["sha256"]}
    for what, sha256 in made.items():
        if sha256 != extractor.sha256:
            raise DataError(
                f"{what}: its beta was made by the extractor {sha256[:12]}; {file} is {extractor.sha256[:12]}. Measure "
                "with clips of the same head model and extractor settings."
            )
    return extractor


def _sample(options: MeasureOptions, dataset: Any, extractor: LinearExtractor) -> ExpressionSample:
    from export3d.evaluation.scores.expression_sample import draw_sample, sample_of_clips
    from export3d.heads.shape.model_file import load_head

    if options.identities == 0:
        return sample_of_clips(dataset)
    head = load_head(options.head_model)
    if not extractor.fits(head):
        raise DataError(
            f"--identities: the head model '{head.name}' is not the one of {options.data}; give the right --head-model."
        )
    return draw_sample(head, extractor, identities=options.identities, frames=options.frames, seed=options.seed)


def _print(
    rows: list[CodeRow], chances: dict[str, float], contrast: dict[str, Any] | None, verdicts: dict[str, bool]
) -> None:
    say(f"{'code':52s}" + "".join(f"{name.replace('identity_', 'id_'):>18s}" for name in COLUMNS))
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS]
        say(f"{row.code:52s}" + "".join(f"{'-' if v is None else format(v, '.4f'):>18s}" for v in values))
    say(f"{'chance':52s}" + "".join(f"{format(chances[n], '.4f') if n in chances else '':>18s}" for n in COLUMNS))
    if contrast is not None:
        say(
            f"Eq. 1 on held-out pictures: loss {contrast['loss']:.3f} (chance {contrast['loss_at_chance']:.3f}), "
            f"retrieval {contrast['retrieval']:.3f} (chance {contrast['retrieval_at_chance']:.3f})"
        )
    for name, holds in verdicts.items():
        say(f"{name}: {'yes' if holds else 'no'}")
