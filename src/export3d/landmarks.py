"""The 68 facial landmarks in Multi-PIE's order: which are which, what a mirrored face makes of them, and where lids stand."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Points = TypeVar("Points", np.ndarray, Tensor)

BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
RIGHT_EYE = slice(36, 42)
"""Of the person. A corner, two points of the upper lid, a corner, two of the lower."""
LEFT_EYE = slice(42, 48)
MOUTH = slice(48, 68)
MOUTH_CORNERS = [48, 54]
INNER_LIPS = slice(60, 68)
INNER_EDGES = ([60, 61, 62, 63, 64], [60, 67, 66, 65, 64])
"""Of the upper and of the lower lip, from corner to corner."""

BLINKS = {"eyeBlinkLeft": (LEFT_EYE, slice(22, 27)), "eyeBlinkRight": (RIGHT_EYE, slice(17, 22))}
"""Weight -> its eye and its brow."""


class EyeShape:
    """An eye in its own units: from its first corner s = 0 to its second s = 1, t upwards, both in widths of the eye.

    Attributes:
        width: from corner to corner, in units of the landmarks.
        up: ``(2,)`` one width upwards, in units of the landmarks.
    """

    def __init__(self, landmarks: np.ndarray) -> None:
        """From its landmarks ``(6, 2)``, x to the right and y down."""
        self._landmarks = landmarks
        axis = landmarks[3] - landmarks[0]
        self.width = float(np.linalg.norm(axis))
        self.up = np.array([axis[1], -axis[0]])
        self._frame = np.stack([axis, self.up]) / self.width**2

    def places(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and t of points ``(..., 2)``."""
        s, t = np.moveaxis((points - self._landmarks[0]) @ self._frame.T, -1, 0)
        return s, t

    def lids(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At each s how high the upper lid's rim stands, and how far the lower one lies below it: 0 beside the eye."""
        upper, lower = (self._arch(pair, s) for pair in ((1, 2), (5, 4)))
        return upper, np.where((s > 0.0) & (s < 1.0), np.maximum(upper - lower, 0.0), 0.0)

    def _arch(self, pair: tuple[int, int], s: np.ndarray) -> np.ndarray:
        """The height at `s` of the curve s (1 - s) (a + b s) through the corners and two landmarks."""
        at, height = self.places(self._landmarks[list(pair)])
        at = np.clip(at, 0.1, 0.9)
        a, b = np.linalg.lstsq(np.stack([np.ones(2), at], axis=1), height / (at * (1.0 - at)), rcond=None)[0]
        inside = np.clip(s, 0.0, 1.0)
        found: np.ndarray = inside * (1.0 - inside) * (a + b * inside)
        return found


def mirror_points(points: Points) -> Points:
    """``(..., 68, 2)`` points in [0, 1] of the left-right mirrored picture, left and right points exchanged."""
    flipped: Any = points[..., MIRRORED_LANDMARKS, :]
    flipped[..., 0] = 1.0 - flipped[..., 0]
    return flipped


def _mirror_order() -> np.ndarray:
    """For each of the 68 points, the index of its mirror image (Multi-PIE order)."""
    order = np.arange(68)
    groups = [
        list(range(17)),  # jaw
        list(range(17, 27)),  # brows
        list(range(31, 36)),  # under the nose
        list(range(48, 55)),  # upper outer lip
        [59, 58, 57, 56, 55],  # lower outer lip
        list(range(60, 65)),  # upper inner lip
        [67, 66, 65],  # lower inner lip
    ]
    for group in groups:
        order[group] = group[::-1]
    for left, right in ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)):  # eyes
        order[left], order[right] = right, left
    return order


MIRRORED_LANDMARKS = _mirror_order()
"""``(68,)`` index of each point's mirror image."""
