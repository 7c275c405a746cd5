"""nn/conv.py: start values, the residual block and the low-pass filter after pixel shuffle."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export3d.nn.conv import ConvStack, GaussianLowPass, ResidualBlock, conv


def test_convolutions_start_with_segformers_spread_and_zero_bias() -> None:
    layer = conv(64, 128, kernel=3)
    # std = sqrt(2 / (3 * 3 * 128)) = 0.0416667; 73,728 values give its estimate to about 0.3 %.
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 1152), rel=0.02)
    assert layer.bias is not None and not layer.bias.any()


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 16), (7, 2, 8), (3, 2, 8), (1, 1, 16)])
def test_half_padding_keeps_or_halves_the_side(kernel: int, stride: int, side: int) -> None:
    assert conv(3, 5, kernel, stride)(torch.zeros(2, 3, 16, 16)).shape == (2, 5, side, side)


def test_an_untrained_residual_block_is_its_activation_alone() -> None:
    x = torch.randn(2, 6, 8, 8)
    assert torch.equal(ResidualBlock(6, 0.01)(x), F.leaky_relu(x, 0.01))


def test_a_conv_stack_has_an_activation_after_each_convolution_and_one_strided_first_layer() -> None:
    stack = ConvStack((5, 8, 16), 0.01, kernel=7, first_stride=2)
    kinds = [type(layer) for layer in stack]
    assert kinds == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU]
    assert stack(torch.zeros(1, 5, 32, 32)).shape == (1, 16, 16, 16)
    assert stack[0].kernel_size == (7, 7) and stack[2].kernel_size == (3, 3)


def test_the_default_filter_is_one_two_one() -> None:
    assert torch.allclose(GaussianLowPass().kernel, torch.tensor([0.25, 0.5, 0.25]), atol=1e-6)


def test_the_filter_kills_the_grid_of_period_two() -> None:
    row = torch.tensor([1.0, -1.0]).repeat(8)
    for pattern in (row[None, :].expand(16, 16), row[:, None].expand(16, 16), row[:, None] * row[None, :]):
        x = (3.0 + pattern).expand(2, 4, 16, 16)
        assert torch.allclose(GaussianLowPass()(x), torch.full_like(x, 3.0), atol=1e-5)


def test_the_filter_gains_are_those_of_one_two_one() -> None:
    # Gain of [1, 2, 1] / 4 at frequency f (cycles per pixel) is cos^2(pi f): 0.5 at a quarter, 0.85 at an eighth.
    position = torch.arange(64.0)
    for frequency, gain in ((0.25, 0.5), (0.125, 0.853553)):
        wave = torch.cos(2 * math.pi * frequency * position).expand(1, 1, 64, 64)
        inner = GaussianLowPass()(wave)[0, 0, 32, 8:56]
        assert torch.allclose(inner, gain * wave[0, 0, 32, 8:56], atol=1e-5)


def test_the_filter_keeps_constants_up_to_the_border_and_channels_apart() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[:, 1] = 5.0
    assert torch.allclose(GaussianLowPass()(x), x, atol=1e-6)


def test_the_filter_equals_a_slow_loop_with_reflection() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    taps = {-1: 0.25, 0: 0.5, 1: 0.25}
    expected = torch.zeros_like(x)
    for i in range(5):
        for j in range(6):
            for di, wi in taps.items():
                for dj, wj in taps.items():
                    row, column = abs(i + di), abs(j + dj)  # reflection without repeating the edge
                    row, column = min(row, 2 * 4 - row), min(column, 2 * 5 - column)
                    expected[..., i, j] += wi * wj * x[..., row, column]
    assert torch.allclose(GaussianLowPass()(x), expected, atol=1e-6)


def test_other_widths_and_spreads_are_options_and_sum_to_one() -> None:
    kernel = GaussianLowPass(taps=5, sigma_px=1.0).kernel
    assert kernel.numel() == 5 and kernel.sum().item() == pytest.approx(1.0, abs=1e-6)
    # Neighbour to centre: exp(-1 / 2) = 0.606531.
    assert (kernel[1] / kernel[2]).item() == pytest.approx(0.606531, abs=1e-5)


def test_an_even_number_of_taps_is_refused() -> None:
    with pytest.raises(ValueError, match="taps must be odd; got 4"):
        GaussianLowPass(taps=4)


def test_pixel_shuffle_puts_four_channels_into_two_rows_of_two() -> None:
    """The order that the generator's PixelShuffle(2) relies on: channels 0, 1 are the upper row, 2, 3 the lower."""
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert nn.PixelShuffle(2)(x).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]
