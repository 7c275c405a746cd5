"""The face crop of identity networks (Sec. 4.2, CSIM): five points carried to the 112-pixel template by a similarity."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from export3d.landmarks import LEFT_EYE, RIGHT_EYE

METRIC_SIZE_PX = 256
"""Landmarks are given in pixels of a 256-pixel image, whatever the size of the frames (AKD's unit)."""

TEMPLATE_SIZE_PX = 112

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""ArcFace's places of the eyes, the nose tip and the mouth corners (image left first), in pixels of the 112-pixel crop.
They count from the centre of the first pixel."""

_PIXEL_CENTRE = 0.5


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """The five points ``(T, 5, 2)`` of 68 landmarks ``(T, 68, 2)``: middles of the eyes, nose tip, mouth corners."""
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2):
        raise ValueError(f"landmarks must have shape (T, 68, 2); got {landmarks.shape}")
    left, right = landmarks[:, RIGHT_EYE].mean(axis=1), landmarks[:, LEFT_EYE].mean(axis=1)
    return np.stack([left, right, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], axis=1)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity (rotation, one scale, translation, no mirror image) of points ``(N, 2)`` onto ``(N, 2)``.

    With x + iy as a complex number a similarity is z -> a z + b, so that a is a quotient of two sums.

    Returns:
        ``(2, 3)`` matrix M with ``target ~ M[:, :2] @ source + M[:, 2]``.

    Raises:
        ValueError: The points lie in one place.
    """
    z = source[:, 0] + 1j * source[:, 1]
    w = target[:, 0] + 1j * target[:, 1]
    centred = z - z.mean()
    spread = float((np.abs(centred) ** 2).sum())
    if spread < 1e-12:
        raise ValueError("fit_similarity: the points lie in one place; there is no scale to fit")
    a = complex((np.conj(centred) * (w - w.mean())).sum() / spread)
    b = complex(w.mean() - a * z.mean())
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def crop_faces(
    frames: np.ndarray, landmarks: np.ndarray, size: int = TEMPLATE_SIZE_PX, margin: float = 0.0
) -> np.ndarray:
    """Each face in the template's place, bilinear, black outside the frame.

    Args:
        frames: uint8 ``(T, H, H, C)``.
        landmarks: ``(T, 68, 2)`` pixels of a 256-pixel image, as back ends give them; NaN where there is no face.
        size: side of the crop in pixels; the template is scaled to it.
        margin: what is added around the template on each side, as a share of its side (for augmentation). `size` is the
            side with it.

    Returns:
        uint8 ``(T, size, size, C)``; zeros where the landmarks are NaN.
    """
    count, height = frames.shape[:2]
    if landmarks.shape != (count, 68, 2):
        raise ValueError(f"landmarks must have shape ({count}, 68, 2); got {landmarks.shape}")
    out = np.zeros((count, size, size, frames.shape[-1]), dtype=np.uint8)
    seen = np.isfinite(landmarks).all(axis=(1, 2))
    if not seen.any():
        return out
    inner = size / (1 + 2 * margin)
    target = (TEMPLATE + _PIXEL_CENTRE) * (inner / TEMPLATE_SIZE_PX) + margin * inner
    centres = np.arange(size) + _PIXEL_CENTRE
    grid = np.stack(np.meshgrid(centres, centres, indexing="xy"), axis=-1).reshape(-1, 2)
    places = np.empty((int(seen.sum()), size, size, 2), dtype=np.float32)
    for row, points in enumerate(five_points(landmarks[seen])):
        back = fit_similarity(target, points * (height / METRIC_SIZE_PX))  # crop -> frame, as sampling needs it
        places[row] = (grid @ back[:, :2].T + back[:, 2]).reshape(size, size, 2)
    pixels = torch.from_numpy(np.ascontiguousarray(frames[seen])).movedim(-1, 1).float()
    positions = torch.from_numpy(places) * (2.0 / height) - 1.0
    sampled = F.grid_sample(pixels, positions, mode="bilinear", padding_mode="zeros", align_corners=False)
    out[seen] = sampled.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
    return out
