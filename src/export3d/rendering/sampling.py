"""Depths along a ray: stratified coarse samples and importance samples (EG3D, facts of its released configuration)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def stratified_depths(near: Tensor, far: Tensor, rays: int, count: int, jitter: torch.Generator | None) -> Tensor:
    """Evenly spaced depths, each moved forward by part of one step (EG3D: the last may pass `far`).

    Args:
        near, far: ``(B,)`` scene units.
        rays: rays per camera.
        count: samples per ray.
        jitter: generator for training; None moves every sample by half a step, so the result is deterministic.

    Returns:
        ``(B, rays, count)``, increasing along the last dimension.
    """
    fraction = torch.arange(count, device=near.device, dtype=torch.float32) / (count - 1)
    span = (far - near)[:, None, None]
    base = near[:, None, None] + fraction * span
    if jitter is None:
        moved = torch.full_like(base, 0.5).expand(-1, rays, -1)
    else:
        moved = torch.rand(near.shape[0], rays, count, generator=jitter, device=near.device)
    return base + moved * (span / (count - 1))


def importance_depths(
    depths: Tensor, weights: Tensor, count: int, floor: float, jitter: torch.Generator | None
) -> Tensor:
    """Depths drawn in proportion to the smoothed coarse weights (no gradient).

    The weights (one per interval between samples) are max-pooled, then average-pooled over neighbours and lifted by
    `floor`; bins are the midpoints of the coarse depths; the two outermost weights are dropped (EG3D).

    Args:
        depths: ``(B, R, N)`` increasing coarse depths.
        weights: ``(B, R, N - 1)`` compositing weights.
        count: new samples per ray.
        floor: added to every smoothed weight, so that empty space is still looked at.
        jitter: generator, or None for evenly spaced quantiles.

    Returns:
        ``(B, R, count)``.
    """
    batch, rays, num_coarse = depths.shape
    smooth = F.max_pool1d(weights.reshape(batch * rays, 1, num_coarse - 1), 2, 1, padding=1)
    smooth = F.avg_pool1d(smooth, 2, 1)[:, 0] + floor  # (B * R, N - 1)
    inner = smooth[:, 1:-1] + 1e-5  # (B * R, N - 3)
    middles = 0.5 * (depths[..., 1:] + depths[..., :-1]).reshape(batch * rays, num_coarse - 1)
    edges = middles[:, : num_coarse - 2].contiguous()  # (B * R, N - 2): edges of the N - 3 bins
    cdf = F.pad(inner.cumsum(dim=-1), (1, 0))
    cdf = (cdf / cdf[:, -1:]).contiguous()
    if jitter is None:
        quantiles = ((torch.arange(count, device=depths.device) + 0.5) / count).expand(batch * rays, count).contiguous()
    else:
        quantiles = torch.rand(batch * rays, count, generator=jitter, device=depths.device)
    above = torch.searchsorted(cdf, quantiles, right=True).clamp(1, cdf.shape[1] - 1)
    below = above - 1
    cdf_below, cdf_above = cdf.gather(1, below), cdf.gather(1, above)
    edge_below, edge_above = edges.gather(1, below), edges.gather(1, above)
    fraction = (quantiles - cdf_below) / (cdf_above - cdf_below).clamp_min(1e-8)
    return (edge_below + fraction.clamp(0.0, 1.0) * (edge_above - edge_below)).reshape(batch, rays, count)
