"""SegFormer-type transformer parts: overlap patch merging, efficient attention, Mix-FFN, and the two block types (Sec. 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.nn.conv import conv
from export3d.nn.eadaln import EAdaLN


class OverlapPatchMerge(nn.Module):
    """Strided overlapping convolution, flatten, LayerNorm: (B, C, H, W) -> tokens (B, H/2 * W/2, dim)."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.merge = conv(in_channels, dim, kernel=3, stride=2)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, H/2 * W/2, dim)`` in row-major order."""
        return self.norm(map_to_tokens(self.merge(x)))


class Attention(nn.Module):
    """Multi-head self-attention; with `reduction` > 1 keys and values come from a reduced token map (SegFormer)."""

    def __init__(self, dim: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim; got dim {dim}, heads {heads}")
        self.heads = heads
        self.query = linear(dim, dim)
        self.key_value = linear(dim, 2 * dim)
        self.out = linear(dim, dim)
        self.reduce = conv(dim, dim, reduction, reduction, padding=0) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(dim, eps=1e-6) if reduction > 1 else None

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """``tokens`` (B, H*W, dim) on a `grid` (H, W) -> (B, H*W, dim)."""
        context = tokens
        if self.reduce is not None and self.reduce_norm is not None:
            context = self.reduce_norm(map_to_tokens(self.reduce(tokens_to_map(tokens, grid))))
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self.out(attend(self.query(tokens), key, value, self.heads))


class CrossAttention(nn.Module):
    """Tokens attend to condition tokens (the ablation of Table 4)."""

    def __init__(self, dim: int, condition_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(dim, dim)
        self.key_value = linear(condition_dim, 2 * dim)
        self.out = linear(dim, dim)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """``tokens`` (B, N, dim), ``condition`` (B, M, condition_dim) -> (B, N, dim)."""
        key, value = self.key_value(condition).chunk(2, dim=-1)
        return self.out(attend(self.query(tokens), key, value, self.heads))


class MixFFN(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear (SegFormer); its zero padding carries position."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.expand = linear(dim, ratio * dim)
        self.depthwise = nn.Conv2d(ratio * dim, ratio * dim, 3, padding=1, groups=ratio * dim)
        nn.init.normal_(self.depthwise.weight, std=math.sqrt(2.0 / 9.0))
        nn.init.zeros_(self.depthwise.bias)  # type: ignore[arg-type]
        self.contract = linear(ratio * dim, dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """``tokens`` (B, H*W, dim) -> (B, H*W, dim)."""
        hidden = self.depthwise(tokens_to_map(self.expand(tokens), grid))
        return self.contract(F.gelu(map_to_tokens(hidden)))


class ViTBlock(nn.Module):
    """x += MSA(LN(x)); x += MixFFN(LN(x))."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, reduction: int = 1) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads, reduction)
        self.norm_ffn = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = MixFFN(dim, mlp_ratio)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """``tokens`` (B, H*W, dim) -> (B, H*W, dim)."""
        tokens = tokens + self.attention(self.norm_attention(tokens), grid)
        return tokens + self.ffn(self.norm_ffn(tokens), grid)


class EAdaLNViTBlock(nn.Module):
    """A ViT block whose two norms are EAdaLN (Eq. 5): right before MSA and right before Mix-FFN."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, condition_dim: int, silu: bool = True) -> None:
        super().__init__()
        self.norm_attention = EAdaLN(dim, condition_dim, silu)
        self.attention = Attention(dim, heads)
        self.norm_ffn = EAdaLN(dim, condition_dim, silu)
        self.ffn = MixFFN(dim, mlp_ratio)

    def forward(self, tokens: Tensor, grid: tuple[int, int], beta_prime: Tensor) -> Tensor:
        """``tokens`` (B, H*W, dim), ``beta_prime`` (B, condition_dim) -> (B, H*W, dim)."""
        tokens = tokens + self.attention(self.norm_attention(tokens, beta_prime), grid)
        return tokens + self.ffn(self.norm_ffn(tokens, beta_prime), grid)


class CrossAttentionViTBlock(nn.Module):
    """A plain ViT block with a cross-attention sub-layer to the scaled basis vectors (the ablation of Table 4)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, condition_dim: int) -> None:
        super().__init__()
        self.block = ViTBlock(dim, heads, mlp_ratio)
        self.norm_cross = nn.LayerNorm(dim, eps=1e-6)
        self.cross = CrossAttention(dim, condition_dim, heads)

    def forward(self, tokens: Tensor, grid: tuple[int, int], condition: Tensor) -> Tensor:
        """``tokens`` (B, H*W, dim), ``condition`` (B, n, condition_dim) -> (B, H*W, dim)."""
        tokens = tokens + self.cross(self.norm_cross(tokens), condition)
        return self.block(tokens, grid)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer with SegFormer's start: truncated normal of std 0.02, zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def map_to_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, H*W, C)``, row-major."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], x.shape[2] * x.shape[3], x.shape[1])


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """``(B, H*W, C)`` -> ``(B, C, H, W)`` (channels-last strides, no copy)."""
    return tokens.reshape(tokens.shape[0], *grid, tokens.shape[2]).permute(0, 3, 1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(head dim)) v for ``(B, N, dim)`` queries and ``(B, M, dim)`` keys and values."""
    batch, count, dim = query.shape
    query, key, value = (x.reshape(batch, -1, heads, dim // heads).transpose(1, 2) for x in (query, key, value))
    if query.device.type == "cpu" and (torch.is_grad_enabled() or query.dtype == torch.bfloat16):
        # On a CPU the fused kernel's backward, and in bf16 the kernel itself, costs more than the explicit product.
        weights = torch.softmax((query * (dim // heads) ** -0.5) @ key.transpose(-1, -2), dim=-1)
        mixed = weights.to(value.dtype) @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).reshape(batch, count, dim)
