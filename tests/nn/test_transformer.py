"""nn/transformer.py: token order, attention against a slow reference, Mix-FFN, and the three kinds of block."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.nn.transformer import (
    Attention,
    CrossAttention,
    CrossAttentionViTBlock,
    EAdaLNViTBlock,
    MixFFN,
    OverlapPatchMerge,
    ViTBlock,
    linear,
    map_to_tokens,
    tokens_to_map,
)

GRID = (4, 6)


def test_tokens_are_in_row_major_order_and_back() -> None:
    x = torch.randn(2, 3, *GRID)
    tokens = map_to_tokens(x)
    assert tokens.shape == (2, 24, 3)
    assert torch.equal(tokens[:, 1 * 6 + 4], x[:, :, 1, 4])  # row 1, column 4
    assert torch.equal(tokens_to_map(tokens, GRID), x)


def test_patch_merging_halves_both_sides_and_normalises_each_token() -> None:
    tokens = OverlapPatchMerge(5, 16)(torch.randn(2, 5, 8, 12))
    assert tokens.shape == (2, 4 * 6, 16)
    assert torch.allclose(tokens.mean(dim=-1), torch.zeros(2, 24), atol=1e-5)


def test_patch_merging_overlaps() -> None:
    """A 3x3 window at stride 2: pixel (3, 3) lies in the windows of token rows and columns 1 and 2."""
    merge = OverlapPatchMerge(1, 8)
    x = torch.zeros(1, 1, 8, 8)
    changed = x.clone()
    changed[0, 0, 3, 3] = 1.0
    moved = (merge.merge(changed) - merge.merge(x)).abs().sum(dim=1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def _slow_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """One sample, one head and one query at a time. ``(N, dim)``, ``(M, dim)``, ``(M, dim)`` -> ``(N, dim)``."""
    dim = query.shape[1] // heads
    out = torch.zeros_like(query)
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        for n in range(query.shape[0]):
            scores = torch.stack([query[n, part] @ key[m, part] / math.sqrt(dim) for m in range(key.shape[0])])
            weights = scores.exp() / scores.exp().sum()
            out[n, part] = sum(weights[m] * value[m, part] for m in range(key.shape[0]))
    return out


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_self_attention_equals_the_slow_reference_in_both_code_paths(grad: bool) -> None:
    layer = Attention(8, 2).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(2, 24, 8).double()
    with torch.set_grad_enabled(grad):
        out = layer(tokens, GRID)
    for b in range(2):
        key, value = layer.key_value(tokens[b]).chunk(2, dim=-1)
        expected = layer.out(_slow_attention(layer.query(tokens[b]), key, value, heads=2))
        assert torch.allclose(out[b], expected, atol=1e-10)


def test_reduced_attention_takes_keys_from_a_smaller_map() -> None:
    layer = Attention(8, 2, reduction=2).double()
    tokens = torch.randn(1, 24, 8).double()
    assert layer.reduce is not None and layer.reduce_norm is not None
    small = layer.reduce_norm(map_to_tokens(layer.reduce(tokens_to_map(tokens, GRID))))
    assert small.shape == (1, 2 * 3, 8)
    key, value = layer.key_value(small[0]).chunk(2, dim=-1)
    expected = layer.out(_slow_attention(layer.query(tokens[0]), key, value, heads=2))
    assert torch.allclose(layer(tokens, GRID)[0], expected, atol=1e-10)


def test_self_attention_has_no_notion_of_order() -> None:
    layer, tokens = Attention(8, 4), torch.randn(1, 24, 8)
    shuffle = torch.randperm(24)
    assert torch.allclose(layer(tokens[:, shuffle], GRID), layer(tokens, GRID)[:, shuffle], atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide dim; got dim 10, heads 4"):
        Attention(10, 4)


def test_cross_attention_to_one_token_ignores_the_query() -> None:
    """Softmax over one key is 1: why the ablation needs the n scaled basis vectors, not one beta'."""
    layer, condition = CrossAttention(8, 3, 2), torch.randn(1, 1, 3)
    out = layer(torch.randn(1, 24, 8), condition)
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-6)
    several = layer(torch.randn(1, 24, 8), torch.randn(1, 10, 3) * 20)
    assert not torch.allclose(several, several[:, :1].expand_as(several), atol=1e-4)


