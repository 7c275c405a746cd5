"""How high each brow stands above its eye, as weights of its rise and fall (no paper section).

The face tracker's scores of brows are steps rather than measures, and beta reads noise on real faces; heights follow a brow.
"""

from __future__ import annotations

import numpy as np

from export3d.face_state import ARKIT_NAMES

EYES_AND_BROWS = {"Right": ((33, 133), (70, 63, 105, 66, 107)), "Left": ((263, 362), (300, 293, 334, 296, 336))}
"""Side of the person -> points of the mesh: the eye's outer and inner corner, the upper edge of the brow."""
_EYES, _BROWS = map(np.array, zip(*EYES_AND_BROWS.values(), strict=True))

LEVEL = 1.0
"""Height of a brow at rest in widths of its eye, about; people differ, so changes count."""

RISE, FALL = 0.1, 0.045
"""Widths of an eye by which a weight of 1 raises (`browInnerUp`, `browOuterUp`) or lowers (`browDown`) a photograph's brows."""

BROW_WEIGHTS = ("browInnerUp", *(f"{name}{side}" for name in ("browOuterUp", "browDown") for side in EYES_AND_BROWS))

COLUMNS = [ARKIT_NAMES.index(name) for name in BROW_WEIGHTS]


def brow_heights(turned: np.ndarray) -> np.ndarray:
    """``(2,)`` of right and left in widths of the eye, of a mesh ``(478, 3)`` that faces the front (`facing_front`)."""
    corners, brows = turned[_EYES, :2], turned[_BROWS, 1]
    width = np.hypot(*(corners[:, 1] - corners[:, 0]).T)
    return (corners[:, :, 1].mean(axis=1) - brows.mean(axis=1)) / np.maximum(width, 1e-6)


def brow_weights(turned: np.ndarray) -> np.ndarray:
    """`BROW_WEIGHTS` ``(5,)`` of such a mesh: about 0 at rest, negative where the brow moves the other way."""
    right, left = brow_heights(turned) - LEVEL
    return np.array([(right + left) / 2.0 / RISE, right / RISE, left / RISE, -right / FALL, -left / FALL])
