"""What tracking tells of faces at one moment, all but the camera: the one type that travels from the tracker to the model.

A new driving signal is a field here (docs/extending.md); who only passes states on (films, batches, scores) need not know it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from export3d.checks import check_shape

# fmt: off
ARKIT_NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft",
    "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)
"""Apple's 52 blendshape locations in alphabetical order; left and right are the person's own."""
# fmt: on


@dataclass(frozen=True, kw_only=True)
class FaceState:
    """B faces, float32.

    Attributes:
        beta: ``(B, 64)`` expression coefficients, in the expression space of whoever measured them.
        weights: ``(B, 52)`` single expression weights in about [0, 1], order of :data:`ARKIT_NAMES`; NaN where unknown.
            None: unknown for all.
        gaze: ``(B, 2)`` radians in the head's frame, sideways (+ to the image right) and up; NaN where unknown. None:
            unknown for all.
        turn: ``(B, 3)`` rotation vector of the head against torso and room, radians (`Camera.head_turn`, where the torso
            faces the camera). None: a portrait's torso is as rigid as its head; a driver's turn is the portrait's.
    """

    beta: Tensor
    weights: Tensor | None = None
    gaze: Tensor | None = None
    turn: Tensor | None = None

    def __post_init__(self) -> None:
        check_shape("beta", self.beta, None, None)
        batch = self.beta.shape[0]
        for name, width in (("weights", len(ARKIT_NAMES)), ("gaze", 2), ("turn", 3)):
            value = getattr(self, name)
            if value is not None:
                check_shape(name, value, batch, width)

    @staticmethod
    def of(**values: np.ndarray | None) -> FaceState:
        """One face from arrays without the batch axis, e.g. ``of(beta=(64,), gaze=(2,))``."""
        rows = {
            k: None if v is None else torch.tensor(np.asarray(v, dtype=np.float32))[None] for k, v in values.items()
        }
        return FaceState(**rows)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.beta.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> FaceState:
        """The same with every field that is known changed in one way."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in known.items() if value is not None})

    def to(self, device: torch.device | str) -> FaceState:
        """The same on a device."""
        return self.map(lambda value: value.to(device))

    def __getitem__(self, rows: slice) -> FaceState:
        return self.map(lambda value: value[rows])

    def same_as(self, other: FaceState) -> bool:
        """Whether all fields are equal; two unknown numbers are."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(a is b or (a is not None and b is not None and _equal(a, b)) for a, b in pairs)

    @staticmethod
    def cat(states: Sequence[FaceState]) -> FaceState:
        """Several after one another; a field that one of them lacks is unknown for all."""
        return FaceState.combine(lambda *values: torch.cat(values), *states)

    @staticmethod
    def combine(change: Callable[..., Tensor], *states: FaceState) -> FaceState:
        """One state from several, field by field; a field that one of them lacks is unknown (beta never is)."""
        columns = {f.name: [getattr(s, f.name) for s in states] for f in fields(FaceState)}
        known = {name: values for name, values in columns.items() if all(v is not None for v in values)}
        return FaceState(**{name: change(*values) for name, values in known.items()})


def mirrored_name(name: str) -> str:
    """The weight that a mirrored face has instead: left for right, of ARKit's names or those of the synthetic heads."""
    for left, right in (("_L", "_R"), ("Left", "Right")):
        if name.endswith(left):
            return name.removesuffix(left) + right
        if name.endswith(right):
            return name.removesuffix(right) + left
    return name


MIRRORED_ARKIT = np.array([ARKIT_NAMES.index(mirrored_name(name)) for name in ARKIT_NAMES])
"""``(52,)``: which weight each one becomes in a mirrored picture."""


def arkit_column(name: str) -> int:
    """Place of a mode of the synthetic heads (``mouthSmile_L``) in :data:`ARKIT_NAMES`; both sides of a name that has none
    there share it."""
    base, _, side = name.partition("_")
    sided = base + {"L": "Left", "R": "Right"}.get(side, "")
    return ARKIT_NAMES.index(sided if sided in ARKIT_NAMES else base)


def unknown_weights() -> np.ndarray:
    """``(52,)`` float32, all unknown."""
    return np.full(len(ARKIT_NAMES), np.nan, dtype=np.float32)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