def test_mix_ffn_equals_its_formula() -> None:
    layer = MixFFN(4, 2).double()
    tokens = torch.randn(1, 24, 4).double()
    hidden = layer.expand(tokens)[0].reshape(4, 6, 8)
    padded = F.pad(hidden.permute(2, 0, 1), (1, 1, 1, 1))
    mixed = torch.zeros(4, 6, 8).double()
    for i in range(4):
        for j in range(6):
            window = padded[:, i : i + 3, j : j + 3]
            mixed[i, j] = (window * layer.depthwise.weight[:, 0]).sum(dim=(1, 2)) + layer.depthwise.bias
    gelu = 0.5 * mixed * (1 + torch.erf(mixed / math.sqrt(2)))
    expected = layer.contract(gelu.reshape(24, 8))
    assert torch.allclose(layer(tokens, GRID)[0], expected, atol=1e-10)


def test_mix_ffn_carries_position() -> None:
    """Equal tokens come out different at the border, because the depthwise convolution pads with zeros."""
    layer = MixFFN(8, 2)
    torch.nn.init.normal_(layer.expand.bias)
    out = layer(torch.ones(1, 24, 8), GRID).reshape(4, 6, 8)
    assert torch.allclose(out[1, 1], out[2, 4], atol=1e-6)
    assert not torch.allclose(out[0, 0], out[1, 1], atol=1e-4)


def test_a_vit_block_is_pre_norm_with_two_residuals() -> None:
    block, tokens = ViTBlock(8, 2, 2), torch.randn(2, 24, 8)
    first = tokens + block.attention(F.layer_norm(tokens, (8,), eps=1e-6), GRID)
    assert torch.allclose(block(tokens, GRID), first + block.ffn(F.layer_norm(first, (8,), eps=1e-6), GRID), atol=1e-6)


def test_an_untrained_eadaln_block_equals_a_plain_block_with_the_same_weights() -> None:
    plain, driven = ViTBlock(8, 2, 2), EAdaLNViTBlock(8, 2, 2, condition_dim=5)
    driven.attention.load_state_dict(plain.attention.state_dict())
    driven.ffn.load_state_dict(plain.ffn.state_dict())
    tokens = torch.randn(2, 24, 8)
    assert torch.allclose(driven(tokens, GRID, torch.randn(2, 5)), plain(tokens, GRID), atol=1e-6)


def test_eadaln_modulates_before_attention_and_before_the_ffn_separately() -> None:
    block = EAdaLNViTBlock(8, 2, 2, condition_dim=5)
    assert block.norm_attention.modulation is not block.norm_ffn.modulation
    tokens, beta_prime = torch.randn(1, 24, 8), torch.randn(1, 5)
    before = block(tokens, GRID, beta_prime)
    for norm in (block.norm_attention, block.norm_ffn):
        torch.nn.init.normal_(norm.modulation.weight)
        assert not torch.allclose(block(tokens, GRID, beta_prime), before, atol=1e-4)
        torch.nn.init.zeros_(norm.modulation.weight)


def test_the_cross_attention_block_sees_every_condition_token() -> None:
    block = CrossAttentionViTBlock(8, 2, 2, condition_dim=5)
    condition = torch.randn(1, 10, 5, requires_grad=True)
    block(torch.randn(1, 24, 8), GRID, condition).square().sum().backward()
    assert condition.grad is not None and (condition.grad.abs().sum(dim=-1) > 0).all()


def test_linear_layers_start_with_a_spread_of_two_hundredths() -> None:
    layer = linear(512, 512)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02) and not layer.bias.any()


def test_parameter_counts_at_the_papers_size() -> None:
    """Hand count at 1024 dims, MLP ratio 2. Attention: 4 * 1024^2 + 4 * 1024 = 4,198,400. Mix-FFN: 1024 * 2048 + 2048
    + 2048 * 9 + 2048 + 2048 * 1024 + 1024 = 4,217,856. Two plain norms: 4,096. Together 8,420,352.
    EAdaLN instead of the norms: 2 * (256 * 2048 + 2048) = 1,052,672. Reduction 2: 1024 * 1024 * 4 + 1024 + 2048."""

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        assert count(ViTBlock(1024, 4, 2)) == 8_420_352
        assert count(EAdaLNViTBlock(1024, 4, 2, 256)) == 8_420_352 - 4_096 + 1_052_672
        assert count(ViTBlock(1024, 4, 2, reduction=2)) == 8_420_352 + 4_197_376
