"""A faster way to the same picture, for use and not for training (not in the paper): work only where something is met.

The coarse pass of Sec. 3.3 only says where the fine samples belong, so a lattice of the rays is enough for it. Rays that
can meet nothing are left out, and colours are asked for only where a sample has a share in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.rendering.compositing import interval_weights, midpoints, sample_shares
from export3d.rendering.renderer import RayResult, RendererConfig, activate_density, depth_limits
from export3d.rendering.sampling import importance_depths, stratified_depths

_REACH = {1: 0, 5: 2}
"""Rays per coarse ray -> how many rays to each side a ray looks for coarse ones."""


@dataclass(frozen=True, kw_only=True)
class FastConfig:
    """What the fast renderer may leave out. Nothing with rays_per_coarse=1, fine_share=1 and 0 for the others."""

    rays_per_coarse: int = 5
    """1: every ray has a coarse pass. 5: one of five has, on a lattice that no row, column or diagonal of rays slips
    through, and the rays at the edge have. Renderers that composite the coarse samples too always take 1."""
    empty_opacity: float = 1e-3
    """A ray is left out if its opacity stays below this, even with the densest coarse samples of its neighbourhood. Not
    higher: the source lookup and the super-resolution read where a ray went also where it met very little."""
    faint_opacity: float = 0.1
    """A ray whose opacity stays below this, judged in the same way, has fewer fine samples."""
    faint_samples: int = 8
    """Fine samples of a faint ray, at most."""
    fine_share: float = 0.7
    """Part of the renderer's fine samples that the other rays have."""
    least_share: float = 1e-3
    """Samples with a smaller share than this in their ray get no colour of their own; the others stand for them."""

    def __post_init__(self) -> None:
        if self.rays_per_coarse not in _REACH:
            raise ValueError(f"fast.rays_per_coarse must be 1 or 5; got {self.rays_per_coarse}")
        if not 0.0 < self.fine_share <= 1.0:
            raise ValueError(f"fast.fine_share must be above 0 and at most 1; got {self.fine_share}")
        if self.faint_samples < 2:
            raise ValueError(f"fast.faint_samples must be at least 2; got {self.faint_samples}")


