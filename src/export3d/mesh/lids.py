"""Blinks of a mesh, from the portrait's landmarks.

The model paints a shut eye: where a shut lid lies, its warp tells a tenth of the way that the lid came. So the upper lid is
drawn over the eye to the lower one, along the surface.
"""

from __future__ import annotations

import numpy as np

from export3d.mesh.surface import HeadMesh

EYES = {"eyeBlinkRight": range(36, 42), "eyeBlinkLeft": range(42, 48)}
"""Shape -> its eye among the 68 landmarks: a corner, two points of the upper lid, a corner, two of the lower."""

_REACH = 0.6
"""How far above the lid's rim skin follows it, in widths of the eye; at least twice as far as the eye is open, or it folds."""

_LEFT_OPEN = 0.05
"""Of the eye's height, so that no triangle is without area."""


def blink_offsets(mesh: HeadMesh, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """How far each blink at weight 1 moves the vertices ``(V, 3)``, scene units: as far as the portrait's eye is open.

    Args:
        landmarks: ``(68, 2)`` in [0, 1] of the portrait's crop.
    """
    return {name: _shut(mesh, landmarks[list(points)].astype(np.float64)) for name, points in EYES.items()}


def _shut(mesh: HeadMesh, eye: np.ndarray) -> np.ndarray:
    """One eye's displacements; `eye` is ``(6, 2)``."""
    from scipy.interpolate import LinearNDInterpolator

    # Widths of the eye: s from corner to corner, t upwards.
    axis = eye[3] - eye[0]
    width = np.linalg.norm(axis)
    frame = np.stack([axis, [axis[1], -axis[0]]]) / width**2
    s, t = frame @ (mesh.uv - eye[0]).T
    upper, lower = (_arch(frame @ (eye[list(pair)] - eye[0]).T) for pair in ((1, 2), (4, 5)))
    bow = np.clip(s, 0.0, 1.0) * (1.0 - np.clip(s, 0.0, 1.0))
    rim, opening = upper * bow, max(upper - lower, 0.0) * bow
    above = (t - rim) / max(_REACH, 2.0 * opening.max())
    share = np.where(above > 0.0, 1.0 - above, 1.0 + (t - rim) / np.maximum(opening, 1e-9)).clip(0.0, 1.0)
    fall = (1.0 - _LEFT_OPEN) * opening * share
    offsets = np.zeros_like(mesh.vertices)
    near = mesh.seen & (np.abs(s - 0.5) < 1.0) & (np.abs(t) < 1.5)
    moving = near & (fall > 0.0)
    if moving.any():
        surface = LinearNDInterpolator(mesh.uv[near], mesh.vertices[near])
        target = mesh.uv[moving] - fall[moving, None] * frame[1] * width**2
        offsets[moving] = np.nan_to_num(surface(target) - mesh.vertices[moving])
    return offsets


def _arch(points: np.ndarray) -> float:
    """The height k of the parabola k s (1 - s) through the corners and about through points ``(2, n)``."""
    s, t = points
    return float((t / np.clip(s * (1.0 - s), 0.1, None)).mean())
