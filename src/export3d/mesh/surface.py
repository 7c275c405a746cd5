"""The surface of a portrait's head: marching cubes through the density of its radiance field (Eq. 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.errors import MissingExtraError, UsageError
from export3d.portrait import PortraitModel
from export3d.portrait.state import DrivenPlanes, PortraitCode
from export3d.rendering.renderer import activate_density

LEVEL = 120.0
"""Density of the surface, per scene unit. Of 30, 70, 120 and 170 it lies nearest to rendered heads (benchmarks/mesh.py)."""

_CHUNK = 65_536

_CLEAR, _SOLID = 20.0, 500.0
"""No surface runs where all densities are under the first, or all over the second."""

_RAYS, _BEHIND, _INNER = 128, 0.02, 0.8
"""Rays along each side by which the portrait's camera looks; how far (1 cm) the surface may lie behind the depth that they
meet; how opaque the rays around, and how surely the person's the pixels around must be."""


@dataclass(frozen=True, kw_only=True)
class HeadMesh:
    """A closed surface in the head's frame: x right, y up, z to the front, scene units (1 = 47 cm).

    Attributes:
        vertices: ``(V, 3)`` float32.
        triangles: ``(F, 3)`` int32, counter-clockwise from outside.
        colours: ``(V, 3)`` in [0, 1] sRGB, the model's own.
        places: ``(V, 3)`` where each vertex lies in the portrait's pose.
        uv: ``(V, 2)`` its position in the portrait's crop, [0, 1], from the top left corner.
        seen: ``(V,)`` whether the photograph shows it there.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    places: np.ndarray
    uv: np.ndarray
    seen: np.ndarray


@torch.inference_mode()
def head_mesh(
    model: PortraitModel,
    code: PortraitCode,
    *,
    resolution: int = 160,
    level: float = LEVEL,
    tick: Callable[[], None] | None = None,
) -> HeadMesh:
    """The surface of a portrait in its own expression.

    Args:
        code: of one portrait.
        resolution: points of the grid along each side of the model's box.
        level: density of the surface, per scene unit.
        tick: called after each part of the work; what it raises ends the work.

    Raises:
        MissingExtraError: scikit-image is not installed.
        UsageError: No surface of that density.
    """
    try:
        from skimage.measure import marching_cubes
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'A mesh needs scikit-image, which is not installed. Run: pip install "export3d[mesh]"'
        ) from error
    driven = model.drive(code, code.state)
    half, sigma = model.config.triplane.box_side / 2.0, _density(model, driven, resolution, tick or (lambda: None))
    if sigma.max() <= level:
        raise UsageError(f"the portrait has no surface of density {level:g}; its densest point has {sigma.max():g}.")
    # In logarithms the steep rise is nearly linear between two points; nothing lies beyond the box, so all is closed.
    values = np.pad(np.log(sigma + 1e-6), 1, constant_values=np.log(1e-6))
    vertices, triangles, _, _ = marching_cubes(values, np.log(level), gradient_direction="ascent")
    vertices, triangles = _largest(vertices, triangles)
    vertices = ((vertices - 1.0) * (2.0 * half / (resolution - 1)) - half).astype(np.float32)
    return _looked_up(model, driven, vertices, triangles)


def _density(model: PortraitModel, driven: DrivenPlanes, resolution: int, tick: Callable[[], None]) -> np.ndarray:
    """Density on a grid ``(n, n, n)``; exact near every surface, elsewhere that of every fourth point."""
    side, field = model.config.triplane.box_side, model.field(driven)

    def at(points: Tensor) -> Tensor:
        raw = []
        for some in points.split(_CHUNK):
            raw.append(field.density(some[None])[0][0].float())
            tick()
        return activate_density(torch.cat(raw), model.config.renderer)

    def grid(size: int) -> Tensor:
        axis = torch.linspace(-side / 2.0, side / 2.0, size, device=driven.planes.device)
        return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)

    coarse = at(grid(resolution // 4).reshape(-1, 3)).reshape(1, 1, *(resolution // 4,) * 3)
    # Where densities around hardly differ in kind, no surface runs through.
    mixed = F.max_pool3d(coarse, 3, 1, 1) > _CLEAR
    mixed &= -F.max_pool3d(-coarse, 3, 1, 1) < _SOLID
    wide = (resolution,) * 3
    chosen = F.interpolate(mixed.float(), wide)[0, 0] > 0.0
    sigma = F.interpolate(coarse, wide, mode="trilinear", align_corners=True)[0, 0]
    sigma[chosen] = at(grid(resolution)[chosen])
    return sigma.cpu().numpy()


def warp(model: PortraitModel, driven: DrivenPlanes, points: Tensor) -> Tensor:
    """Where points ``(P, 3)`` of a driven head lie in the portrait."""
    return torch.cat([model.guide(driven, some[None])[0][0] for some in points.split(_CHUNK)])


def _looked_up(model: PortraitModel, driven: DrivenPlanes, vertices: np.ndarray, triangles: np.ndarray) -> HeadMesh:
    """The mesh with its colours and its places in the photograph."""
    points, field = torch.from_numpy(vertices).to(driven.planes.device), model.field(driven)
    colours = [field.colour(field.density(some[None])[1])[0, :, :3] for some in points.split(_CHUNK)]
    uv, seen = _seen_at(model, driven, points)
    return HeadMesh(
        vertices=vertices,
        triangles=triangles,
        colours=torch.cat(colours).float().clamp(0.0, 1.0).cpu().numpy(),
        places=warp(model, driven, points).float().cpu().numpy(),
        uv=uv.float().cpu().numpy(),
        seen=seen.cpu().numpy(),
    )


def _seen_at(model: PortraitModel, driven: DrivenPlanes, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where the portrait's camera sees points ``(P, 3)``: ``(P, 2)`` in [0, 1], and whether nothing of the head is before
    them, nor the edge of the head near them, ``(P,)``."""
    camera, rays = driven.code.camera, model.render(driven, driven.code.camera, raw_size=_RAYS)
    uv = camera.project(points[None])[0]
    distance = (points - camera.cam_to_world[0, :3, 3]).norm(dim=1)
    whole = torch.minimum(rays.opacity, F.interpolate(driven.code.maps.picture[:, 3:], size=rays.opacity.shape[-2:]))
    inner = -F.max_pool2d(-whole, 3, 1, 1)
    depth, opacity = (
        F.grid_sample(x, 2.0 * uv[:, None] - 1.0, align_corners=False)[0, 0, 0] for x in (rays.depth, inner)
    )
    return uv[0], (distance < depth + _BEHIND) & (opacity > _INNER)


def _largest(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected piece with the most triangles: without hollows inside and crumbs beside."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(2 * len(triangles)), (triangles[:, [0, 1]].ravel(), triangles[:, [1, 2]].ravel()))
    _, piece = connected_components(coo_matrix(edges, shape=(len(vertices),) * 2), directed=False)
    chosen = np.bincount(piece[triangles[:, 0]]).argmax()
    kept = piece == chosen
    renumbered = np.cumsum(kept) - 1
    return vertices[kept], renumbered[triangles[kept[triangles[:, 0]]]].astype(np.int32)
