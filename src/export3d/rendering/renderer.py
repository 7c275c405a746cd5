"""Volume renderer (Sec. 3.3, Eqs. 9-10): coarse and importance samples along each ray, composited front to back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.checks import check_choice
from export3d.rendering.compositing import interval_weights, midpoints, sample_shares
from export3d.rendering.sampling import importance_depths, stratified_depths


@dataclass(frozen=True, kw_only=True)
class RendererConfig:
    """Sampling and marching; the defaults are EG3D's FFHQ values."""

    raw_size: int = 64
    """Rays along each side of the raw image (Sec. 3.3: H/4)."""
    num_coarse: int = 48
    """Stratified samples per ray."""
    num_fine: int = 48
    """Importance samples per ray."""
    near: float = 2.25
    """Ray start, scene units (with depth_range=around_origin: this far before the world origin)."""
    far: float = 3.3
    """Ray end, scene units (with depth_range=around_origin: this far behind the world origin)."""
    depth_range: str = "fixed"
    """`fixed` (EG3D) or `around_origin`: near and far are measured from the camera's distance to the origin."""
    composite_coarse: bool = True
    """True: coarse and fine samples are composited together (EG3D). False: only the fine ones; the coarse pass then
    needs no gradient."""
    importance_floor: float = 0.01
    """Added to the smoothed coarse weights before sampling (EG3D)."""
    density_shift: float = -1.0
    """sigma = gain * softplus(density + shift); EG3D: -1."""
    density_gain: float = 1.0
    """Scale of the activated density; 1 in EG3D. A larger gain makes surfaces solid sooner in short trainings."""

    def __post_init__(self) -> None:
        check_choice("renderer.depth_range", self.depth_range, ("fixed", "around_origin"))
        if self.num_coarse < 4 or self.num_fine < 2:
            raise ValueError(f"renderer: num_coarse >= 4 and num_fine >= 2; got {self.num_coarse}, {self.num_fine}")


class RadianceField(Protocol):
    """What the renderer asks of a scene: densities first, colours of the same points later."""

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points ``(B, P, 3)`` -> raw densities ``(B, P)`` and a state ``(B, P, K)`` for `colour`."""
        ...

    def colour(self, state: Tensor) -> Tensor:
        """State ``(B, P, K)`` -> colours ``(B, P, C)``."""
        ...


@dataclass(frozen=True)
class RayResult:
    """What the rays met.

    Attributes:
        features: ``(B, R, C)`` composited colours, premultiplied by the opacity.
        depth: ``(B, R)`` mean distance along the ray, scene units.
        opacity: ``(B, R)`` in [0, 1].
    """

    features: Tensor
    depth: Tensor
    opacity: Tensor


def render_rays(
    field: RadianceField,
    origins: Tensor,
    directions: Tensor,
    config: RendererConfig,
    jitter: torch.Generator | None = None,
) -> RayResult:
    """March rays through a field.

    Args:
        field: densities and colours of world points.
        origins, directions: ``(B, R, 3)``, directions of unit length.
        config: sampling.
        jitter: random depths for training; None is deterministic.
    """
    rays = origins.shape[1]
    near, far = depth_limits(origins, config)
    coarse = stratified_depths(near, far, rays, config.num_coarse, jitter)  # (B, R, N)
    if config.composite_coarse:
        density, state = _evaluate(field.density, origins, directions, coarse)
    else:
        with torch.no_grad():
            density, state = _evaluate(field.density, origins, directions, coarse)
    with torch.no_grad():
        weights = interval_weights(activate_density(midpoints(density), config), coarse.diff(dim=-1))
        fine = importance_depths(coarse, weights, config.num_fine, config.importance_floor, jitter)
    if not config.composite_coarse:
        fine = fine.sort(dim=-1).values
        density, state = _evaluate(field.density, origins, directions, fine)
        return _composite(field, fine, density, state, config)
    fine_density, fine_state = _evaluate(field.density, origins, directions, fine)
    return _composite(
        field,
        torch.cat([coarse, fine], dim=-1),
        torch.cat([density, fine_density], dim=-1),
        torch.cat([state.unflatten(1, (rays, -1)), fine_state.unflatten(1, (rays, -1))], dim=2).flatten(1, 2),
        config,
        is_sorted=False,
    )


def activate_density(density: Tensor, config: RendererConfig) -> Tensor:
    """Raw density -> sigma >= 0 in 1 / scene length (Eq. 8's density after soft-plus)."""
    return config.density_gain * F.softplus(density + config.density_shift)


def _composite(
    field: RadianceField,
    depths: Tensor,
    density: Tensor,
    state: Tensor,
    config: RendererConfig,
    *,
    is_sorted: bool = True,
) -> RayResult:
    """Sort scalars only, then spread the interval weights back over the samples (see `sample_shares`)."""
    batch, rays, samples = depths.shape
    order = None
    if not is_sorted:
        depths, order = depths.sort(dim=-1)
        density = density.gather(-1, order)
    sigma = activate_density(midpoints(density), config)
    weights = interval_weights(sigma, depths.diff(dim=-1))  # (B, R, S - 1)  Eq. 10
    shares = sample_shares(weights)  # (B, R, S)
    if order is not None:
        shares = torch.zeros_like(shares).scatter(-1, order, shares)
    colour = field.colour(state).reshape(batch, rays, samples, -1)
    features = (shares[..., None, :] @ colour)[..., 0, :]  # (B, R, C)  Eq. 9
    opacity = weights.sum(dim=-1)
    depth = (weights * midpoints(depths)).sum(dim=-1) / opacity.clamp_min(1e-6)
    depth = torch.minimum(torch.maximum(depth, depths[..., 0]), depths[..., -1])
    return RayResult(features, depth, opacity)


def _evaluate(
    density: Callable[[Tensor], tuple[Tensor, Tensor]], origins: Tensor, directions: Tensor, depths: Tensor
) -> tuple[Tensor, Tensor]:
    """Densities ``(B, R, S)`` and states ``(B, R * S, K)`` at the given depths."""
    points = origins[:, :, None] + depths[..., None] * directions[:, :, None]  # (B, R, S, 3)
    values, state = density(points.flatten(1, 2))
    return values.reshape(depths.shape), state


def depth_limits(origins: Tensor, config: RendererConfig) -> tuple[Tensor, Tensor]:
    """Start and end of the rays of each camera, ``(B,)`` scene units."""
    if config.depth_range == "fixed":
        near = origins.new_full((origins.shape[0],), config.near)
        return near, origins.new_full((origins.shape[0],), config.far)
    distance = origins[:, 0].norm(dim=-1)  # (B,)
    return distance - config.near, distance + config.far
