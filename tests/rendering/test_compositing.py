"""rendering/compositing.py, Eqs. 9-10: weights of a ray, against exact integrals and a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from export3d.rendering.compositing import interval_weights, midpoints, sample_shares


def test_a_constant_density_lets_exp_minus_sigma_length_through() -> None:
    """Transmittance after length L is exp(-s L), however the ray is cut."""
    generator = torch.Generator().manual_seed(1)
    for sigma, length in ((0.3, 1.05), (4.0, 1.05), (20.0, 0.5)):
        cuts = torch.rand(30, generator=generator, dtype=torch.float64)
        lengths = length * cuts / cuts.sum()
        weights = interval_weights(torch.full_like(lengths, sigma), lengths)
        assert 1 - weights.sum().item() == pytest.approx(math.exp(-sigma * length), abs=1e-12)


def test_two_intervals_by_hand() -> None:
    # Optical depths ln 2 each: the first absorbs a half, the second a half of the rest.
    weights = interval_weights(torch.full((2,), math.log(2.0)), torch.ones(2))
    assert weights.tolist() == pytest.approx([0.5, 0.25], abs=1e-6)


def _random_rays(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.rand(4, 7, 20, generator=generator, dtype=torch.float64) * 30
    return sigma, torch.rand(4, 7, 20, generator=generator, dtype=torch.float64) * 0.1


def test_weights_are_the_slow_product_of_alphas() -> None:
    sigma, lengths = _random_rays()
    weights = interval_weights(sigma, lengths)
    for index in [(0, 0), (3, 6), (1, 4)]:
        transmittance = 1.0
        for s in range(20):
            alpha = 1 - math.exp(-float(sigma[index][s]) * float(lengths[index][s]))
            assert weights[index][s].item() == pytest.approx(transmittance * alpha, abs=1e-12)
            transmittance *= 1 - alpha


def test_weights_sum_to_one_minus_the_final_transmittance_and_never_to_more() -> None:
    sigma, lengths = _random_rays()
    total = interval_weights(sigma, lengths).sum(dim=-1)
    assert torch.allclose(total, 1 - torch.exp(-(sigma * lengths).sum(dim=-1)), atol=1e-12)
    assert (total <= 1).all()


def test_splitting_an_interval_changes_nothing() -> None:
    sigma, lengths = _random_rays()
    halves = torch.stack([lengths * 0.3, lengths * 0.7], dim=-1).flatten(-2)
    split = interval_weights(sigma.repeat_interleave(2, dim=-1), halves)
    assert torch.allclose(split.unflatten(-1, (20, 2)).sum(dim=-1), interval_weights(sigma, lengths), atol=1e-12)


def test_an_opaque_interval_hides_everything_behind_it_without_nan() -> None:
    sigma = torch.tensor([0.0, 1e9, 5.0, 1e9])
    weights = interval_weights(sigma, torch.full((4,), 0.1))
    assert weights.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_empty_space_weighs_nothing() -> None:
    assert interval_weights(torch.zeros(3, 8), torch.ones(3, 8)).abs().max() == 0


def test_faint_fog_keeps_its_precision_in_float32() -> None:
    # 1 - exp(-1e-9) is 0 when written naively in float32.
    weights = interval_weights(torch.full((4,), 1e-8), torch.full((4,), 0.1))
    assert torch.allclose(weights, torch.full((4,), 1e-9), rtol=1e-4, atol=0)


def test_the_derivative_is_that_of_finite_differences() -> None:
    sigma, lengths = _random_rays()
    inputs = (sigma[0, :2].requires_grad_(True), lengths[0, :2].requires_grad_(True))
    assert torch.autograd.gradcheck(interval_weights, inputs)


def test_different_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"sigma \(3, 4\) and lengths \(3, 5\) must be equal"):
        interval_weights(torch.zeros(3, 4), torch.zeros(3, 5))


def test_midpoints_are_means_of_neighbours() -> None:
    assert midpoints(torch.tensor([1.0, 3.0, 7.0])).tolist() == [2.0, 5.0]


def test_sample_shares_composite_samples_as_interval_weights_composite_midpoints() -> None:
    sigma, lengths = _random_rays()
    weights = interval_weights(sigma, lengths)
    colours = torch.rand(4, 7, 21, 3, dtype=torch.float64)
    by_interval = sum(weights[..., i, None] * (colours[..., i, :] + colours[..., i + 1, :]) / 2 for i in range(20))
    by_sample = (sample_shares(weights)[..., None] * colours).sum(dim=-2)
    assert torch.allclose(by_sample, by_interval, atol=1e-12)
    assert torch.allclose(sample_shares(weights).sum(dim=-1), weights.sum(dim=-1), atol=1e-12)
