"""Contrastive batches as a pure function of (seed, step, places in the batch): frames of a few clips (Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.data.pairs import contrastive_clip_at, counter_rng
from export3d.landmarks import NOSE, mirror_points
from export3d.training.batches.augment import AugmentConfig, draw_change
from export3d.training.batches.frame_store import FrameStore, changed_frame, mirror_cameras, possible_change

_CLIP_AUGMENT_STREAM = 13


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Several clips' frames for the contrastive loss."""

    images: Tensor
    """``(K, N, H, W, 3)`` uint8: N frames of each of K clips."""
    beta: Tensor
    """``(K, N, 64)``."""
    landmarks: Tensor
    """``(K, N, 68, 2)`` in [0, 1]."""
    camera: Tensor
    """``(K, N, 25)``."""


def clip_batch(
    store: FrameStore,
    seed: int,
    step: int,
    places: Sequence[int],
    *,
    num_frames: int,
    augment: AugmentConfig,
    face_share: float = 1.0,
) -> ClipBatch:
    """Clips at `places` of contrastive batch `step`; each clip's frames get one common change.

    With `face_share` below 1 each image is the square of that share of the frame around the nose, moved a little at random;
    the landmarks are then those of the square.
    """
    images, betas, landmarks, cameras = [], [], [], []
    for place in places:
        clip, times = contrastive_clip_at(store.dataset, seed, step, place, num_frames=num_frames)
        rng = counter_rng(seed, _CLIP_AUGMENT_STREAM, step, place)
        change = possible_change(store, clip, draw_change(augment, rng))
        arrays = store.arrays(clip)
        pictures = np.stack([changed_frame(store, clip, int(t), change, step) for t in times])
        points = arrays["landmarks"][times]
        points = mirror_points(points) if change.mirrored else points
        if face_share < 1.0:
            pictures, points = around_nose(pictures, points, face_share, rng)
        images.append(pictures)
        betas.append(arrays[change.beta_name][times])
        landmarks.append(points)
        camera = torch.from_numpy(arrays["camera"][times])
        cameras.append(mirror_cameras(camera, torch.full((len(times),), change.mirrored)))
    return ClipBatch(
        images=torch.from_numpy(np.stack(images)),
        beta=torch.from_numpy(np.stack(betas)),
        landmarks=torch.from_numpy(np.stack(landmarks)),
        camera=torch.stack(cameras),
    )


def around_nose(
    pictures: np.ndarray, points: np.ndarray, share: float, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the pictures around the nose, and the landmarks inside them.

    Args:
        pictures: ``(N, S, S, 3)`` uint8.
        points: ``(N, 68, 2)`` landmarks in [0, 1].
        share: side of the square over that of the picture.
        rng: moves each square a little; None leaves it at the nose.

    Returns:
        ``(N, s, s, 3)`` uint8 and ``(N, 68, 2)`` float32.
    """
    size = pictures.shape[1]
    side = max(2, round(share * size))
    centre = points[:, NOSE].mean(axis=1)
    if rng is not None:
        centre = centre + rng.uniform(-0.03, 0.03, (len(points), 2))
    first = np.clip(np.rint(centre * size - side / 2), 0, size - side).astype(np.int64)  # (N, 2) x, y
    squares = [image[y : y + side, x : x + side] for image, (x, y) in zip(pictures, first, strict=True)]
    return np.stack(squares), ((points * size - first[:, None]) / side).astype(np.float32)