class FastField(Protocol):
    """What the fast renderer asks of a scene; points are ``(3, P)``, x, y and z apart."""

    channels: int
    """C, of the colours."""

    def density(self, points: Tensor) -> tuple[Tensor, Any]:
        """World points ``(3, P)`` -> raw densities ``(P,)``, and whatever `colour` needs to know of the points."""
        ...

    def colour(self, state: Any, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        """Colours of rays, from some of their samples.

        Args:
            state: what `density` gave.
            chosen: ``(n,)`` numbers of the points, ray by ray.
            shares: ``(n,)`` their shares.
            starts: ``(r,)`` where each ray begins in `chosen`; a ray may have no point.

        Returns:
            ``(r, C)`` share-weighted sums of the colours.
        """
        ...


def render_square(
    field: FastField, origins: Tensor, directions: Tensor, config: RendererConfig, fast: FastConfig
) -> RayResult:
    """As `render_rays` without jitter and without gradients, for the rays of one square picture.

    A ray that was left out has opacity 0, features 0 and the depth at which rays begin.

    Args:
        field: densities and colours of world points.
        origins, directions: ``(1, R, 3)``, row-major, R the square of a whole number; directions of unit length.
        config: sampling.
        fast: what may be left out.

    Raises:
        ValueError: More than one picture, or the rays are not a square.
    """
    count = origins.shape[1]
    side = round(count**0.5)
    if origins.shape[0] != 1 or side * side != count:
        raise ValueError(f"render_square: rays must be (1, side * side, 3); got {tuple(origins.shape)}")
    rays = _Rays(origins[0].t().contiguous(), directions[0].t().contiguous())
    near, far = depth_limits(origins, config)
    coarse = stratified_depths(near, far, 1, config.num_coarse, None)[0, 0]  # (N,), alike for all rays
    lattice = make_lattice(side, 1 if config.composite_coarse else fast.rays_per_coarse, origins.device)
    density = field.density(rays.points(lattice.rays, coarse))[0].reshape(-1, config.num_coarse)
    bound, weights = _expect(density, coarse, lattice, config)
    depth = coarse.new_full((count,), 0.5 * (coarse[0] + coarse[1]).item())
    opacity = coarse.new_zeros(count)
    features = coarse.new_zeros(count, field.channels)
    solid_samples = max(2, round(fast.fine_share * config.num_fine))
    solid = bound > max(fast.empty_opacity, fast.faint_opacity)
    faint = (bound > fast.empty_opacity) & ~solid
    for group, samples in ((solid, solid_samples), (faint, min(fast.faint_samples, solid_samples))):
        chosen = group.nonzero()[:, 0]
        if not len(chosen):
            continue
        depths = importance_depths(
            coarse.expand(1, len(chosen), -1), weights[None, chosen], samples, config.importance_floor, None
        )[0]
        if config.composite_coarse:
            depths = torch.cat([coarse.expand(len(chosen), -1), depths], dim=1).sort(dim=1).values
        features[chosen], depth[chosen], opacity[chosen] = _march(
            field, rays.points(chosen, depths), depths, config, fast
        )
    return RayResult(features[None], depth[None], opacity[None])


@dataclass(frozen=True)
class _Rays:
    """Origins and directions ``(3, R)``."""

    origins: Tensor
    directions: Tensor

    def points(self, chosen: Tensor, depths: Tensor) -> Tensor:
        """World points ``(3, r * S)`` of the chosen rays (r,) at depths (r, S) or (S,)."""
        origins, directions = self.origins[:, chosen, None], self.directions[:, chosen, None]
        return torch.addcmul(origins, directions, depths).flatten(1)


def _expect(density: Tensor, coarse: Tensor, lattice: Lattice, config: RendererConfig) -> tuple[Tensor, Tensor]:
    """From raw densities (L, N) of the coarse rays: the most opacity that each ray may have (R,), and the weights
    (R, N - 1) by which its fine samples are placed."""
    lengths = coarse.diff()
    most = density[lattice.neighbours[0]]
    for places in lattice.neighbours[1:]:
        most = torch.maximum(most, density[places])
    bound = -torch.expm1(-(activate_density(midpoints(most), config) @ lengths))
    if len(lattice.neighbours) > 1:
        places = lattice.neighbours.t().contiguous()
        density = F.embedding_bag(places, density, mode="sum", per_sample_weights=lattice.weights)  # the mean
    sigma = activate_density(midpoints(density), config)
    return bound, interval_weights(sigma, lengths.expand_as(sigma))


def _march(
    field: FastField, points: Tensor, depths: Tensor, config: RendererConfig, fast: FastConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (r, C), depth (r,) and opacity (r,) of rays with samples at increasing depths (r, S)."""
    density, state = field.density(points)
    sigma = activate_density(midpoints(density.reshape(depths.shape)), config)
    weights = interval_weights(sigma, depths.diff(dim=-1))  # Eq. 10
    opacity = weights.sum(dim=-1)
    depth = (weights * midpoints(depths)).sum(dim=-1) / opacity.clamp_min(1e-6)
    depth = torch.minimum(torch.maximum(depth, depths[:, 0]), depths[:, -1])
    shares = sample_shares(weights)
    least = torch.minimum(shares.amax(dim=1, keepdim=True), shares.new_tensor(fast.least_share))
    seen = shares >= least  # of each ray at least one
    kept = shares * seen
    kept *= (opacity / kept.sum(dim=1).clamp_min(1e-20))[:, None]
    chosen = seen.flatten().nonzero()[:, 0]
    starts = F.pad(seen.sum(dim=1).cumsum(dim=0), (1, 0))[:-1]
    return field.colour(state, chosen, kept.flatten()[chosen], starts), depth, opacity


@dataclass(frozen=True)
class Lattice:
    """Which rays of a square have a coarse pass.

    Attributes:
        rays: ``(L,)`` their numbers, row-major.
        neighbours: ``(M, R)`` for each ray the places in `rays` of those in its neighbourhood.
        weights: ``(R, M)`` how much each counts in the mean; rows sum to 1.
    """

    rays: Tensor
    neighbours: Tensor
    weights: Tensor


@lru_cache(maxsize=8)
def make_lattice(side: int, rays_per_coarse: int, device: torch.device | str = "cpu") -> Lattice:
    """The lattice of a square of `side` x `side` rays; kept, since every frame asks for the same."""
    reach = _REACH[rays_per_coarse]
    steps = torch.arange(side, device=device)
    on = (steps[None, :] - 2 * steps[:, None]) % rays_per_coarse == 0  # (rows, columns): a knight's move apart
    on[[0, -1]] = True
    on[:, [0, -1]] = True  # what enters the picture at the edge for less than a lattice step is met there
    place = torch.where(on.flatten(), on.flatten().cumsum(0) - 1, -1).reshape(side, side)
    offsets = torch.arange(-reach, reach + 1, device=device)
    rows = steps[:, None, None, None] + offsets[:, None]  # (side, 1, 2 reach + 1, 1)
    columns = steps[:, None, None] + offsets  # (side, 1, 2 reach + 1)
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    found = torch.where(inside, place[rows.clamp(0, side - 1), columns.clamp(0, side - 1)], -1).flatten(2).flatten(0, 1)
    tent = (reach + 1 - offsets.abs()).float()
    weights = torch.where(found >= 0, (tent[:, None] * tent).flatten(), 0.0)  # (R, window)
    weights, order = weights.sort(dim=1, descending=True)
    found = found.gather(1, order)
    most = int((weights > 0).sum(dim=1).max())
    weights, found = weights[:, :most], found[:, :most]
    found = torch.where(found >= 0, found, found[:, :1])  # few in the middle: the first again, without weight
    return Lattice(on.flatten().nonzero()[:, 0], found.t().contiguous(), weights / weights.sum(dim=1, keepdim=True))
