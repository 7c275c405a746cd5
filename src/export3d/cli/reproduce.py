"""`export3d reproduce`: every table and figure of the paper's evaluation from one command (docs/evaluation.md)."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro

from export3d.cli.common import entry, pick_device, progress_bar, say, set_threads
from export3d.errors import UsageError

if TYPE_CHECKING:
    from export3d.reproduce.scores import OpenBackends
    from export3d.reproduce.settings import Reporter, Settings

Stage = Literal["data", "pretrain", "train", "evaluate", "figures", "page"]
Variant = Literal["full", "direct-3dmm", "e2e-lebs-n25", "e2e-lebs-n10", "e2e-lebs-n5", "cross-attention"]

STOPPED_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "max_minutes": 0}


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Train every variant of Tables 3 and 4 on the same clips, score and draw them, and write their tables.

    Each stage goes on where it was stopped and is skipped when it is finished: give the same command again.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder WORK for clips, runs and scores."""
    scale: Literal["small", "paper-small", "smoke"] = "small"
    """Preset and sizes. paper-small is the budget of docs/paper_results.md; smoke shows in a minute that all
    stages work; its numbers mean nothing."""
    stages: tuple[Stage, ...] = ("data", "pretrain", "train", "evaluate", "figures", "page")
    """Which stages to do; they are done in this order."""
    variants: tuple[Variant, ...] = get_args(Variant)
    """Which variants to train, score and draw; with none after it, the main table and its figures alone. Tables are made of
    all that have been scored."""
    samples: int = 0
    """Training samples of each variant; 0 takes the scale's."""
    pretrain_steps: int = 0
    """Steps of CLeBS pre-training; 0 takes the scale's."""
    clips: int = 0
    """Pairs of each kind that are scored; 0 takes the scale's."""
    data: Path | None = None
    """Training clips, with --test. Heads are rendered when left out."""
    test: Path | None = None
    """Test clips, with --data: other people, the same extractor."""
    expression: Path | None = None
    """Finished run of `export3d pretrain` on such clips. One is made when left out."""
    runs: Path | None = None
    """Folder of finished models VARIANT/model.safetensors, which are taken as they are."""
    model: str | None = None
    """Model of the main table and its figures: a bundled name or a .safetensors file. When left out, the figures are those of
    `full`, and with no --variants both are made for the bundled one."""
    results: Path | None = None
    """Folder for reproduce_*.json, clebs.json and tables.md; WORK/results when left out."""
    pictures: Path | None = None
    """Folder for the figures; WORK/pictures when left out."""
    figure_clips: int = 24
    """Rows of the figures of --model."""
    landmarks: Literal["scale", "mediapipe", "none"] = "scale"
    """What finds faces, as in `evaluate`; scale takes that of the scale (small: mediapipe, smoke: none)."""
    identity: str = "scale"
    """What measures CSIM, as in `evaluate`; scale takes that of the scale (small: bundled, smoke: none)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of training, the same for every variant."""
    seed: int = 0
    """Seed of training, source frames and bootstrap."""
    head_model: Path | None = None
    """Head model of the rendered clips, as in `heads render`."""
    workers: int = 1
    """Processes that render heads."""
    max_minutes: float | None = None
    """Stop after this time; the same command goes on later."""
    cache_gb: float = 4.0
    """Memory for decoded training frames."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run."""
    threads: int = 0
    """Threads of the networks; 0 is automatic."""
    dry_run: bool = False
    """Measure a few steps of each stage and print how long everything would take; make nothing."""


def recorded_command(typed: str) -> str:
    """The command as the results name it: of absolute paths only the last part, which is all that matters elsewhere."""
    return shlex.join([Path(word).name if word.startswith("/") else word for word in shlex.split(typed)])


def run(options: ReproduceOptions, command: str) -> int:
    """Do the stages, one after the other."""
    from export3d.reproduce.settings import STAGES, Reporter, Stopped
    from export3d.training.loop.memory import keep_freed_memory

    set_threads(options.threads)
    settings = _settings(options)
    stages = [stage for stage in STAGES if stage in options.stages]
    if not stages:
        raise UsageError(f"--stages: name at least one of {', '.join(STAGES)}.")
    keep_freed_memory()
    if options.dry_run:
        from export3d.reproduce.estimate import estimate

        for line in estimate(settings, stages, _backends(options, settings)[1]):
            say(line)
        return 0
    reporter = Reporter(line=_tell, max_minutes=options.max_minutes)
    began = time.monotonic()
    for stage in stages:
        started = time.monotonic()
        try:
            with progress_bar(stage, None) as bar:
                reporter.progress = lambda label, done, total, bar=bar: bar(done)
                _do(stage, options, settings, recorded_command(command), reporter)
        except Stopped as stop:
            _tell(f"{stage}: stopped by {stop.reason}; the same command goes on from here.")
            return STOPPED_CODES[stop.reason]
        _tell(f"{stage}: done in {_duration(time.monotonic() - started)}")
    say(f"{options.output}: {', '.join(stages)} done in {_duration(time.monotonic() - began)}")
    return 0


