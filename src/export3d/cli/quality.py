"""`export3d quality`: scores of a model against exact truth on synthetic clips, and a sheet to look at."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from export3d.cli.common import check_targets, entry, progress_bar, say, set_threads
from export3d.errors import DataError, UsageError

if TYPE_CHECKING:
    from export3d.data import ClipDataset
    from export3d.evaluation.scores.synthetic import SyntheticScores
    from export3d.portrait import Model
    from export3d.tracking import Tracker

COLUMNS = ("psnr", "ssim", "foreground", "mouth", "eyes", "depth", "sharpness")


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    """Score a model where the truth is known, with the trivial answers beside it."""

    data: Path
    """Synthetic clips (`export3d heads render --split test`)."""
    views: Path | None = None
    """Clips of `export3d heads render --split test --novel-views`: also score views at -30, 0 and +30 degrees."""
    model: str | None = None
    """Name of a bundled model or path of a .safetensors model. The bundled model when left out."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the scores, with the command, the data and the date."""
    sheet: Path | None = None
    """PNG or JPEG: source, truth, output, error, the expression at yaw -30, 0, +30 degrees, depth; first clips, unpicked."""
    size: int | None = None
    """Score pictures of so many pixels, composed with the clips' own detail (portrait model); left out, the model's own size,
    enlarged to the clips'."""
    tracked: bool = False
    """Also score portrait and driver seen as pictures alone, as users' files are, and what the true camera, expression, gaze or
    torso would bring, one at a time."""
    brief: bool = False
    """Score only the model itself, the copied source and, with --tracked, the tracked driver."""
    clips: int | None = None
    """Only the first so many clips."""
    rows: int = 8
    """Rows of the sheet."""
    seed: int = 0
    """Seed of the source frames."""
    threads: int = 0
    """Threads of the network; 0 is automatic."""


def run(options: QualityOptions, command: str) -> None:
    """Score, print the table, write what was asked for."""
    from export3d.data import ClipDataset
    from export3d.evaluation.figures.sheets import same_identity_sheet
    from export3d.evaluation.scores.synthetic import score_synthetic
    from export3d.files import file_sha256, measured_now, write_json
    from export3d.images import write_sheet
    from export3d.portrait.loading import checkpoint_path, load_model

    check_targets((options.output,), (options.sheet, ".png", ".jpg", ".jpeg"))
    set_threads(options.threads)
    model = load_model(options.model)
    dataset = ClipDataset(options.data)
    _check(options, model, dataset)
    clips = options.clips or len(dataset)
    tracker: AbstractContextManager[Tracker | None] = nullcontext()
    if options.tracked:
        from export3d.tracking import Tracker

        tracker = Tracker(choice="largest")
    with tracker as seen, progress_bar("scoring", clips) as report:
        scores = score_synthetic(
            model,
            dataset,
            seed=options.seed,
            clips=options.clips,
            size=options.size,
            brief=options.brief,
            tracker=seen,
            on_progress=lambda done, _: report(done),
        )
    _print_table(scores)
    views = None
    if options.views is not None:
        from export3d.evaluation.scores.novel_views import score_novel_views

        view_clips = ClipDataset(options.views)
        with progress_bar("scoring views", len(view_clips)) as report:
            views = score_novel_views(model, view_clips, on_progress=lambda done, _: report(done))
        for name, row in views.items():
            say(f"{name:20s}" + "".join(f"{angle:>8s} {value:.2f} dB" for angle, value in row.items()))
    if options.output is not None:
        facts = {
            **{"command": command, **measured_now(), "clips": clips, "seed": options.seed},
            "model": checkpoint_path(options.model).name,
            "weights_sha256": file_sha256(checkpoint_path(options.model)),
            "size": options.size or model.config.image_size,
            "frames": sum(dataset.num_frames(i) for i in range(clips)),
            "units": "psnr, foreground, mouth, eyes: dB; depth: scene units (1 = 47 cm); sharpness: share of the truth's",
            "truth": "tracked*: portrait and driver read from pictures; others: extractor's beta, true camera, gaze and turn",
            "scores": {name: asdict(row) for name, row in scores.items()},
            **({} if views is None else {"novel_views_foreground_psnr": views}),
        }
        write_json(options.output, facts)
    if options.sheet is not None:
        sheet = same_identity_sheet(model, dataset, clips=options.rows, seed=options.seed)
        write_sheet(options.sheet, sheet)
        say(f"wrote {options.sheet}")


quality_main = entry("quality", QualityOptions, run, typed=True)


def _print_table(scores: dict[str, SyntheticScores]) -> None:
    say(f"{'variant':24s}" + "".join(f"{name:>12s}" for name in COLUMNS))
    for name, row in scores.items():
        say(f"{name:24s}" + "".join(f"{value:12.4f}" for value in asdict(row).values()))


def _check(options: QualityOptions, model: Model, dataset: ClipDataset) -> None:
    """Refuse clips without truth, and numbers that do not fit model and clips."""
    from export3d.portrait import PortraitModel

    if not all(dataset.has(i, "0000.mask.png") for i in range(len(dataset))):
        raise DataError(f"{options.data}: has no masks; `quality` needs synthetic clips with exact truth.")
    if options.clips is not None and not 1 <= options.clips <= len(dataset):
        raise UsageError(f"--clips: expected 1 to {len(dataset)}, the clips of {options.data}; got {options.clips}.")
    if options.size is not None and (
        options.size % 2 or not isinstance(model, PortraitModel) or not model.config.image_size <= options.size <= 1024
    ):
        raise UsageError(
            f"--size: expected an even number from {model.config.image_size} to 1024, and the portrait model; got "
            f"{options.size} and {type(model).__name__}."
        )
