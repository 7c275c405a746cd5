"""Measures of how usable a clip is: sharpness, face size, pose range, share outside the picture (docs/data.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.preprocess.options import PrepareOptions
from export3d.tracking import Crop

_SHARPNESS_PX = 256  # sharpness is measured at this size, so that it does not depend on --size
POSE_BIN_DEG = 5
POSE_BINS = tuple(range(-90, 90, POSE_BIN_DEG))
"""Lower edges of the bins in which yaw and pitch are counted."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Numbers of one clip."""

    sharpness: float
    """Median over frames of the variance of the Laplacian in the face, grey values 0..255 at 256 px."""
    face_px: float
    """Median height of the landmarks' box in the source."""
    confidence: float
    """Mean of the face tracker's confidence."""
    outside: float
    """Mean share of the crop that lies outside the picture."""
    yaw_deg: tuple[float, float]
    """Least and greatest head yaw."""
    pitch_deg: tuple[float, float]
    yaw_counts: tuple[int, ...] = field(default=())
    """Frames per bin of `POSE_BINS`."""
    pitch_counts: tuple[int, ...] = field(default=())

    def to_meta(self) -> dict[str, float | list[float]]:
        """What is stored with the clip, rounded."""
        return {
            "sharpness": round(self.sharpness, 3),
            "face_px": round(self.face_px, 2),
            "confidence": round(self.confidence, 4),
            "outside": round(self.outside, 4),
            "yaw_deg": [round(value, 2) for value in self.yaw_deg],
            "pitch_deg": [round(value, 2) for value in self.pitch_deg],
        }


def face_sharpness(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture inside the landmarks' box.

    Args:
        image: uint8 ``(S, S, 3)`` crop.
        landmarks: ``(68, 2)`` in [0, 1] of the crop.
    """
    grey = Image.fromarray(image).convert("L")
    if grey.width != _SHARPNESS_PX:
        grey = grey.resize((_SHARPNESS_PX, _SHARPNESS_PX), Image.Resampling.BILINEAR)
    values = np.asarray(grey, dtype=np.float32)
    low = np.clip((landmarks.min(axis=0) * _SHARPNESS_PX).astype(int), 0, _SHARPNESS_PX - 3)
    high = np.clip((landmarks.max(axis=0) * _SHARPNESS_PX).astype(int), low + 3, _SHARPNESS_PX)
    part = values[low[1] : high[1], low[0] : high[0]]
    laplacian = part[:-2, 1:-1] + part[2:, 1:-1] + part[1:-1, :-2] + part[1:-1, 2:] - 4.0 * part[1:-1, 1:-1]
    return float(laplacian.var())


def outside_share(crop: Crop, width: int, height: int) -> float:
    """Share of a crop's area that lies outside a picture, 0 to 1."""
    half = crop.side / 2.0
    inside_x = min(crop.center_x + half, width) - max(crop.center_x - half, 0.0)
    inside_y = min(crop.center_y + half, height) - max(crop.center_y - half, 0.0)
    return 1.0 - max(inside_x, 0.0) * max(inside_y, 0.0) / crop.side**2


def measure(
    *, sharpness: np.ndarray, face_px: np.ndarray, confidence: np.ndarray, outside: np.ndarray, camera: np.ndarray
) -> Quality:
    """Put the measurements of a clip's frames together; all ``(T,)``, `camera` ``(T, 25)``."""
    angles = Camera.from_vector(torch.from_numpy(camera.astype(np.float32))).head_angles()
    degrees = np.degrees(angles.numpy().astype(np.float64))
    yaw, pitch = degrees[:, 0], degrees[:, 1]
    return Quality(
        sharpness=float(np.median(sharpness)),
        face_px=float(np.median(face_px)),
        confidence=float(confidence.mean()),
        outside=float(outside.mean()),
        yaw_deg=(float(yaw.min()), float(yaw.max())),
        pitch_deg=(float(pitch.min()), float(pitch.max())),
        yaw_counts=count_angles(yaw),
        pitch_counts=count_angles(pitch),
    )


def count_angles(degrees: np.ndarray) -> tuple[int, ...]:
    """Frames per bin; angles beyond +-90 go to the last bins."""
    places = np.clip((degrees - POSE_BINS[0]) // POSE_BIN_DEG, 0, len(POSE_BINS) - 1).astype(int)
    return tuple(int(count) for count in np.bincount(places, minlength=len(POSE_BINS)))


def why_dropped(quality: Quality, options: PrepareOptions) -> str | None:
    """The first rule that a clip breaks, or None."""
    if quality.face_px < options.min_face_px:
        return f"face too small ({quality.face_px:.0f} px; --min-face-px {options.min_face_px:g})"
    if quality.confidence < options.min_confidence:
        return f"face uncertain (confidence {quality.confidence:.2f}; --min-confidence {options.min_confidence:g})"
    if quality.outside > options.max_outside:
        return f"face at the border ({quality.outside:.0%} of the crop outside; --max-outside {options.max_outside:g})"
    if quality.sharpness < options.min_sharpness:
        return f"blurred (sharpness {quality.sharpness:.1f}; --min-sharpness {options.min_sharpness:g})"
    return None
