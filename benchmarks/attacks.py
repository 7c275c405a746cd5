"""What may happen to a marked video on its way: the attacks of benchmarks/watermark.py."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

Frames = list[np.ndarray]


def resized(frames: Frames, width: int, height: int) -> Frames:
    return [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC)) for f in frames]


def half_and_back(frames: Frames) -> Frames:
    height, width = frames[0].shape[:2]
    return resized(resized(frames, width // 2, height // 2), width, height)


def cropped(frames: Frames) -> Frames:
    """A twentieth is cut from each side; what is left is made as large as before."""
    height, width = frames[0].shape[:2]
    y, x = round(height / 20), round(width / 20)
    return resized([f[y : height - y, x : width - x] for f in frames], width, height)


def lit(share: float) -> Callable[[Frames], Frames]:
    """Brightness and contrast changed by a share."""

    def change(frames: Frames) -> Frames:
        return [np.clip((f - 128.0) * (1 + share) + 128.0 * (1 + share), 0, 255).astype(np.uint8) for f in frames]

    return change


def jpeg(frames: Frames) -> Frames:
    out = []
    for frame in frames:
        content = io.BytesIO()
        Image.fromarray(frame).save(content, "JPEG", quality=75)
        out.append(np.asarray(Image.open(content).convert("RGB")))
    return out


def halved(frames: Frames) -> Frames:
    return resized(frames, frames[0].shape[1] // 2, frames[0].shape[0] // 2)


def same(frames: Frames) -> Frames:
    return frames


ATTACKS: dict[str, tuple[Callable[[Frames], Frames], int | None]] = {
    "as written (CRF 18)": (same, None),
    "CRF 23": (same, 23),
    "CRF 28": (same, 28),
    "half size and back": (half_and_back, 18),
    "10 % crop": (cropped, 18),
    "brightness, contrast +15 %": (lit(0.15), 18),
    "brightness, contrast -15 %": (lit(-0.15), 18),
    "JPEG 75, each frame": (jpeg, None),
    "cut to 3 s": (lambda frames: frames[-75:], 18),
    "10 % crop, half size and back, CRF 28": (lambda frames: half_and_back(cropped(frames)), 28),
    "kept at half size, CRF 23": (halved, 23),
    "10 % crop, kept at half size, CRF 28": (lambda frames: halved(cropped(frames)), 28),
    "mirrored, CRF 23": (lambda frames: [f[:, ::-1] for f in frames], 23),
}
"""Name -> what is done to the frames, and the quality they are written with again (None: not written again)."""

BEYOND = ("kept at half size, CRF 23", "10 % crop, kept at half size, CRF 28", "mirrored, CRF 23")
"""Attacks that the own mark alone is tried with."""
