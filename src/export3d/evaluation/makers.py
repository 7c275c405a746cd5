"""Where the frames to be scored come from (Sec. 4.2): a model, a folder of any method's frames, and trivial baselines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import UsageError
from export3d.evaluation.predictions import check_predictions, pair_folder, read_predictions
from export3d.evaluation.protocol import Pair
from export3d.evaluation.synthetic import fit_size, to_size
from export3d.images import to_tensor, to_uint8
from export3d.model import Export3D
from export3d.training.sheets import gaze_at

BASELINES = ("copy_source", "mean_face", "driving")
"""Copy the source frame; the mean of the source frames of all clips; the driving frame itself (upper bound)."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """Frames of one pair.

    Attributes:
        frames: uint8 ``(T, H, H, 3)`` at the data set's size.
        depth: ``(T, h, h)`` distance along the ray in scene units, or None where the method has none.
    """

    frames: np.ndarray
    depth: np.ndarray | None = None


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
    """Frames of an Export3D model, with the stored beta and camera of the driving clip.

    Args:
        model: in evaluation mode.
        facts: name and digest of the model file.

    Raises:
        UsageError: The data set's coefficients are in another expression space than the model's.
    """

    method = "model"

    def __init__(self, model: Export3D, dataset: ClipDataset, facts: dict[str, Any]) -> None:
        given, wanted = dataset.extractor["expression_space"], model.config.expression.space
        if given != wanted:
            raise UsageError(
                f"{dataset.folder}: its coefficients are in the expression space '{given}', but the model was trained on "
                f"'{wanted}'. Prepare the data with an extractor for '{wanted}' or take another model."
            )
        self._model, self._dataset = model, dataset
        self._device = next(model.parameters()).device
        self._places = {key: index for index, key in enumerate(dataset.keys)}
        self.facts = {"kind": "model", **facts}

    def digest(self, pair: Pair) -> str:
        """See `FrameMaker.digest`."""
        return str(self.facts.get("sha256", ""))

    @torch.inference_mode()
    def make(self, pair: Pair) -> Made:
        """See `FrameMaker.make`."""
        source, driving = self._places[pair.source_clip], self._places[pair.driving_clip]
        dataset, model = self._dataset, self._model
        portrait = fit_size(to_tensor(dataset.frame(source, pair.source_frame))[None], model.config.image_size)
        own, arrays, first = dataset.arrays(source), dataset.arrays(driving), pair.source_frame
        code = model.encode(
            portrait.to(self._device),
            self._camera(own["camera"][first : first + 1]),
            source_beta=torch.tensor(own["beta"][first : first + 1]).to(self._device),
            source_gaze=gaze_at(own, first, self._device),
        )
        frames, depths = [], []
        for t in range(dataset.num_frames(driving)):
            beta = torch.tensor(arrays["beta"][t : t + 1]).to(self._device)
            planes = model.planes(code, beta, gaze_at(arrays, t, self._device))
            render = model.render(planes, self._camera(arrays["camera"][t : t + 1]), code)
            assert render.image is not None  # only a changed raw size leaves it out
            frames.append(to_size(to_uint8(render.image[0]), dataset.size))
            depths.append(render.depth[0, 0].float().numpy(force=True))
        return Made(frames=np.stack(frames), depth=np.stack(depths))

    def _camera(self, p: np.ndarray) -> Camera:
        return Camera.from_vector(torch.tensor(p)).to(self._device)


class PredictedFrames:
    """Frames of any other method, in the layout of `export3d.evaluation.predictions`.

    Raises:
        DataError: Frames are missing or too many; they are named.
    """

    method = "predictions"

    def __init__(self, folder: Path, dataset: ClipDataset, pairs: list[Pair]) -> None:
        self._folder, self._dataset = folder, dataset
        self._places = {key: index for index, key in enumerate(dataset.keys)}
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
        return self._dataset.num_frames(self._places[pair.driving_clip])


def mean_face(dataset: ClipDataset, sources: list[Pair]) -> np.ndarray:
    """The mean picture uint8 ``(H, H, 3)`` of the source frames (frontal, one of each clip)."""
    places = {key: index for index, key in enumerate(dataset.keys)}
    total = np.zeros((dataset.size, dataset.size, 3))
    for pair in sources:
        total += dataset.frame(places[pair.source_clip], pair.source_frame)
    return (total / len(sources)).round().astype(np.uint8)


def baseline_frames(name: str, source: np.ndarray, driving: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Frames uint8 ``(T, H, H, 3)`` of one of `BASELINES`."""
    if name == "driving":
        return driving
    still = {"copy_source": source, "mean_face": mean}[name]
    return np.repeat(still[None], len(driving), axis=0)
