"""The true expression of mirrored faces, which clips do not store (no paper section)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from export3d.face_state import mirrored_name
from export3d.heads.shape.parametric import EXPRESSION_NAMES

MOST_FRAMES = 2000
"""More frames change nothing: the map is exact."""

_TOLERANCE = 1e-3
"""Of an expression weight, 0 to 1."""

_SWAPPED = [EXPRESSION_NAMES.index(mirrored_name(name)) for name in EXPRESSION_NAMES]


def mirrored_truth_map(clips: Iterable[dict[str, np.ndarray]]) -> np.ndarray | None:
    """``(54, 64)``: 53 expression weights and a one times it is the true beta of the mirrored face.

    The extractor's true beta is an affine function of the weights, so frames that know both give it back; for the mirrored
    face the weights of left and right are swapped.

    Args:
        clips: their arrays; read until there are :data:`MOST_FRAMES` frames.

    Returns:
        None if the frames move too little to tell, or do not know both.
    """
    weights, truth = [], []
    for arrays in clips:
        if not {"weights", "true_beta"} <= arrays.keys():
            return None
        weights.append(arrays["weights"].astype(np.float64))
        truth.append(arrays["true_beta"].astype(np.float64))
        if sum(map(len, weights)) >= MOST_FRAMES:
            break
    if not weights:
        return None
    rows = np.concatenate(weights)
    swapped = _with_one(rows[:, _SWAPPED])
    rows = _with_one(rows)
    # Some weights never move and some only together (the eyes), so the rows do not span everything; the mirrored ones must
    # lie in what they span.
    inverse = np.linalg.pinv(rows, rcond=1e-6)
    if np.abs(swapped - swapped @ inverse @ rows).max() > _TOLERANCE:
        return None
    found = inverse @ np.concatenate(truth)
    return np.concatenate([found[:-1][_SWAPPED], found[-1:]])


def mirrored_truth(weights: np.ndarray, truth_map: np.ndarray) -> np.ndarray:
    """Weights ``(T, 53)`` of the face as it is -> true beta ``(T, 64)`` float32 of its mirror image."""
    return (_with_one(weights.astype(np.float64)) @ truth_map).astype(np.float32)


def _with_one(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([weights, np.ones((len(weights), 1))], axis=1)
