"""The pictures of the paper's Sec. 4 (Figs. 4-8, 10, 14) from a model and clips, unpicked: rows and frames go by seed.

Rows are the first clips of the data set in the order of their keys; the driving frame of a row is drawn by the seed and
the clips' keys. Tiles have the data set's size, as in the scores, and a model's output is resized to it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import DataError, UsageError
from export3d.evaluation.figures.layout import SheetRow, error_map, lay_out
from export3d.evaluation.scores.makers import require_same_space
from export3d.evaluation.scores.protocol import (
    ClipFacts,
    Pair,
    ProtocolConfig,
    cross_identity_pairs,
    dataset_facts,
    same_identity_pairs,
)
from export3d.portrait import Model
from export3d.training.batches.stored_portrait import (
    StoredPortrait,
    View,
    depth_picture,
    stored_camera,
    stored_state,
    to_size,
)

YAWS_DEG = (-30, 0, 30)
"""Novel views of the sheets with one row per clip."""

FAN_DEG = (-30, -15, 0, 15, 30)
"""Novel views of `novel_view_sheet`."""

EXPRESSIONS = 3
"""Driving expressions of each source in `novel_view_sheet`."""


def same_identity_sheet(model: Model, dataset: ClipDataset, *, clips: int = 24, seed: int = 0) -> np.ndarray:
    """Each clip's frontal frame, driven by another frame of the same clip.

    Columns: source, driving frame (the truth), output, its absolute error, the same expression at yaw -30, 0 and +30
    degrees, depth (near is bright).

    Args:
        model: in evaluation mode.
        dataset: any clips, real or synthetic.
        clips: rows at most.
        seed: of source and driving frames.

    Returns:
        uint8 figure, see :func:`lay_out`.

    Raises:
        DataError: The data set has no clips, or a clip without any face.
        UsageError: `clips` below 1, or coefficients in another expression space than the model's.
    """
    facts = _facts([model], dataset, clips)
    rows = []
    for pair in same_identity_pairs(facts, ProtocolConfig(seed=seed))[:clips]:
        shown = _Row(dataset, facts, pair, seed)
        output, views = shown.render(model, YAWS_DEG)
        image, truth = shown.tile(output), shown.driving
        tiles = [shown.source, truth, image, error_map(image, truth), *map(shown.tile, views)]
        rows.append(SheetRow(label=shown.label, tiles=[*tiles, depth_picture(output.depth, dataset.size)]))
    columns = ["source", "driving (truth)", "output", "absolute error", *map(_yaw_name, YAWS_DEG), "depth"]
    return lay_out(columns, rows, with_legend=True)


def cross_identity_sheet(model: Model, dataset: ClipDataset, *, clips: int = 24, seed: int = 0) -> np.ndarray:
    """Each clip's frontal frame, driven by a frame of the next person's clip (the pairs of the protocol).

    Columns: source, driving frame, output, the same expression at yaw -30, 0 and +30 degrees. Otherwise as
    :func:`same_identity_sheet`.

    Raises:
        DataError: As there, or all clips show one person.
        UsageError: As there.
    """
    facts = _facts([model], dataset, clips)
    rows = []
    for pair in cross_identity_pairs(facts, ProtocolConfig(seed=seed))[:clips]:
        shown = _Row(dataset, facts, pair, seed)
        output, views = shown.render(model, YAWS_DEG)
        rows.append(
            SheetRow(label=shown.label, tiles=[shown.source, shown.driving, *map(shown.tile, [output, *views])])
        )
    return lay_out(["source", "driving", "output", *map(_yaw_name, YAWS_DEG)], rows)


def ablation_sheet(models: Mapping[str, Model], dataset: ClipDataset, *, clips: int = 6, seed: int = 0) -> np.ndarray:
    """Several models side by side on the same frames: `clips` rows of one identity, then half as many across.

    Columns: source, driving frame (the truth in the first rows), then one per model. The rows across are left out where
    the data set shows one person only.

    Raises:
        DataError: The data set has no clips, or a clip without any face.
        UsageError: No model, `clips` below 1, or an expression space that does not fit.
    """
    facts = _facts(list(models.values()), dataset, clips)
    pairs = same_identity_pairs(facts, ProtocolConfig(seed=seed))[:clips]
    if len({clip.identity for clip in facts}) > 1:
        pairs += cross_identity_pairs(facts, ProtocolConfig(seed=seed))[: max(clips // 2, 1)]
    rows = []
    for pair in pairs:
        shown = _Row(dataset, facts, pair, seed)
        outputs = [shown.tile(shown.render(model)[0]) for model in models.values()]
        rows.append(SheetRow(label=shown.label, tiles=[shown.source, shown.driving, *outputs]))
    return lay_out(["source", "driving (truth if same)", *models], rows)


def error_sheet(models: Mapping[str, Model], dataset: ClipDataset, *, clips: int = 6, seed: int = 0) -> np.ndarray:
    """Absolute errors of several models on the same frames, same identity; one colour scale, with its legend.

    Columns: driving frame (the truth), then one error map per model. Rows are those of :func:`ablation_sheet`.

    Raises:
        DataError: As there.
        UsageError: As there.
    """
    facts = _facts(list(models.values()), dataset, clips)
    rows = []
    for pair in same_identity_pairs(facts, ProtocolConfig(seed=seed))[:clips]:
        shown = _Row(dataset, facts, pair, seed)
        maps = [error_map(shown.tile(shown.render(model)[0]), shown.driving) for model in models.values()]
        rows.append(SheetRow(label=shown.label, tiles=[shown.driving, *maps]))
    return lay_out(["driving (truth)", *models], rows, with_legend=True)


def novel_view_sheet(model: Model, dataset: ClipDataset, *, clips: int = 4, seed: int = 0) -> np.ndarray:
    """Like Figs. 10 and 14: each source with several driving expressions, each seen from yaw -30 to +30 degrees.

    Three rows for each of `clips` sources, one per driving frame of the next person's clip (of the same clip where the
    data set shows one person only). Columns: source, driving frame, five views.

    Raises:
        DataError: The data set has no clips, or a clip without any face.
        UsageError: `clips` below 1, or an expression space that does not fit.
    """
    facts = _facts([model], dataset, clips)
    several = len({clip.identity for clip in facts}) > 1
    make_pairs = cross_identity_pairs if several else same_identity_pairs
    rows = []
    for pair in make_pairs(facts, ProtocolConfig(seed=seed))[:clips]:
        for number in range(EXPRESSIONS):
            shown = _Row(dataset, facts, pair, seed, number)
            tiles = [shown.source, shown.driving, *map(shown.tile, shown.render(model, FAN_DEG)[1])]
            rows.append(SheetRow(label=shown.label, tiles=tiles))
    return lay_out(["source", "driving", *map(_yaw_name, FAN_DEG)], rows)


def driving_frame(pair: Pair, driver: ClipFacts, *, seed: int = 0, number: int = 0) -> int:
    """The driving frame of a row, drawn by the seed and the pair's keys; later numbers give other frames while there are.

    Frames without a face and, for the same clip, the source frame are left out where the clip has others.
    """
    usable = np.flatnonzero(driver.usable)
    others = usable if pair.source_clip != pair.driving_clip else usable[usable != pair.source_frame]
    if len(others) == 0:
        others = usable if len(usable) else np.arange(len(driver.usable))
    digest = hashlib.sha256(f"{seed}|{pair.source_clip}|{pair.driving_clip}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(others)
    return int(order[number % len(order)])


class _Row:
    """One pair with its drawn driving frame: what a row shows, whoever animates it."""

    def __init__(
        self, dataset: ClipDataset, facts: Sequence[ClipFacts], pair: Pair, seed: int, number: int = 0
    ) -> None:
        self._dataset, self._pair = dataset, pair
        self._from, self._by = dataset.places[pair.source_clip], dataset.places[pair.driving_clip]
        driver = next(clip for clip in facts if clip.key == pair.driving_clip)
        self._time = driving_frame(pair, driver, seed=seed, number=number)
        self.source = dataset.frame(self._from, pair.source_frame)
        self.driving = dataset.frame(self._by, self._time)
        by = f"driven by {self._time}" if pair.kind == "same" else f"driven by\n{pair.driving_clip}\nframe {self._time}"
        self.label = f"{pair.source_clip}\nframe {pair.source_frame}\n{by}"

    def render(self, model: Model, yaws_deg: Sequence[float] = ()) -> tuple[View, list[View]]:
        """The output at the driving camera, and the same expression at these yaws."""
        cameras = [Camera.look_at_head(yaw=math.radians(yaw)) for yaw in yaws_deg]
        portrait = StoredPortrait(model, self._dataset, self._from, self._pair.source_frame)
        here = stored_camera(self._dataset, self._by, self._time)
        output, *views = portrait.views(stored_state(self._dataset, self._by, self._time), [here, *cameras])
        return output, views

    def tile(self, view: View) -> np.ndarray:
        """The view's picture at the size of the data set."""
        return to_size(view.image, self._dataset.size)


def _facts(models: Sequence[Model], dataset: ClipDataset, clips: int) -> list[ClipFacts]:
    """Facts of the clips, after the checks that every figure needs."""
    if not models:
        raise UsageError("a figure needs at least one model.")
    if clips < 1:
        raise UsageError(f"a figure needs at least 1 clip; got {clips}.")
    facts = dataset_facts(dataset)
    if not facts:
        raise DataError("the data set has no clips; there is nothing to show.")
    for model in models:
        require_same_space(model, dataset)
    return facts


def _yaw_name(yaw: float) -> str:
    return f"yaw {yaw:+d}" if yaw else "yaw 0"
