"""Hybrid tri-plane generator G (Sec. 3.2, Eqs. 4-6): convolutions, EAdaLN-ViT, pixel shuffle, ViT and convolutions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.checks import check_choice, check_shape
from export3d.nn.conv import ConvStack, GaussianLowPass, ResidualBlock, conv, with_coordinates
from export3d.nn.transformer import CrossAttentionViTBlock, EAdaLNViTBlock, OverlapPatchMerge, ViTBlock, tokens_to_map


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Widths, depths and switches of G; the defaults are the paper's, or our decision where it is silent (docs/paper.md)."""

    image_size: int = 256
    """H = W of the portrait, pixels."""
    coordinate_channels: bool = True
    """Two extra input channels hold x and y in [-1, 1]."""
    stem_channels: tuple[int, ...] = (64, 128, 256)
    """Channels of the stride-2 stages in front of the tokens; the last is h/4 at H/8 in the paper."""
    stem_kernel: int = 7
    """Kernel of the first convolution."""
    stem_residual_blocks: int = 2
    """Residual blocks after each stage but the first."""
    hidden: int = 1024
    """h, the width of the tokens."""
    heads: int = 4
    """Attention heads in both block types (Sec. 6.2)."""
    mlp_ratio: int = 2
    """Width of Mix-FFN over h."""
    blocks: int = 5
    """EAdaLN-ViT blocks."""
    conditioning: str = "eadaln"
    """`eadaln` (Eq. 5) or `cross_attention` (Table 4's ablation)."""
    eadaln_silu: bool = True
    """SiLU before the modulation layer."""
    final_norm: bool = False
    """LayerNorm after the last EAdaLN-ViT block."""
    lowpass_taps: int = 3
    """Taps of the Gaussian after each pixel shuffle."""
    lowpass_sigma_px: float = 0.8493218
    """Its sigma in pixels; with 3 taps this is [1, 2, 1] / 4."""
    up_channels: tuple[int, ...] = (128, 128)
    """Channels after each bilinear doubling, from the shuffled map up to the plane resolution."""
    head_channels: tuple[int, ...] = (256, 128)
    """Convolutions in front of the second ViT (or of the output, without it)."""
    head_vit_dim: int = 1024
    """Width of the second, plain ViT block; 0 leaves it out."""
    head_vit_reduction: int = 2
    """Key/value reduction of the second ViT (LP3D: 2)."""
    tail_channels: tuple[int, ...] = (256, 128, 128)
    """Convolutions between the second ViT and the planes."""
    slope: float = 0.01
    """LeakyReLU slope."""

    def __post_init__(self) -> None:
        check_choice("generator.conditioning", self.conditioning, ("eadaln", "cross_attention"))
        if self.image_size % (self.token_stride):
            raise ValueError(f"generator.image_size must be a multiple of {self.token_stride}; got {self.image_size}")

    @property
    def in_channels(self) -> int:
        """RGB, and x and y where they join."""
        return 5 if self.coordinate_channels else 3

    @property
    def token_stride(self) -> int:
        """Image pixels per token along each side (16 in the paper)."""
        return 2 ** (len(self.stem_channels) + 1)

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        side = self.image_size // self.token_stride
        return side, side

    @property
    def plane_resolution(self) -> int:
        """Side of the planes that come out."""
        return self.token_grid[0] * 2 ** (1 + len(self.up_channels))


