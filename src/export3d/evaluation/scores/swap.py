"""Appearance swap: a cross-driven result against the exact rendering of the source person with the driver's expression.

Only synthetic people can be rendered so. A model whose expression code carries the driver's looks misses that rendering by
more than one whose code does not (Sec. 4.3, "appearance-free").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import DataError
from export3d.evaluation.scores.protocol import Pair
from export3d.evaluation.scores.synthetic import leak_of, masked_psnr
from export3d.files import file_sha256
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity
from export3d.heads.look.render import render_frames
from export3d.heads.shape.parametric import ParametricHead
from export3d.images import write_sheet
from export3d.portrait import Model
from export3d.reading import read_json
from export3d.training.batches.stored_portrait import StoredPortrait, stored_camera, stored_state, to_size

FRAMES = 4
"""Frames of each pair, evenly spread over the driving clip."""


def score_swap(
    model: Model,
    dataset: ClipDataset,
    pairs: Sequence[Pair],
    head: ParametricHead,
    *,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Scores of cross-identity pairs, each the mean over `FRAMES` frames.

    Args:
        model: in evaluation mode.
        dataset: clips of `export3d heads render`.
        head: the head model that rendered them.
        folder: exact renderings are kept there, since every model is measured against the same ones; None keeps none.

    Returns:
        `swap_psnr`: PSNR in decibels inside the mask of the exact rendering of the source person with the driver's expression,
        gaze and camera. `leak_cost`: by how many decibels that rises when what the extractor mixes of the driver's person
        into beta is exchanged for the source person's own. One number per pair.

    Raises:
        DataError: The clips were not rendered with this head.
    """
    leaks = [leak_of(dataset, index) for index in range(len(dataset))]
    scores: dict[str, list[float]] = {"swap_psnr": [], "leak_cost": []}
    for done, pair in enumerate(pairs):
        source, driver = dataset.places[pair.source_clip], dataset.places[pair.driving_clip]
        times = np.unique(np.linspace(0, dataset.num_frames(driver) - 1, FRAMES).round().astype(int)).tolist()
        truth, masks = _kept_swap(dataset, source, driver, times, head, folder=folder)
        portrait = StoredPortrait(model, dataset, source, pair.source_frame)
        rows = []
        for time, image, mask in zip(times, truth, masks, strict=True):
            state, camera = stored_state(dataset, driver, time), stored_camera(dataset, driver, time)
            own = replace(state, beta=state.beta + leaks[source] - leaks[driver])
            shown = [to_size(portrait.views(face, [camera])[0].image, len(image)) for face in (state, own)]
            rows.append([masked_psnr(picture, image, mask) for picture in shown])
        with_leak, without = np.mean(rows, axis=0)
        scores["swap_psnr"].append(float(with_leak))
        scores["leak_cost"].append(float(without - with_leak))
        if on_progress is not None:
            on_progress(done + 1, len(pairs))
    return scores


def _kept_swap(
    dataset: ClipDataset, source: int, driver: int, times: Sequence[int], head: ParametricHead, *, folder: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_swap`, from the folder where it is there already: frames below each other, the mask as alpha."""
    what = [file_sha256(dataset.folder / MANIFEST_NAME), head.name, list(times)]
    mark = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
    path = None if folder is None else folder / f"{dataset.keys[source]}--by--{dataset.keys[driver]}-{mark}.png"
    if path is not None and path.is_file():
        with Image.open(path) as stored:
            kept = np.asarray(stored).reshape(len(times), dataset.size, dataset.size, 4)
        return kept[..., :3], kept[..., 3] > 0
    pictures, masks = exact_swap(dataset, source, driver, times, head)
    if path is not None:
        layers = np.concatenate([pictures, masks[..., None] * np.uint8(255)], axis=-1)
        write_sheet(path, layers.reshape(-1, dataset.size, 4))
    return pictures, masks


@torch.inference_mode()
def exact_swap(
    dataset: ClipDataset, source: int, driver: int, times: Sequence[int], head: ParametricHead
) -> tuple[np.ndarray, np.ndarray]:
    """The source person with the driver's weights, gaze and cameras at `times`.

    Returns:
        uint8 ``(T, H, H, 3)`` pictures over the source's background and their masks ``(T, H, H)`` bool.
    """
    settings = render_settings(dataset, head)
    options = AppearanceOptions(quality=settings["quality"], resting_offset=settings["resting_offset"])
    identity = Identity.create(head, dataset.meta(source)["extra"]["seed"], options)
    arrays = {name: torch.from_numpy(dataset.arrays(driver)[name][list(times)].copy()) for name in ("weights", "gaze")}
    frames = render_frames(
        identity,
        arrays["weights"],
        arrays["gaze"],
        Camera.from_vector(torch.from_numpy(dataset.arrays(driver)["camera"][list(times)].copy())),
        size=dataset.size,
        supersample=settings["supersample"],
        static_scene=dataset.meta(driver)["extra"]["static_scene"],
    )
    pictures = (frames.color.movedim(1, -1) * 255.0).round().clamp(0, 255).to(torch.uint8)
    return pictures.cpu().numpy(), (frames.alpha > 0.5).cpu().numpy()


def render_settings(dataset: ClipDataset, head: ParametricHead) -> dict[str, Any]:
    """How the clips were rendered.

    Raises:
        DataError: They were not rendered by `export3d heads render`, or with another head.
    """
    path = dataset.folder / "render.json"
    if not path.is_file():
        raise DataError(
            f"{path}: missing. Give clips as `export3d heads render` leaves them; merged folders do not say how."
        )
    content = read_json(path, "not readable as JSON", DataError, "Render the clips again.")
    if content["head"] != head.name:
        raise DataError(
            f"{path}: rendered with the head '{content['head']}'; got '{head.name}'. Give that one (--head-model)."
        )
    return content["settings"]
