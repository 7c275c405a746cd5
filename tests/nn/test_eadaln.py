"""nn/eadaln.py, Eq. 5: starts as plain layer normalisation, then scale * LN(x) + shift."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from export3d.nn.eadaln import EAdaLN


def test_an_untrained_eadaln_is_plain_layer_normalisation_for_any_expression() -> None:
    layer, tokens = EAdaLN(16, 8), torch.randn(2, 5, 16)
    expected = F.layer_norm(tokens, (16,), eps=1e-6)
    assert torch.equal(layer(tokens, torch.randn(2, 8)), expected)


@pytest.mark.parametrize("silu", [True, False])
def test_it_equals_equation_5_written_out(silu: bool) -> None:
    layer = EAdaLN(4, 3, silu=silu).double()
    torch.nn.init.normal_(layer.modulation.weight)
    torch.nn.init.normal_(layer.modulation.bias)
    tokens, condition = torch.randn(2, 5, 4).double(), torch.randn(2, 3).double()
    out = layer(tokens, condition)
    for b in range(2):
        driven = condition[b] * torch.sigmoid(condition[b]) if silu else condition[b]
        modulation = layer.modulation.weight @ driven + layer.modulation.bias
        for n in range(5):
            x = tokens[b, n]
            normed = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
            expected = (1 + modulation[:4]) * normed + modulation[4:]
            assert torch.allclose(out[b, n], expected, atol=1e-12)


def test_each_sample_of_a_batch_follows_its_own_expression() -> None:
    layer = EAdaLN(4, 3)
    torch.nn.init.normal_(layer.modulation.weight)
    tokens = torch.randn(1, 5, 4).expand(2, 5, 4)
    first, second = layer(tokens, torch.randn(2, 3))
    assert not torch.allclose(first, second)


def test_the_condition_reaches_the_weights_from_the_first_step() -> None:
    layer = EAdaLN(4, 3)
    layer(torch.randn(2, 5, 4), torch.randn(2, 3)).square().sum().backward()
    assert layer.modulation.weight.grad is not None and layer.modulation.weight.grad.abs().sum() > 0


def test_it_has_only_the_modulation_as_parameters() -> None:
    # 3 -> 2 * 4: 24 weights and 8 biases; the norm itself has none.
    assert sum(p.numel() for p in EAdaLN(4, 3).parameters()) == 32
