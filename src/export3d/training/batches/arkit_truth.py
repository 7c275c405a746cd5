"""The 52 weights of ARKit (`FaceState.weights`) with both sides exchanged."""

from __future__ import annotations

import functools

import numpy as np

from export3d.face_state import ARKIT_NAMES


@functools.cache
def mirrored_arkit() -> np.ndarray:
    """``(52,)``: which weight each one becomes in a mirrored picture: left and right exchanged."""
    other = {"Left": "Right", "Right": "Left"}
    places = []
    for name in ARKIT_NAMES:
        side = next((s for s in other if name.endswith(s)), "")
        places.append(ARKIT_NAMES.index(name.removesuffix(side) + other.get(side, "")))
    return np.array(places)
