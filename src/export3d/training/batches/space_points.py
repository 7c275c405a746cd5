"""Points of free and of solid space along the rays of a frame, from its exact depth (synthetic clips, not the paper).

A rendered depth teaches the density only near the surface that the volume has now, where the importance samples lie. These
points say directly what is air and what is head, wherever the surface should be.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.rendering.rays import rays_through

SOLID_DEPTH = 0.02
"""How far behind the surface the head counts as solid, scene units (0.9 cm; ears and strands are not much thicker)."""

_CLEARANCE = 0.004  # scene units in front of the surface that are neither: a pixel sees more than one depth
_NEAR_SURFACE = 0.06  # scene units in front of the surface from which the near points of air come
_REACH = 0.42  # scene units around the head's origin that hold all of it
_SHARES = (
    0.45,
    0.3,
    0.15,
)  # of the points: solid, air near the surface, air anywhere before it; the rest: air beside the head


def space_points(
    depth: np.ndarray, mask: np.ndarray, camera: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points and say whether each lies in the head.

    Args:
        depth: ``(H, W)`` float32, distance along the ray in scene units, 0 where there is no head.
        mask: ``(H, W)`` uint8 alpha; only pixels that are surely head or surely not are read.
        camera: ``(25,)`` of the frame.
        count: number of points.

    Returns:
        points ``(count, 3)`` float32 world positions, solid ``(count,)`` float32, 1 in the head and 0 in the air.
    """
    head = np.flatnonzero((depth > 0) & (mask > 250))
    beside = np.flatnonzero((depth == 0) & (mask < 5))
    if head.size == 0:
        return np.zeros((count, 3), np.float32), np.full(count, np.nan, np.float32)
    counts = [int(share * count) for share in _SHARES]
    if beside.size == 0:
        counts[2] = count - counts[0] - counts[1]
    kinds = np.repeat(np.arange(4), [*counts, count - sum(counts)])
    pixels = np.where(kinds == 3, _draw(beside if beside.size else head, count, rng), _draw(head, count, rng))
    origin, directions = _rays(camera, depth.shape, pixels)
    surface = depth.reshape(-1)[pixels]
    nearest = float(np.linalg.norm(origin)) - _REACH
    share = rng.random(count)
    along = np.select(
        [kinds == 0, kinds == 1, kinds == 2],
        [
            surface + SOLID_DEPTH * share,
            surface - _CLEARANCE - _NEAR_SURFACE * share**2,
            nearest + (surface - _CLEARANCE - nearest) * share,
        ],
        nearest + 2.0 * _REACH * share,
    )
    points = origin + along[:, None] * directions
    return points.astype(np.float32), (kinds == 0).astype(np.float32)


def occupancy_loss(sigma: Tensor, solid: Tensor, thickness: float = 0.02) -> Tensor:
    """Mean cross-entropy between the opacity of a slab of that thickness and what the space holds.

    The opacity is 1 - exp(-sigma * thickness) (Eq. 10's alpha). Points whose `solid` is NaN count nothing.

    Args:
        sigma: ``(B, P)`` density >= 0, 1 / scene unit.
        solid: ``(B, P)`` 1 in the head, 0 in the air.
        thickness: scene units.
    """
    known = ~solid.isnan()
    absorbed = sigma * thickness
    filled = -torch.log(-torch.expm1(-absorbed.clamp(min=1e-5)))
    loss = torch.where(solid == 1.0, filled, absorbed)
    return torch.where(known, loss, torch.zeros_like(loss)).sum() / known.sum().clamp(min=1)


def _draw(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return values[rng.integers(0, len(values), count)]


def _rays(camera: np.ndarray, shape: tuple[int, ...], pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origin ``(3,)`` and unit directions ``(N, 3)`` through the centres of pixels given by their flat index."""
    row, column = (torch.from_numpy(index).float() for index in np.divmod(pixels, shape[1]))
    seen = Camera.from_vector(torch.tensor(np.asarray(camera, np.float32))[None])
    origins, directions = rays_through(seen, ((column + 0.5) / shape[1])[None], ((row + 0.5) / shape[0])[None])
    return origins[0, 0].numpy(), directions[0].numpy()
