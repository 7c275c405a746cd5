"""Stage figures: the pictures of the paper's evaluation from the trained variants (Figs. 4-7, 9, 10, 13, 14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export3d.animation import Animator
from export3d.animation.sweep import (
    SweepOptions,
    coefficient_spread,
    sweep_frames,
    sweep_sheet,
    sweep_values,
    weights_along,
)
from export3d.checkpoint import read_checkpoint
from export3d.data import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import DataError
from export3d.evaluation.scores.protocol import dataset_facts, same_identity_pairs
from export3d.files import file_sha256, make_folder, write_json
from export3d.images import write_sheet
from export3d.portrait import Model, load_model
from export3d.portrait.loading import checkpoint_path
from export3d.reading import read_json
from export3d.reproduce.settings import MAIN, TABLE3, TABLE4, Reporter, Settings
from export3d.reproduce.training import is_trained
from export3d.tracking import Crop, Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients
from export3d.training.batches.stored_portrait import stored_state

ABLATION_CLIPS = 6
VIEW_CLIPS = 4
SWEEP = "sweep.png"


Draw = Callable[[dict[str, Model], ClipDataset], np.ndarray]


@dataclass(frozen=True)
class _Figure:
    """One picture: of which models, and how it is drawn."""

    name: str
    members: tuple[str, ...]
    draw: Draw


def draw_figures(settings: Settings, folder: Path, report: Reporter) -> list[Path]:
    """Draw what the finished models allow; a picture of the same models and clips is left alone.

    Returns:
        The pictures that now exist.

    Raises:
        CheckpointError: A model is damaged.
        OutputError: A picture cannot be written.
    """
    dataset = settings.open_test()
    make_folder(folder)
    files = {variant: settings.model_file(variant) for variant in settings.variants if is_trained(settings, variant)}
    files[MAIN] = checkpoint_path(settings.model) if settings.asks_for_main else settings.model_file("full")
    files = {name: path for name, path in files.items() if path.is_file()}
    digests = {name: file_sha256(path) for name, path in files.items()}
    data = file_sha256(dataset.folder / MANIFEST_NAME)
    notes = settings.output / "figures.json"
    done: dict[str, Any] = _read(notes)
    models: dict[str, Model] = {}
    drawn = []
    figures = _figures(settings)
    for number, figure in enumerate(figures):
        members = [name for name in figure.members if name in files]
        if not members or (len(figure.members) > 1 and len(members) < 2):
            report.line(f"figures: {figure.name} needs the models of {', '.join(figure.members)}; train them first")
            continue
        path = folder / figure.name
        if (
            figure.name == SWEEP
            and read_checkpoint(files[members[0]], kind="export3d").config["expression"]["kind"] != "lebs"
        ):
            report.line(f"figures: {figure.name} needs a model with a basis")
            continue
        fingerprint = {
            "models": {name: digests[name] for name in members},
            "data": data,
            "seed": settings.seed,
            "clips": settings.figure_clips,
        }
        drawn.append(path)
        if path.is_file() and done.get(str(path.absolute())) == fingerprint:
            report.line(f"figures: {path} is finished")
            continue
        for name in members:
            if name not in models:
                models[name] = load_model(files[name], device=settings.device)
        write_sheet(path, figure.draw({name: models[name] for name in members}, dataset))
        done[str(path.absolute())] = fingerprint
        write_json(notes, done)
        report.line(f"figures: wrote {path}")
        report.advance("figures", number + 1, len(figures))
    return drawn


def basis_sweep(model: Model, dataset: ClipDataset) -> np.ndarray:
    """A sheet of the basis vectors (Figs. 9, 13) on the first clip's frontal frame, ranges measured on all clips.

    Raises:
        UsageError: The model has no basis.
    """
    pair = same_identity_pairs(dataset_facts(dataset))[0]
    index = dataset.places[pair.source_clip]
    betas = np.concatenate([dataset.arrays(i)["beta"] for i in range(len(dataset))])
    values = sweep_values(SweepOptions(), *coefficient_spread(model, betas))
    arrays, size = dataset.arrays(index), dataset.size
    # Expression and camera of a stored frame are known: nothing has to find a face.
    known = Tracker(
        GivenLandmarks([[]]), MeasuredCoefficients(model.config.expression.space), size=model.config.image_size
    )
    animator = Animator(model, known)
    frame = pair.source_frame
    whole = Crop(size / 2, size / 2, size)
    state = stored_state(dataset, index, frame)
    animator.encode(dataset.frame(index, frame), whole, state, arrays["camera"][frame].copy())
    return sweep_sheet(sweep_frames(animator, values, slope=weights_along(model, betas)), values)


def _figures(settings: Settings) -> list[_Figure]:
    from export3d.evaluation.figures import sheets

    def of_main(draw: Callable[..., np.ndarray], clips: int) -> Draw:
        return lambda models, dataset: draw(next(iter(models.values())), dataset, clips=clips, seed=settings.seed)

    def of_variants(draw: Callable[..., np.ndarray]) -> Draw:
        return partial(draw, clips=min(ABLATION_CLIPS, clips), seed=settings.seed)

    clips = settings.figure_clips
    return [
        _Figure("same_identity.jpg", (MAIN,), of_main(sheets.same_identity_sheet, clips)),
        _Figure("cross_identity.jpg", (MAIN,), of_main(sheets.cross_identity_sheet, clips)),
        _Figure("novel_view.jpg", (MAIN,), of_main(sheets.novel_view_sheet, min(VIEW_CLIPS, clips))),
        _Figure("ablation_expression.jpg", TABLE3, of_variants(sheets.ablation_sheet)),
        _Figure("ablation_error.jpg", TABLE3, of_variants(sheets.error_sheet)),
        _Figure("ablation_eadaln.jpg", TABLE4, of_variants(sheets.ablation_sheet)),
        _Figure(SWEEP, (MAIN,), lambda models, dataset: basis_sweep(next(iter(models.values())), dataset)),
    ]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return read_json(path, "not readable as JSON", DataError, "Remove it; the figures are drawn again.")
