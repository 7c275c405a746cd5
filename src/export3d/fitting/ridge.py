"""Ridge regression, as the maps of gaze and of the upper face are fitted (no paper section)."""

from __future__ import annotations

import numpy as np


def ridge_map(rows: np.ndarray, wanted: np.ndarray, strength: float) -> np.ndarray:
    """Rows ``(N, P)`` -> wanted ``(N,)`` or ``(N, Q)``, without intercept: ``(P,)`` or ``(P, Q)``.

    Args:
        strength: penalty on the squared weights, as a share of the number of rows.
    """
    return np.linalg.solve(rows.T @ rows + strength * len(rows) * np.eye(rows.shape[1]), rows.T @ wanted)


def ridge_map_with_bias(rows: np.ndarray, wanted: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The same with an intercept that is not penalised: weight ``(P, Q)`` and bias ``(Q,)``."""
    mean, mean_wanted = rows.mean(axis=0), wanted.mean(axis=0)
    weight = ridge_map(rows - mean, wanted - mean_wanted, strength)
    return weight, mean_wanted - mean @ weight
