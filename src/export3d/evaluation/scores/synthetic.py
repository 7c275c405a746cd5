"""How good a model is where the truth is known: synthetic clips with mask, depth and expression (beside Sec. 4.2).

Each driving frame is rendered several times: as asked, with the source's expression, with another person's expression code
added (leak), from the source's camera, and with the source's torso; copying the source is the trivial baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.data.clip import DEPTH_STEPS
from export3d.evaluation.metrics.pictures import psnr, ssim
from export3d.evaluation.scores.protocol import dataset_facts, same_identity_pairs
from export3d.evaluation.scores.tracked import TrackedPortraits
from export3d.face_state import FaceState
from export3d.landmarks import EYES, MOUTH
from export3d.portrait import Model, PortraitModel
from export3d.tracking import Tracker
from export3d.training.batches.stored_portrait import StoredPortrait, View, stored_camera, stored_state, to_size


@dataclass(frozen=True, kw_only=True)
class SyntheticScores:
    """Means over frames, then clips; decibels unless said otherwise.

    `foreground` is PSNR inside the true mask, `mouth` and `eyes` inside boxes around the true landmarks; `depth` is the
    mean absolute error in scene units inside the mask; `sharpness` is the mean absolute Laplacian inside the mask over
    the truth's.
    """

    psnr: float
    ssim: float
    foreground: float
    mouth: float
    eyes: float
    depth: float
    sharpness: float


Progress = Callable[[int, int], None]


def score_synthetic(
    model: Model,
    dataset: ClipDataset,
    *,
    clips: int | None = None,
    seed: int = 0,
    size: int | None = None,
    brief: bool = False,
    tracker: Tracker | None = None,
    on_progress: Progress | None = None,
) -> dict[str, SyntheticScores]:
    """Scores of a model on clips with exact truth, by variant.

    Args:
        model: in evaluation mode.
        dataset: synthetic clips of identities that the model never saw.
        clips: only the first so many clips; None takes all.
        seed: choice of the frontal source frame and of the other identity.
        size: pixels a side of the pictures that are scored, composed with the clips' own detail; None: the model's.
        brief: only `model`, `copy_source` and, with a tracker, `tracked`.
        tracker: also scores portrait and driver seen by it as pictures alone.

    Returns:
        `model`, `source_expression` (ignores the driving expression), `random_expression` (another frame's),
        `other_leak` (what the extractor mixes of the person into beta is exchanged for the next person's),
        `source_camera`, `copy_source`; for the portrait model also `source_turn` (the torso stays as in the portrait).
        With a tracker those of `tracked.variants`: portrait and driver read from pictures, and the same with one part of both
        as it truly is.
    """
    pairs = same_identity_pairs(dataset_facts(dataset))[:clips]
    leaks = [leak_of(dataset, index) for index in range(len(dataset))]
    rows: dict[str, list[list[float]]] = {}
    paper = not isinstance(model, PortraitModel)
    seen_as = None if tracker is None else partial(TrackedPortraits, tracker=tracker, brief=brief)
    for done, pair in enumerate(pairs):
        index = dataset.places[pair.driving_clip]
        shuffled = np.random.default_rng([seed, done]).permutation(dataset.num_frames(index))
        portrait = StoredPortrait(model, dataset, index, pair.source_frame, size)
        tracked = None if seen_as is None else seen_as(model, dataset, pair.source_frame, index, size)
        clip: dict[str, list[list[float]]] = {}
        for time in range(dataset.num_frames(index)):
            if time == pair.source_frame:
                continue
            truth = Truth.read(dataset, index, time)
            leak = leaks[(index + 1) % len(leaks)] - leaks[index]
            states = _states(dataset, index, (time, pair.source_frame, int(shuffled[time])), leak)
            names = ["model"] if brief else [name for name in states if not (paper and name == "source_turn")]
            cameras = [stored_camera(dataset, index, t) for t in (time, pair.source_frame)]
            shown = _views(portrait, {name: states[name] for name in names}, cameras[: 1 if brief else 2])
            shown |= {} if tracked is None else tracked.views(time)
            for name, view in shown.items():
                clip.setdefault(name, []).append(truth.score(view.image, view.depth))
            clip.setdefault("copy_source", []).append(truth.score(dataset.frame(index, pair.source_frame), None))
        for name, values in clip.items():
            rows.setdefault(name, []).append(_mean(values))
        if on_progress is not None:
            on_progress(done + 1, len(pairs))
    names = SyntheticScores.__annotations__
    return {name: SyntheticScores(**dict(zip(names, _mean(v), strict=True))) for name, v in rows.items()}


def _views(portrait: StoredPortrait, states: dict[str, FaceState], cameras: list[Camera]) -> dict[str, View]:
    """Every state from the first camera; the model's own also from a second one (`source_camera`)."""
    shown = {name: portrait.views(state, cameras[:1])[0] for name, state in states.items() if name != "model"}
    names = ("model", "source_camera")[: len(cameras)]
    return shown | dict(zip(names, portrait.views(states["model"], cameras), strict=True))


def _states(dataset: ClipDataset, index: int, times: tuple[int, int, int], leak: Tensor) -> dict[str, FaceState]:
    """Driving faces by variant, from the driving frame, the source frame and any other one; `leak` of another person."""
    own, source, other = (stored_state(dataset, index, time) for time in times)
    return {
        "model": own,
        "source_expression": replace(source, turn=own.turn),
        "random_expression": replace(other, turn=own.turn),
        "other_leak": replace(own, beta=own.beta + leak),
        "source_turn": replace(own, turn=None),
    }


def leak_of(dataset: ClipDataset, index: int) -> Tensor:
    """``(1, 64)`` mean over the clip of beta less the true expression: what is of the person, not of the expression."""
    arrays = dataset.arrays(index)
    return torch.tensor((arrays["beta"] - arrays["true_beta"]).mean(axis=0, keepdims=True))


@dataclass(frozen=True)
class Truth:
    """One driving frame and what is known about it."""

    frame: np.ndarray
    mask: np.ndarray  # (H, W) bool
    depth: np.ndarray  # (H, W) scene units, 0 = unknown
    landmarks: np.ndarray  # (68, 2) in [0, 1]

    @staticmethod
    def read(dataset: ClipDataset, index: int, time: int) -> Truth:
        """Frame `time` of clip `index`."""
        return Truth(
            dataset.frame(index, time),
            dataset.mask(index, time) > 127,
            dataset.depth(index, time).astype(np.float32) / DEPTH_STEPS,
            dataset.arrays(index)["landmarks"][time],
        )

    def score(self, image: np.ndarray, depth: Tensor | None) -> list[float]:
        """The numbers of :class:`SyntheticScores`, in their order."""
        image = to_size(image, self.frame.shape[0])
        return [
            float(psnr(image[None], self.frame[None])[0]),
            float(ssim(image[None], self.frame[None])[0]),
            masked_psnr(image, self.frame, self.mask),
            masked_psnr(image, self.frame, self._box(MOUTH)),
            masked_psnr(image, self.frame, self._box(EYES)),
            float("nan") if depth is None else self._depth_error(depth),
            _sharpness(image, self.mask) / max(_sharpness(self.frame, self.mask), 1e-6),
        ]

    def foreground(self, image: np.ndarray) -> float:
        """PSNR inside the mask, decibels."""
        return masked_psnr(to_size(image, self.frame.shape[0]), self.frame, self.mask)

    def _box(self, part: slice) -> np.ndarray:
        points = self.landmarks[part] * self.frame.shape[0]
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.25 * (high - low).max()
        rows, columns = np.mgrid[: self.frame.shape[0], : self.frame.shape[1]] + 0.5
        inside_x = (columns >= low[0] - margin) & (columns <= high[0] + margin)
        return inside_x & (rows >= low[1] - margin) & (rows <= high[1] + margin)

    def _depth_error(self, depth: Tensor) -> float:
        full = F.interpolate(depth, size=self.depth.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
        known = self.mask & (self.depth > 0)
        return float(np.abs(full - self.depth)[known].mean())


def _mean(rows: list[list[float]]) -> list[float]:
    """Column means over the rows that have the number; NaN for a column without any."""
    columns = np.array(rows).T
    return [
        float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else float("nan") for column in columns
    ]


def masked_psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in decibels of uint8 ``(H, W, 3)`` inside a mask ``(H, W)`` bool; NaN where it is empty."""
    error = (image.astype(np.float64) - truth.astype(np.float64))[mask]
    return float(10.0 * np.log10(255.0**2 / max(float((error**2).mean()), 1e-6))) if mask.any() else float("nan")


def _sharpness(image: np.ndarray, mask: np.ndarray) -> float:
    grey = torch.from_numpy(image.astype(np.float32).mean(axis=-1))[None, None]
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    return float(F.conv2d(grey, kernel, padding=1).abs()[0, 0].numpy()[mask].mean())
