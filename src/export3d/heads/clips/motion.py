"""Motion of a synthetic head: expression weights, gaze, head pose and camera shift (data for Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch

from export3d.camera import Camera
from export3d.face_state import ARKIT_NAMES, arkit_column
from export3d.heads.shape.parametric import EXPRESSION_NAMES

MAX_GAZE_RAD = 0.45
"""The eyes turn no further than this, sideways or up and down."""

GAZE_PER_WEIGHT_RAD = 0.5
"""A weight of 1 of an eyeLook shape (which moves the lids only) goes with this turn of the eyeball."""

INDEX = {name: index for index, name in enumerate(EXPRESSION_NAMES)}
"""Name of an expression mode -> its place in the weights."""

# Which way each eyeLook shape goes: (axis, sign). Axis 0 is sideways, + to the image right; 1 is up.
_LOOK_AXES = {
    "eyeLookOut_L": (0, 1.0),
    "eyeLookIn_R": (0, 1.0),
    "eyeLookIn_L": (0, -1.0),
    "eyeLookOut_R": (0, -1.0),
    "eyeLookUp_L": (1, 1.0),
    "eyeLookUp_R": (1, 1.0),
    "eyeLookDown_L": (1, -1.0),
    "eyeLookDown_R": (1, -1.0),
}


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What moves, frame by frame.

    Attributes:
        weights: ``(T, 53)`` float32 in [0, 1], the order of :data:`EXPRESSION_NAMES`.
        gaze: ``(T, 2)`` float32 radians in the head's frame: sideways (+ to the image right), up.
        yaw, pitch, roll: ``(T,)`` float32 radians of the head, as in :meth:`Camera.look_at_head`.
        shift: ``(T, 3)`` float32 scene units, displacement of the camera (x, y, distance).
    """

    weights: np.ndarray
    gaze: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift: np.ndarray

    def __post_init__(self) -> None:
        frames = len(self.weights)
        expected = {
            "weights": (frames, len(EXPRESSION_NAMES)),
            "gaze": (frames, 2),
            "yaw": (frames,),
            "pitch": (frames,),
            "roll": (frames,),
            "shift": (frames, 3),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"Motion.{name} must be float32 {shape}; got {array.dtype} {array.shape}")

    def __len__(self) -> int:
        return len(self.weights)

    def first(self, num_frames: int, *, resting: np.ndarray | None = None) -> Motion:
        """The first frames, with a person's resting face ``(53,)`` added to the weights."""
        cut = {f.name: getattr(self, f.name)[:num_frames] for f in fields(self)}
        weights = np.clip(cut["weights"] + (0.0 if resting is None else resting), 0.0, 1.0)
        return Motion(**{**cut, "weights": weights.astype(np.float32)})

    def with_views(self, frame: int, yaws: np.ndarray) -> Motion:
        """The same, followed by the expression of one frame seen level from each of the yaws ``(K,)`` in radians."""
        zero = np.zeros(1)
        added = {"weights": self.weights[frame], "gaze": self.gaze[frame], "yaw": yaws, "pitch": zero, "roll": zero}
        whole = {}
        for name, more in {**added, "shift": np.zeros((1, 3))}.items():
            values = getattr(self, name)
            rows = np.broadcast_to(more, (len(yaws), *values.shape[1:]))
            whole[name] = np.concatenate([values, rows]).astype(np.float32)
        return Motion(**whole)

    def camera(self) -> Camera:
        """The camera of each frame: head pose and camera shift in one matrix, ``(T, ...)``."""
        angles = (torch.from_numpy(a) for a in (self.yaw, self.pitch, self.roll))
        return Camera.look_at_head(*angles, shift=torch.from_numpy(self.shift))


def expression_weights(values: Mapping[str, float]) -> np.ndarray:
    """``(53,)`` float64 weights from names; a name without _L or _R sets both sides."""
    weights = np.zeros(len(EXPRESSION_NAMES))
    for name, value in values.items():
        for side in (name,) if name in INDEX else (f"{name}_L", f"{name}_R"):
            weights[INDEX[side]] += value
    return weights


def arkit_weights(weights: np.ndarray) -> np.ndarray:
    """``(T, 53)`` weights of the heads -> ``(T, 52)`` of ARKit; both sides of a weight that ARKit has once are averaged,
    what the heads do not have (the tongue) is NaN."""
    sums, counts = np.zeros((len(weights), len(ARKIT_NAMES))), np.zeros(len(ARKIT_NAMES))
    for index, name in enumerate(EXPRESSION_NAMES):
        sums[:, arkit_column(name)] += weights[:, index]
        counts[arkit_column(name)] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def gaze_to_weights(gaze: np.ndarray) -> dict[str, np.ndarray]:
    """Gaze ``(T, 2)`` radians -> weights ``(T,)`` in [0, 1] of the eyeLook shapes, which move the lids."""
    return {
        name: np.clip(sign * gaze[:, axis] / GAZE_PER_WEIGHT_RAD, 0.0, 1.0) for name, (axis, sign) in _LOOK_AXES.items()
    }


def weights_to_gaze(weights: np.ndarray) -> np.ndarray:
    """eyeLook weights in ``(T, 53)`` -> gaze ``(T, 2)`` radians, the mean of both eyes (the inverse)."""
    gaze = np.zeros((len(weights), 2))
    for name, (axis, sign) in _LOOK_AXES.items():
        gaze[:, axis] += sign * weights[:, INDEX[name]] * GAZE_PER_WEIGHT_RAD / 2.0
    return np.clip(gaze, -MAX_GAZE_RAD, MAX_GAZE_RAD)
