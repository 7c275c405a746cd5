"""What of a portrait a film shows: the whole photograph, or the square around the face (not in the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from export3d.animation.drivers import DrivingFrame
from export3d.tracking import Crop
from export3d.tracking.head_fit import HeadPose

Framing = Literal["photo", "face"]

LARGER = 1.25
"""A photograph is larger than the crop from this ratio of areas on."""

TOLERATED = 0.02
"""A crop may reach beyond the photograph by this share of its side without being cut or warned of."""

WANDER, ZOOM = 0.12, 1.1
"""How far a head goes from where it sits on its shoulders, in scene units, and by what factor it grows or shrinks at most:
the shoulders of the photograph stay where they are."""


def is_larger(shape: tuple[int, ...], crop: Crop) -> bool:
    """Whether a photograph of shape (H, W, ..) shows more than the crop of the face."""
    return shape[0] * shape[1] >= LARGER * crop.side**2


def beyond(shape: tuple[int, ...], crop: Crop) -> float:
    """How far the square of a crop, set upright, reaches beyond a photograph of shape (H, W, ..), as a share of its side."""
    half = crop.side / 2.0
    far = max(
        half - crop.center_x, half - crop.center_y, crop.center_x + half - shape[1], crop.center_y + half - shape[0]
    )
    return max(far, 0.0) / crop.side


def inside(shape: tuple[int, ...], crop: Crop) -> Crop:
    """The largest upright square that lies in both a photograph of shape (H, W, ..) and a crop of it, near the crop's middle;
    the upright crop itself where it hardly reaches beyond."""
    upright = replace(crop, angle=0.0)
    if beyond(shape, crop) <= TOLERATED:
        return upright
    half = crop.side / 2.0
    at = np.array([crop.center_x, crop.center_y])
    low, high = np.maximum(at - half, 0.0), np.minimum(at + half, [shape[1], shape[0]])
    side = float((high - low).min())
    x, y = np.clip(at, low + side / 2.0, high - side / 2.0).tolist()
    return Crop(x, y, side)


def anchored(frames: Iterable[DrivingFrame], camera: np.ndarray) -> Iterator[DrivingFrame]:
    """Driving frames whose head begins where the portrait's is, by its own camera ``(25,)``, and never leaves its shoulders."""
    home, first = HeadPose.of_camera(camera).origin, None
    for frame in frames:
        pose = HeadPose.of_camera(frame.camera)
        if first is None and frame.found:
            first = pose.origin
        start = pose.origin if first is None else first
        away = pose.origin[:2] - start[:2]
        length = max(float(np.hypot(*away)), 1e-6)
        aside = home[:2] + away * (WANDER * np.tanh(length / WANDER) / length)
        depth = home[2] * float(np.clip(pose.origin[2] / max(start[2], 1e-6), 1.0 / ZOOM, ZOOM))
        yield replace(frame, camera=replace(pose, origin=np.append(aside, depth)).camera())
