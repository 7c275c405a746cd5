"""rendering/sampling.py: stratified and importance depths, against EG3D's numbers and a slow reference."""

from __future__ import annotations

import bisect

import pytest
import torch
from torch import Tensor

from export3d.rendering.sampling import importance_depths, stratified_depths

NEAR, FAR = torch.tensor([2.25, 1.0]), torch.tensor([3.3, 2.0])


def test_without_jitter_depths_lie_half_a_step_past_the_even_grid() -> None:
    depths = stratified_depths(NEAR, FAR, 3, 48, None)
    assert depths.shape == (2, 3, 48)
    step = 1.05 / 47
    expected = torch.tensor([2.25 + step * (i + 0.5) for i in range(48)])
    assert torch.allclose(depths[0], expected.expand(3, 48), atol=1e-6)


def test_jitter_only_moves_forward_and_at_most_one_step() -> None:
    even = 2.25 + torch.arange(48) * (1.05 / 47)
    depths = stratified_depths(NEAR, FAR, 500, 48, torch.Generator().manual_seed(0))[0]
    moved = (depths - even) / (1.05 / 47)
    assert (moved >= -1e-4).all() and (moved <= 1 + 1e-4).all()
    assert moved.mean().item() == pytest.approx(0.5, abs=0.02)
    assert depths.max() <= 3.3 + 1.05 / 47 + 1e-5  # EG3D: the last sample can pass the end by 0.0223
    assert (depths.diff(dim=-1) >= -1e-6).all()


def test_jitter_is_repeatable_by_its_generator_and_different_without() -> None:
    first = stratified_depths(NEAR, FAR, 2, 8, torch.Generator().manual_seed(4))
    assert torch.equal(first, stratified_depths(NEAR, FAR, 2, 8, torch.Generator().manual_seed(4)))
    assert not torch.equal(first, stratified_depths(NEAR, FAR, 2, 8, torch.Generator().manual_seed(5)))


def slow_importance(depths: Tensor, weights: Tensor, count: int, floor: float) -> list[float]:
    """One ray, plain Python: smooth, floor, cumulate, invert at (i + 0.5) / count."""
    t, w = depths.tolist(), weights.tolist()
    n = len(t)
    pooled = [max(w[max(j - 1, 0)], w[min(j, n - 2)]) for j in range(n)]
    smooth = [(pooled[j] + pooled[j + 1]) / 2 + floor for j in range(n - 1)]
    middles = [(t[j] + t[j + 1]) / 2 for j in range(n - 1)]
    inner = [s + 1e-5 for s in smooth[1:-1]]
    cdf = [0.0]
    for value in inner:
        cdf.append(cdf[-1] + value / sum(inner))
    out = []
    for i in range(count):
        u = (i + 0.5) / count
        above = min(max(bisect.bisect_right(cdf, u), 1), len(cdf) - 1)
        share = (u - cdf[above - 1]) / (cdf[above] - cdf[above - 1])
        out.append(middles[above - 1] + share * (middles[above] - middles[above - 1]))
    return out


def test_importance_depths_equal_the_slow_reference() -> None:
    depths = stratified_depths(NEAR, FAR, 4, 12, torch.Generator().manual_seed(2)).double()
    weights = torch.rand(2, 4, 11, dtype=torch.float64) ** 6
    fine = importance_depths(depths, weights, 16, 0.01, None)
    for b in range(2):
        for r in range(4):
            expected = slow_importance(depths[b, r], weights[b, r], 16, 0.01)
            assert fine[b, r].tolist() == pytest.approx(expected, abs=1e-6)


def test_importance_samples_gather_around_a_surface() -> None:
    depths = stratified_depths(NEAR[:1], FAR[:1], 1, 48, None)
    weights = torch.zeros(1, 1, 47)
    weights[..., 20] = 1.0
    surface = depths[0, 0, 20:22].mean()
    fine = importance_depths(depths, weights, 48, 0.01, None)
    near_surface = (fine - surface).abs() < 2.5 * 1.05 / 47
    # Smoothed weights: 0.5, 1, 0.5 around it, against 44 x 0.01: at least 2 / 2.5 of the samples are near.
    assert near_surface.float().mean() >= 0.8


def test_where_there_is_nothing_importance_samples_are_even() -> None:
    depths = stratified_depths(NEAR[:1], FAR[:1], 1, 12, None)
    fine = importance_depths(depths, torch.zeros(1, 1, 11), 9, 0.01, None)[0, 0]
    gaps = fine.diff()
    assert torch.allclose(gaps, gaps.mean().expand_as(gaps), atol=1e-5)


def test_importance_samples_stay_between_the_coarse_ones_and_increase_without_jitter() -> None:
    depths = stratified_depths(NEAR, FAR, 5, 12, None)
    fine = importance_depths(depths, torch.rand(2, 5, 11), 20, 0.01, None)
    assert (fine >= depths[..., :1]).all() and (fine <= depths[..., -1:]).all()
    assert (fine.diff(dim=-1) >= -1e-6).all()