reproduce_main = entry("reproduce", ReproduceOptions, run, typed=True)


def _do(stage: str, options: ReproduceOptions, settings: Settings, command: str, reporter: Reporter) -> None:
    from export3d.reproduce import figures, scores, tables, training

    results = options.results or options.output / "results"
    pictures = options.pictures or options.output / "pictures"
    if stage == "data":
        training.render_data(settings, reporter)
    elif stage == "pretrain":
        training.pretrain(settings, reporter)
    elif stage == "train":
        for variant in settings.variants:
            training.train(settings, variant, reporter)
    elif stage == "evaluate":
        scores.score_models(settings, *_backends(options, settings), reporter)
    elif stage == "figures":
        figures.draw_figures(settings, pictures, reporter)
        if settings.variants:  # the bundled model brings no pre-training run
            _measure_expression(options, settings, results, pictures, reporter)
    else:
        from export3d.files import write_atomically
        from export3d.reproduce.page import paper_page, tables_page

        written = tables.write_results(settings, results, command, reporter)
        pages = {"tables.md": tables_page(written)}
        pages |= {"paper_results.md": paper_page(results, pictures)} if settings.variants else {}
        for name, text in pages.items():
            write_atomically(results / name, text.encode())
            reporter.line(f"page: wrote {results / name}")


def _settings(options: ReproduceOptions) -> Settings:
    from export3d.reproduce.settings import Settings

    own = {"work": options.output, "device": pick_device(options.device)}
    same = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name not in own}
    return Settings(**same, **own)


def _backends(options: ReproduceOptions, settings: Settings) -> tuple[dict[str, str], OpenBackends]:
    """Names of the back ends, and what opens them."""
    from export3d.evaluation.metrics.opened import open_backends

    sizes = settings.sizes
    landmarks = sizes.landmarks if options.landmarks == "scale" else options.landmarks
    identity = sizes.identity if options.identity == "scale" else options.identity
    if landmarks == "none" and options.identity == "scale":
        identity = "none"
    device = pick_device(options.device)
    return {"landmarks": landmarks, "identity": identity}, lambda: open_backends(landmarks, identity, device=device)


def _measure_expression(
    options: ReproduceOptions, settings: Settings, results: Path, pictures: Path, reporter: Reporter
) -> None:
    """Fig. 8 and its numbers, by `export3d measure-expression`."""
    from export3d.cli import measure
    from export3d.data.manifest import MANIFEST_NAME
    from export3d.files import file_sha256, make_folder, write_json
    from export3d.reproduce.tables import read_result
    from export3d.training.phases.pretrain_files import EXPRESSION_FILE

    if not (settings.test_folder / measure.EXTRACTOR_FILE).is_file():
        reporter.line(f"figures: {settings.test_folder} holds no synthetic clips; t-SNE is left out")
        return
    run_folder = settings.expression_run
    file = run_folder / EXPRESSION_FILE if run_folder.is_dir() else run_folder
    output, figure = make_folder(results) / "clebs.json", pictures / "clebs_tsne.png"
    notes = options.output / "expression.json"
    fingerprint = {
        "files": [str(output.absolute()), str(figure.absolute())],
        "expression": file_sha256(file) if file.is_file() else "",
        "data": file_sha256(settings.test_folder / MANIFEST_NAME),
        "seed": settings.seed,
    }
    if output.is_file() and figure.is_file() and notes.is_file() and read_result(notes) == fingerprint:
        reporter.line(f"figures: {figure} is finished")
        return
    chosen = measure.MeasureOptions(
        expression=run_folder,
        data=settings.test_folder,
        identities=settings.sizes.drawn_identities,
        output=output,
        figure=figure,
        head_model=settings.head_model,
        seed=settings.seed,
    )
    words = ["--expression", run_folder.name, "--data", settings.test_folder.name, "--seed", str(settings.seed)]
    if chosen.identities:
        words += ["--identities", str(chosen.identities)]
    line = shlex.join(["export3d", "measure-expression", *words])
    measure.run(chosen, line)
    write_json(notes, fingerprint)


def _tell(line: str) -> None:
    """Stages report on stderr with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
