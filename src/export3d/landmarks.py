"""The 68 facial landmarks in Multi-PIE's order: which are which, and what a mirrored face makes of them."""

from __future__ import annotations

import numpy as np

BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
MOUTH = slice(48, 68)


def mirror_points(points: np.ndarray, mirrored: bool) -> np.ndarray:
    """Mirror ``(..., 68, 2)`` points in [0, 1]; the order of left and right points is swapped too."""
    if not mirrored:
        return points
    flipped = points[..., MIRRORED_LANDMARKS, :].copy()
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
