"""Image, face and pose metrics (Sec. 6.5): PSNR, SSIM, AKD, CSIM, AED, APD, each per frame, nothing dropped in silence.

Images are uint8 ``(T, H, W, 3)`` RGB. Every function returns one value per frame, NaN where a frame cannot be
measured; :func:`summarise` turns them into a mean over the measured frames and counts the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

PEAK = 255.0
"""Data range of 8-bit images."""

SSIM_WINDOWS = ("gaussian", "uniform")
"""`gaussian`: Wang et al., 11x11, sigma 1.5, population covariance. `uniform`: 7x7 box, sample covariance."""

SsimWindow = Literal["gaussian", "uniform"]

_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean of a metric over the frames that could be measured.

    Attributes:
        value: Mean over the measured frames; NaN if there is none.
        measured: Number of frames in the mean.
        missing: Number of frames without a value (no face found). They are never part of the mean.
    """

    value: float
    measured: int
    missing: int


def summarise(per_frame: np.ndarray) -> Score:
    """Mean of ``(T,)`` values without the NaNs, and how many there were of each."""
    known = ~np.isnan(per_frame)
    mean = float(per_frame[known].mean()) if known.any() else float("nan")
    return Score(value=mean, measured=int(known.sum()), missing=int((~known).sum()))


def psnr(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB over all pixels and channels of each frame; infinite for equal frames.

    Args:
        generated: uint8 ``(T, H, W, 3)``.

    Returns:
        ``(T,)`` float64.
    """
    _check_images(generated, reference)
    difference = generated.astype(np.float64) - reference.astype(np.float64)
    mse = (difference**2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(PEAK**2 / mse)


def ssim(generated: np.ndarray, reference: np.ndarray, window: SsimWindow = "gaussian") -> np.ndarray:
    """Structural similarity, mean over the channels and over the positions where the window fits into the image.

    The two common definitions differ by some hundredths: always report which one was used.

    Args:
        generated: uint8 ``(T, H, W, 3)``, at least as large as the window.
        window: one of :data:`SSIM_WINDOWS`.

    Returns:
        ``(T,)`` float64 in [-1, 1].
    """
    _check_images(generated, reference)
    if window == "gaussian":
        offsets = torch.arange(-5, 6, dtype=torch.float64)
        taps = torch.exp(-(offsets**2) / (2 * 1.5**2))
        taps = taps / taps.sum()
        unbiased = 1.0
    elif window == "uniform":
        taps = torch.full((7,), 1 / 7, dtype=torch.float64)
        unbiased = 49 / 48  # n / (n - 1) of a 7x7 window
    else:
        raise ValueError(f"window must be one of {SSIM_WINDOWS}; got '{window}'")
    if min(generated.shape[1:3]) < len(taps):
        raise ValueError(f"images must have at least {len(taps)} pixels per side; got {generated.shape[1:3]}")
    return np.array([_ssim_of_frame(g, r, taps, unbiased) for g, r in zip(generated, reference, strict=True)])


def _ssim_of_frame(generated: np.ndarray, reference: np.ndarray, taps: torch.Tensor, unbiased: float) -> float:
    x = torch.from_numpy(generated).double().movedim(-1, 0)[:, None]  # (3, 1, H, W)
    y = torch.from_numpy(reference).double().movedim(-1, 0)[:, None]

    def local_mean(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(image, taps.reshape(1, 1, 1, -1)), taps.reshape(1, 1, -1, 1))

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x = unbiased * (local_mean(x * x) - mean_x**2)
    var_y = unbiased * (local_mean(y * y) - mean_y**2)
    covariance = unbiased * (local_mean(x * y) - mean_x * mean_y)
    c1, c2 = (_K1 * PEAK) ** 2, (_K2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float((luminance * structure).mean())


def akd(generated: np.ndarray, driving: np.ndarray) -> np.ndarray:
    """Average key-point distance: mean absolute difference over the 68 x 2 landmark coordinates.

    Args:
        generated: ``(T, 68, 2)`` pixels of a 256-pixel image; NaN where no face was found.
        driving: the same for the driving frames.

    Returns:
        ``(T,)`` pixels, NaN where either frame has no face.
    """
    _check_rows("akd", generated, driving, (68, 2))
    return np.abs(generated - driving).mean(axis=(1, 2))


def aed(generated: np.ndarray, driving: np.ndarray) -> np.ndarray:
    """Average expression distance: mean absolute difference of ``(T, 64)`` expression coefficients, per frame."""
    _check_rows("aed", generated, driving, (64,))
    return np.abs(generated - driving).mean(axis=1)


@dataclass(frozen=True, kw_only=True)
class PoseDistance:
    """APD, and its two halves, which have different units and which several papers mix. All ``(T,)``.

    Attributes:
        apd: mean over the 6 numbers (the paper's definition).
        rotation: mean over the 3 angles, radians.
        translation: mean over the 3 translations, in the unit given.
    """

    apd: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray


def apd(generated: np.ndarray, driving: np.ndarray) -> PoseDistance:
    """Average pose distance of ``(T, 6)`` poses = [3 angles in radians | 3 translations]; angles compared modulo 2 pi."""
    _check_rows("apd", generated, driving, (6,))
    difference = generated - driving
    angles = np.abs((difference[:, :3] + np.pi) % (2 * np.pi) - np.pi)
    shifts = np.abs(difference[:, 3:])
    both = np.concatenate([angles, shifts], axis=1)
    return PoseDistance(apd=both.mean(axis=1), rotation=angles.mean(axis=1), translation=shifts.mean(axis=1))


def csim(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine similarity of identity embeddings.

    Args:
        generated: ``(T, E)``; NaN rows where no face was found. Need not be normalised.
        reference: ``(T, E)`` driving frames, or ``(E,)`` of the one source image (the paper's words).

    Returns:
        ``(T,)`` in [-1, 1], NaN where an embedding is missing.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if generated.ndim != 2 or reference.shape not in (generated.shape, generated.shape[1:]):
        raise ValueError(f"csim: expected (T, E) and (T, E) or (E,); got {generated.shape} and {reference.shape}")
    lengths = np.linalg.norm(generated, axis=-1) * np.linalg.norm(reference, axis=-1)
    return (generated * reference).sum(axis=-1) / np.where(lengths == 0, np.nan, lengths)


def _check_images(generated: np.ndarray, reference: np.ndarray) -> None:
    for name, images in (("generated", generated), ("reference", reference)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"{name} must be uint8 (T, H, W, 3); got {images.dtype} {images.shape}")
    if generated.shape != reference.shape:
        raise ValueError(f"generated and reference differ in shape: {generated.shape}, {reference.shape}")


def _check_rows(metric: str, generated: np.ndarray, driving: np.ndarray, row: tuple[int, ...]) -> None:
    for name, array in (("generated", generated), ("driving", driving)):
        if array.shape[1:] != row or array.ndim != len(row) + 1:
            raise ValueError(f"{metric}: {name} must have shape (T, {', '.join(map(str, row))}); got {array.shape}")
    if len(generated) != len(driving):
        raise ValueError(f"{metric}: {len(generated)} generated frames but {len(driving)} driving frames")
