"""model/superres.py: sizes, start as plain enlargement, and windows that fit the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from export3d.model.superres import SuperResConfig, SuperResolution, upsample2


def test_the_papers_module_goes_from_64_to_256_pixels() -> None:
    module = SuperResolution(SuperResConfig(), 32)
    assert module(torch.randn(1, 32, 64, 64), torch.randn(1, 3, 64, 64)).shape == (1, 3, 256, 256)


def test_an_untrained_module_enlarges_the_raw_image() -> None:
    module = SuperResolution(SuperResConfig(start_size=None, channels=(8, 4)), 6)
    rgb = torch.randn(2, 3, 8, 8)
    expected = F.interpolate(rgb, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert torch.allclose(module(torch.randn(2, 6, 8, 8), rgb), expected, atol=1e-6)


def test_both_blocks_add_to_the_rgb_path() -> None:
    module = SuperResolution(SuperResConfig(start_size=None, channels=(8, 4)), 6)
    torch.nn.init.constant_(module.low_rgb.bias, 0.5)
    torch.nn.init.constant_(module.high_rgb.bias, 0.25)
    rgb = torch.zeros(1, 3, 8, 8)
    assert torch.allclose(module(torch.randn(1, 6, 8, 8), rgb), torch.full((1, 3, 16, 16), 0.75), atol=1e-6)


def test_bilinear_doubling_by_hand() -> None:
    # Pixel areas are halved: the new centres lie at -1/4 and 1/4 of the old spacing. 0, 4 -> 0, 1, 3, 4.
    row = torch.tensor([0.0, 4.0]).expand(1, 1, 2, 2)
    assert upsample2(row)[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_there_is_no_style_and_no_noise() -> None:
    """Plain convolutions: the same input twice gives the same output, and only convolutions hold weights."""
    module = SuperResolution(SuperResConfig(channels=(8, 4)), 6)
    kinds = {type(m).__name__ for m in module.children()}
    assert kinds == {"Conv2d", "ConvTranspose2d"}


def test_both_the_features_and_the_rgb_matter_once_trained() -> None:
    module = SuperResolution(SuperResConfig(start_size=None, channels=(8, 4)), 6)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    features = torch.randn(1, 6, 8, 8, requires_grad=True)
    rgb = torch.randn(1, 3, 8, 8, requires_grad=True)
    module(features, rgb).square().sum().backward()
    for x in (features, rgb):
        assert x.grad is not None and (x.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("start_size", [16, None])
def test_a_window_is_enlarged_as_much_as_the_whole(start_size: int | None) -> None:
    module = SuperResolution(SuperResConfig(start_size=start_size, channels=(8, 4)), 6)
    whole = module(torch.randn(1, 6, 8, 8), torch.randn(1, 3, 8, 8)).shape[-1]
    window = module(torch.randn(1, 6, 4, 4), torch.randn(1, 3, 4, 4), 0.5).shape[-1]
    assert window * 2 == whole


def test_doubling_keeps_the_variance_at_the_start() -> None:
    """Each output pixel of the transposed convolution sums 4 taps of every channel: He's rule counts 4 x channels inputs."""
    module = SuperResolution(SuperResConfig(channels=(40, 32)), 32)
    assert float(module.up.weight.detach().std()) == pytest.approx((2.0 / (4 * 40)) ** 0.5, rel=0.05)
    assert float(module.up.bias.detach().abs().max()) == 0.0