class TriPlaneGenerator(nn.Module):
    """Portrait and expression -> residual tri-planes.

    Args:
        beside: channels at the planes' resolution that join before the last convolutions (`forward`'s `beside`); 0: none.
    """

    def __init__(self, config: GeneratorConfig, plane_channels: int, condition_dim: int, *, beside: int = 0) -> None:
        super().__init__()
        self.config = config
        self.plane_channels = plane_channels
        self.stem = _stem(config, config.in_channels)
        self.merge = OverlapPatchMerge(config.stem_channels[-1], config.hidden)
        self.blocks = nn.ModuleList(_block(config, condition_dim) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.hidden, eps=1e-6) if config.final_norm else nn.Identity()
        self.lowpass = GaussianLowPass(config.lowpass_taps, config.lowpass_sigma_px)
        widths = (config.hidden // 4, *config.up_channels)
        self.ups = nn.ModuleList(conv(a, b) for a, b in itertools.pairwise(widths))
        self.low_out = conv(widths[-1], 3 * plane_channels) if config.head_vit_dim else nn.Identity()
        low_width = 3 * plane_channels if config.head_vit_dim else widths[-1]
        self.head = ConvStack((low_width + beside, *config.head_channels), config.slope)
        tail_in = config.head_channels[-1]
        if config.head_vit_dim:
            self.head_merge = OverlapPatchMerge(tail_in, config.head_vit_dim)
            self.head_vit = ViTBlock(config.head_vit_dim, config.heads, config.mlp_ratio, config.head_vit_reduction)
            tail_in = config.head_vit_dim // 4 + low_width
        self.tail = ConvStack((tail_in, *config.tail_channels), config.slope)
        self.to_planes = conv((tail_in, *config.tail_channels)[-1], 3 * plane_channels)

    def prepared(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] with its coordinate channels (B, 3 or 5, H, W)."""
        size = self.config.image_size
        check_shape("source", source, None, 3, size, size)
        x = with_coordinates(source) if self.config.coordinate_channels else source
        return x.contiguous(memory_format=torch.channels_last)

    def encode(self, source: Tensor) -> Tensor:
        """What depends on the portrait only: ``source`` (B, 3, H, W) in [-1, 1] -> tokens (B, N, h)."""
        return self.merge(self.stem(self.prepared(source)))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Eqs. 5-6: tokens and the condition -> residual planes (B, 3, C, P, P) (Eq. 4).

        ``condition`` is beta' (B, d), or for cross-attention the scaled basis (B, n, d).
        """
        return self.as_planes(self.features(tokens, condition))

    def features(self, tokens: Tensor, condition: Tensor, beside: Tensor | None = None) -> Tensor:
        """What the planes are a linear map of: (B, C', P, P). `beside` (B, C, P, P) joins before the last convolutions."""
        grid = self.config.token_grid
        for block in self.blocks:
            tokens = block(tokens, grid, condition)  # Eq. 5
        x = self._shuffle(self.norm(tokens), grid)  # (B, h/4, 2 * grid)
        for up in self.ups:
            x = F.relu(up(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)))
        low = self.low_out(x)  # (B, 3C, P, P) or (B, up_channels[-1], P, P)
        x = self.head(low if beside is None else torch.cat([low, beside], dim=1))
        if self.config.head_vit_dim:
            side = x.shape[-1] // 2
            head_tokens = self.head_vit(self.head_merge(x), (side, side))
            x = torch.cat([self._shuffle(head_tokens, (side, side)), low], dim=1)
        return self.tail(x)

    def as_planes(self, features: Tensor) -> Tensor:
        """`features` -> residual planes (B, 3, C, P, P), float32."""
        planes = self.to_planes(features).float()
        return planes.reshape(planes.shape[0], 3, self.plane_channels, *planes.shape[-2:])

    def _shuffle(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pixel shuffle by 2, then the low-pass that removes its grid."""
        return self.lowpass(F.pixel_shuffle(tokens_to_map(tokens, grid), 2))


def _stem(config: GeneratorConfig, in_channels: int) -> nn.Sequential:
    """Strided convolutions, each stage after the first followed by residual blocks."""
    layers: list[nn.Module] = []
    before = in_channels
    for index, width in enumerate(config.stem_channels):
        layers += [conv(before, width, config.stem_kernel if index == 0 else 3, stride=2), nn.LeakyReLU(config.slope)]
        if index > 0:
            layers += [ResidualBlock(width, config.slope) for _ in range(config.stem_residual_blocks)]
        before = width
    return nn.Sequential(*layers)


def _block(config: GeneratorConfig, condition_dim: int) -> nn.Module:
    if config.conditioning == "cross_attention":
        return CrossAttentionViTBlock(config.hidden, config.heads, config.mlp_ratio, condition_dim)
    return EAdaLNViTBlock(config.hidden, config.heads, config.mlp_ratio, condition_dim, config.eadaln_silu)
