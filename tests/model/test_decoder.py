"""model/decoder.py, Eq. 8: separate layers for colour and density, range of the colours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from export3d.model.decoder import DecoderConfig, RadianceDecoder


def test_density_and_colour_come_from_separate_layers_of_one_hidden_layer() -> None:
    decoder = RadianceDecoder(DecoderConfig(hidden=6, colour_channels=4), 5).double()
    features = torch.randn(2, 7, 5).double()
    density, state = decoder.density(features)
    hidden = torch.log1p(torch.exp(features @ decoder.first.weight.T + decoder.first.bias))  # soft-plus
    raw = hidden @ decoder.to_density.weight.T + decoder.to_density.bias
    logits = hidden @ decoder.to_colour.weight.T + decoder.to_colour.bias
    assert torch.allclose(density.double(), raw[..., 0], atol=1e-5)
    expected = 1.002 / (1 + torch.exp(-logits)) - 0.001
    assert torch.allclose(decoder.colour(state).double(), expected, atol=1e-5)


def test_colours_can_pass_black_and_white_by_a_thousandth_and_no_more() -> None:
    decoder = RadianceDecoder(DecoderConfig(), 32)
    with torch.no_grad():
        decoder.to_colour.weight.mul_(1e4)
    colour = decoder.colour(decoder.density(torch.randn(2, 50, 32))[1])
    assert colour.min().item() == pytest.approx(-0.001, abs=1e-6)
    assert colour.max().item() == pytest.approx(1.001, abs=1e-6)


def test_the_default_has_eg3ds_sizes() -> None:
    # 32 * 64 + 64 + (64 + 1) + (64 * 32 + 32) = 4,257.
    assert sum(p.numel() for p in RadianceDecoder(DecoderConfig(), 32).parameters()) == 4_257


def test_two_separate_networks_share_nothing() -> None:
    decoder = RadianceDecoder(DecoderConfig(hidden=6, shared_first_layer=False), 5)
    features = torch.randn(1, 4, 5)
    density, state = decoder.density(features)
    density.sum().backward()
    assert decoder.first_colour is not None
    assert decoder.first.weight.grad is not None and decoder.first_colour.weight.grad is None
    assert torch.allclose(state, F.softplus(decoder.first_colour(features)))


def test_no_activation_stands_before_the_first_layer() -> None:
    """So the layer commutes with the mean over planes and can be folded into them."""
    decoder = RadianceDecoder(DecoderConfig(), 32)
    a, b = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    assert torch.allclose(decoder.first((a + b) / 2), (decoder.first(a) + decoder.first(b)) / 2, atol=1e-6)


def test_layers_start_as_eg3ds_do_without_bias_and_with_outputs_of_about_unit_spread() -> None:
    torch.manual_seed(0)
    decoder = RadianceDecoder(DecoderConfig(hidden=64, shared_first_layer=False), 256)
    assert decoder.first_colour is not None
    for layer in (decoder.first, decoder.first_colour, decoder.to_colour):
        assert layer.bias.abs().max() == 0
    assert decoder.first(torch.randn(1, 500, 256)).std().item() == pytest.approx(1.0, abs=0.1)


def test_the_density_bias_moves_every_density() -> None:
    torch.manual_seed(1)
    plain = RadianceDecoder(DecoderConfig(), 32)
    torch.manual_seed(1)
    moved = RadianceDecoder(DecoderConfig(density_bias=-2.0), 32)
    features = torch.randn(1, 5, 32)
    assert torch.allclose(moved.density(features)[0], plain.density(features)[0] - 2.0, atol=1e-6)
