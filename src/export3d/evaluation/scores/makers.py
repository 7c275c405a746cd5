"""Where the frames to be scored come from (Sec. 4.2): a model, a folder of any method's frames, and trivial baselines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from export3d.data import ClipDataset
from export3d.errors import UsageError
from export3d.evaluation.metrics.consistency import ViewConsistency, model_consistency, turned
from export3d.evaluation.scores.predictions import check_predictions, pair_folder, read_predictions
from export3d.evaluation.scores.protocol import Pair
from export3d.portrait import Model
from export3d.training.batches.stored_portrait import StoredPortrait, stored_camera, stored_state, to_size

BASELINES = ("copy_source", "mean_face", "driving")
"""Copy the source frame; the mean of the source frames of all clips; the driving frame itself (upper bound)."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """Frames of one pair.

    Attributes:
        frames: uint8 ``(T, H, H, 3)`` at the data set's size.
        depth: ``(T, h, h)`` distance along the ray in scene units, or None where the method has none.
        views: agreement of each frame with the same expression seen from another camera; None without other views.
    """

    frames: np.ndarray
    depth: np.ndarray | None = None
    views: ViewConsistency | None = None


class FrameMaker(Protocol):
    """Makes the frames of a pair. `method` is its row in the table, `facts` what makes the run repeatable."""

    method: str
    facts: dict[str, Any]

    def digest(self, pair: Pair) -> str:
        """Changes when the frames of the pair would; a finished pair with another digest is scored again."""
        ...

    def make(self, pair: Pair) -> Made:
        """The frames, one per driving frame."""
        ...


class ModelFrames:
    """Frames of a model of either kind, with the stored beta and camera of the driving clip.

    Args:
        model: in evaluation mode.
        facts: name and digest of the model file.

    Raises:
        UsageError: The data set's coefficients are in another expression space than the model's.
    """

    method = "model"

    def __init__(self, model: Model, dataset: ClipDataset, facts: dict[str, Any]) -> None:
        require_same_space(model, dataset)
        self._model, self._dataset = model, dataset
        self.facts = {"kind": "model", **facts}

    def digest(self, pair: Pair) -> str:
        """See `FrameMaker.digest`."""
        return str(self.facts.get("sha256", ""))

    def make(self, pair: Pair) -> Made:
        """See `FrameMaker.make`."""
        dataset = self._dataset
        driving = dataset.places[pair.driving_clip]
        portrait = StoredPortrait(self._model, dataset, dataset.places[pair.source_clip], pair.source_frame)
        views = []
        for t in range(dataset.num_frames(driving)):
            here = stored_camera(dataset, driving, t)
            first, second = portrait.views(stored_state(dataset, driving, t), [here, turned(here)])
            views.append((first, second))
        return Made(
            frames=np.stack([to_size(first.image, dataset.size) for first, _ in views]),
            depth=np.stack([first.depth[0, 0].numpy() for first, _ in views]),
            views=model_consistency(views),
        )


class PredictedFrames:
    """Frames of any other method, in the layout of `export3d.evaluation.scores.predictions`.

    Raises:
        DataError: Frames are missing or too many; they are named.
    """

    method = "predictions"

    def __init__(self, folder: Path, dataset: ClipDataset, pairs: list[Pair]) -> None:
        self._folder, self._dataset = folder, dataset
        check_predictions(folder, [(pair, self._frames(pair)) for pair in pairs])
        self.facts = {"kind": "predictions", "folder": folder.name}

    def digest(self, pair: Pair) -> str:
        """See `FrameMaker.digest`: a hash over the files of the pair."""
        total = hashlib.sha256()
        for path in sorted(pair_folder(self._folder, pair).iterdir()):
            if not path.name.startswith("."):
                total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()

    def make(self, pair: Pair) -> Made:
        """See `FrameMaker.make`."""
        return Made(frames=read_predictions(self._folder, pair, self._frames(pair), self._dataset.size))

    def _frames(self, pair: Pair) -> int:
        return self._dataset.num_frames(self._dataset.places[pair.driving_clip])


def require_same_space(model: Model, dataset: ClipDataset) -> None:
    """The coefficients of the data set must mean what the model was trained on.

    Raises:
        UsageError: Another expression space.
    """
    given, wanted = dataset.extractor["expression_space"], model.config.expression.space
    if given != wanted:
        raise UsageError(
            f"{dataset.folder}: its coefficients are in the expression space '{given}', but the model was trained on "
            f"'{wanted}'. Prepare the data with an extractor for '{wanted}' or take another model."
        )


def mean_face(dataset: ClipDataset, sources: list[Pair]) -> np.ndarray:
    """The mean picture uint8 ``(H, H, 3)`` of the source frames (frontal, one of each clip)."""
    total = np.zeros((dataset.size, dataset.size, 3))
    for pair in sources:
        total += dataset.frame(dataset.places[pair.source_clip], pair.source_frame)
    return (total / len(sources)).round().astype(np.uint8)


def baseline_frames(name: str, source: np.ndarray, driving: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Frames uint8 ``(T, H, H, 3)`` of one of `BASELINES`."""
    if name == "driving":
        return driving
    still = {"copy_source": source, "mean_face": mean}[name]
    return np.repeat(still[None], len(driving), axis=0)
