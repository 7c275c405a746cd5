"""What the landmark regressor learns from: frames of random heads, as a face tracker would see them (Sec. 4, data; Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.fitting.crops import fold_crop
from export3d.heads.clips.acting import independent
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.people import REFERENCE_SIZE, add_noise, draw_person
from export3d.heads.shape.parametric import ParametricHead
from export3d.tracking.alignment import Alignment, crop_squares


@dataclass(frozen=True, kw_only=True)
class RegressorTraining:
    """Settings of one training."""

    identities: int = 1500
    """Number of random heads."""
    frames: int = 20
    """Random frames of each head."""
    epochs: int = 45
    batch: int = 512
    rate: float = 2e-3
    """Highest learning rate of Adam; it falls to zero along a cosine."""
    noise_px: tuple[float, float] = (0.5, 2.0)
    """Range of the standard deviation of the noise on the points, pixels of a 256-pixel crop; drawn per face."""
    face_offset_px: float = 1.0
    """Standard deviation of offsets that many faces share: how a tracker's points differ from the head model's."""
    missing_share: float = 0.2
    """Share of faces in which some points are missing."""
    aligned_share: float = 0.6
    """Share of faces that are cropped by the alignment; the others keep the crop of the clips."""
    tracker_share: float = 0.7
    """Share of faces that get the errors of a face tracker, where they are known (:class:`TrackerErrors`)."""
    pose_weight: float = 3.0
    """Weight of the camera in the loss; beta has 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.identities, self.frames, self.epochs, self.batch) < 1 or self.rate <= 0.0:
            raise ValueError("RegressorTraining: identities, frames, epochs, batch and rate must be positive")


@dataclass(frozen=True)
class Samples:
    """Frames of random heads: points in the world ``(N, 68, 3)``, cameras and beta-hat ``(N, 64)``."""

    points: Tensor
    camera: Camera
    beta: Tensor

    def __len__(self) -> int:
        return len(self.points)

    @property
    def landmarks(self) -> Tensor:
        """``(N, 68, 2)`` exact positions in [0, 1]."""
        return self.camera.project(self.points)[0]


def draw_samples(
    head: ParametricHead,
    extractor: LinearExtractor,
    seeds: Sequence[int],
    frames: int,
    *,
    noisy_fit: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Independent frames of the heads with these seeds; beta is the extractor's fit to their landmarks.

    Args:
        noisy_fit: fit to noisy points, as the clips do. The noise of that fit cannot be foreseen and averages out in
            training, so training goes faster on the fit to the exact points.
    """
    points, cameras, betas = [], [], []
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng([11, seed])
        person = draw_person(head, seed, lambda seed, resting: independent(seed, frames, resting=resting))
        seen = person.landmarks
        if noisy_fit:
            seen = add_noise(seen, rng, extractor.config.noise_px)
        points.append(person.points)
        cameras.append(person.camera.to_vector())
        betas.append(extractor.fit(seen, person.camera))
        if progress:
            progress(number + 1, len(seeds))
    return Samples(torch.cat(points), Camera.from_vector(torch.cat(cameras)), torch.cat(betas))


@dataclass(frozen=True)
class TrackerErrors:
    """What a face tracker makes of rendered heads: its points minus the exact ones, frame by frame.

    The errors are far from random: a mean difference of each point, and one that goes with the pose and the person.
    Drawing whole frames of them, at about the same yaw, keeps all that.
    """

    yaw: np.ndarray
    """``(M,)`` radians, increasing."""
    errors: np.ndarray
    """``(M, 68, 2)`` in [0, 1] of the clips' frame."""
    alignment: Alignment
    """The crop for the tracker's points."""
    offsets: np.ndarray
    """``(68, 2)`` mean difference in that crop, which the regressor takes off."""

    def draw(self, yaw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``(N, 68, 2)`` errors of frames whose yaw is near ``(N,)`` radians."""
        around = max(1, len(self.yaw) // 40)
        place = np.searchsorted(self.yaw, yaw) + rng.integers(-around, around + 1, size=len(yaw))
        return self.errors[np.clip(place, 0, len(self.yaw) - 1)]


@dataclass(frozen=True)
class Views:
    """What the network sees: points ``(N, 68, 2)``, presence ``(N, 68)``; and the camera it should answer."""

    landmarks: Tensor
    present: Tensor
    camera: Camera


def disturb(
    samples: Samples,
    alignment: Alignment,
    settings: RegressorTraining,
    rng: np.random.Generator,
    tracker: TrackerErrors | None = None,
) -> Views:
    """Points as a face tracker would give them: noisy, partly missing, in the clips' crop or in an aligned crop.

    The alignment sees the noisy points, as it does at run time; the camera is that of the exact crop that results.
    """
    count = len(samples)
    noise = rng.uniform(*settings.noise_px, size=(count, 1, 1)) / REFERENCE_SIZE
    noisy = samples.landmarks.double().numpy()
    tracked = (rng.random(count) < settings.tracker_share) & (tracker is not None)
    if tracker is not None:
        yaw = samples.camera.head_angles()[:, 0].numpy()
        noisy[tracked] += tracker.draw(yaw[tracked], rng)
        noise[tracked] *= 0.5  # most of the noise is in the tracker's errors already
    noisy += noise * rng.normal(size=(count, 68, 2))
    shared = rng.normal(size=(64, 68, 2)) * settings.face_offset_px / REFERENCE_SIZE
    noisy += shared[rng.integers(len(shared), size=count)]
    aligned = rng.random(count) < settings.aligned_share
    squares = np.tile(np.array([0.5, 0.5, 1.0]), (count, 1))
    squares[aligned & ~tracked] = crop_squares(noisy[aligned & ~tracked], alignment)
    if tracker is not None:
        squares[aligned & tracked] = crop_squares(noisy[aligned & tracked], tracker.alignment)
    landmarks = (noisy - squares[:, None, :2]) / squares[:, None, 2:] + 0.5
    if tracker is not None:
        landmarks[tracked] -= tracker.offsets
    folded = fold_crop(samples.camera, torch.from_numpy(squares).float(), samples.points).to_vector()
    camera = torch.where(torch.from_numpy(aligned)[:, None], folded, samples.camera.to_vector())
    share = rng.uniform(0.0, 0.4, size=(count, 1)) * (rng.random((count, 1)) < settings.missing_share)
    present = rng.random((count, 68)) >= share
    return Views(torch.from_numpy(landmarks).float(), torch.from_numpy(present).float(), Camera.from_vector(camera))
