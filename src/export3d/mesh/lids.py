"""Blinks of a mesh, from the portrait's landmarks.

The model paints a shut eye: where a shut lid lies, its warp tells a tenth of the way that the lid came. So the upper lid is
drawn over the eye to the lower one, along the surface.
"""

from __future__ import annotations

import numpy as np

from export3d.landmarks import BLINKS, EyeShape
from export3d.mesh.surface import HeadMesh

_REACH = 0.6
"""How far above the lid's rim skin follows it, in widths of the eye; at least twice as far as the eye is open, or it folds."""

_LEFT_OPEN = 0.05
"""Of the eye's height, so that no triangle is without area."""


def blink_offsets(mesh: HeadMesh, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """How far each blink at weight 1 moves the vertices ``(V, 3)``, scene units: as far as the portrait's eye is open.

    Args:
        landmarks: ``(68, 2)`` in [0, 1] of the portrait's crop.
    """
    return {name: _shut(mesh, EyeShape(landmarks[eye].astype(np.float64))) for name, (eye, _) in BLINKS.items()}


def _shut(mesh: HeadMesh, eye: EyeShape) -> np.ndarray:
    """One eye's displacements."""
    from scipy.interpolate import LinearNDInterpolator

    s, t = eye.places(mesh.uv)
    rim, opening = eye.lids(s)
    above = (t - rim) / max(_REACH, 2.0 * opening.max())
    share = np.where(above > 0.0, 1.0 - above, 1.0 + (t - rim) / np.maximum(opening, 1e-9)).clip(0.0, 1.0)
    fall = (1.0 - _LEFT_OPEN) * opening * share
    offsets = np.zeros_like(mesh.vertices)
    near = mesh.seen & (np.abs(s - 0.5) < 1.0) & (np.abs(t) < 1.5)
    moving = near & (fall > 0.0)
    if moving.any():
        surface = LinearNDInterpolator(mesh.uv[near], mesh.vertices[near])
        target = mesh.uv[moving] - fall[moving, None] * eye.up
        offsets[moving] = np.nan_to_num(surface(target) - mesh.vertices[moving])
    return offsets
