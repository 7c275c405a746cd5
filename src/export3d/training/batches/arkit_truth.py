"""The synthetic heads' 53 weights as the 52 of ARKit (`FaceState.weights`), and both sides exchanged."""

from __future__ import annotations

import functools

import numpy as np

from export3d.face_state import ARKIT_NAMES
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.portrait.shapes import arkit_column


def arkit_weights(weights: np.ndarray) -> np.ndarray:
    """``(T, 53)`` weights of the heads -> ``(T, 52)`` of ARKit; both sides of a weight that ARKit has once are averaged,
    what the heads do not have (the tongue) is NaN."""
    sums, counts = np.zeros((len(weights), len(ARKIT_NAMES))), np.zeros(len(ARKIT_NAMES))
    for index, name in enumerate(EXPRESSION_NAMES):
        sums[:, arkit_column(name)] += weights[:, index]
        counts[arkit_column(name)] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


@functools.cache
def mirrored_arkit() -> np.ndarray:
    """``(52,)``: which weight each one becomes in a mirrored picture: left and right exchanged."""
    other = {"Left": "Right", "Right": "Left"}
    places = []
    for name in ARKIT_NAMES:
        side = next((s for s in other if name.endswith(s)), "")
        places.append(ARKIT_NAMES.index(name.removesuffix(side) + other.get(side, "")))
    return np.array(places)
