"""Super-resolution of the raw image (Sec. 3.3): EG3D's two blocks with plain convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.nn.conv import conv


@dataclass(frozen=True, kw_only=True)
class SuperResConfig:
    """Two blocks of two convolutions; the second doubles the size."""

    start_size: int | None = 128
    """Both inputs are resized to this size first (EG3D Hybrid4X: 128 if smaller); None keeps the raw size."""
    channels: tuple[int, int] = (128, 64)
    """Channels of the block before and after the upsampling."""
    slope: float = 0.2
    """LeakyReLU slope (StyleGAN2: 0.2)."""


@dataclass(frozen=True)
class Layers:
    """Pictures that the last block may take its colours from, at the output size (`source_lookup.py`).

    Attributes:
        colours: ``(B, K, 3, s, s)`` in [-1, 1].
        prior: ``(B, 1 + K, s, s)`` > 0: how much the enlarged raw image and each picture count before anything is learned.
        clues: ``(B, Q, s, s)`` what else helps to choose.
        opacity: ``(B, 1, s, s)`` of the head, enlarged.
    """

    colours: Tensor
    prior: Tensor
    clues: Tensor
    opacity: Tensor


class SuperResolution(nn.Module):
    """Raw features -> image of twice the start size, with an RGB skip path.

    With `layers` pictures to choose from (and `clues` channels beside them) the output is a mixture of the enlarged raw
    image and those pictures plus a residual, and comes with the head's opacity at the output size.
    """

    def __init__(self, config: SuperResConfig, in_channels: int, layers: int = 0, clues: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layers = layers
        low, high = config.channels
        self.low_first = conv(in_channels, low)
        self.low_second = conv(low, low)
        self.low_rgb = conv(low, 3, kernel=1)
        self.up = nn.ConvTranspose2d(low, high, 4, stride=2, padding=1)  # cheaper than upsample-then-convolve
        nn.init.normal_(self.up.weight, std=(2.0 / (4 * low)) ** 0.5)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]
        seen = 3 * (1 + layers) + clues if layers else 0
        self.high_second = conv(high + seen, high)
        self.high_rgb = conv(high, 3 + (2 + layers if layers else 0), kernel=1)  # RGB; shares; opacity
        nn.init.zeros_(self.low_rgb.weight)  # starts as plain bilinear enlargement of the raw image
        nn.init.zeros_(self.high_rgb.weight)

    def forward(self, features: Tensor, rgb: Tensor, share: float = 1.0) -> Tensor:
        """``features`` (B, C, r, r) and ``rgb`` (B, 3, r, r) in [-1, 1] -> (B, 3, 2s, 2s), s = the start size or r.

        For a module without layers.

        `share` is the side of a window over the side of the whole raw image; the start size shrinks with it, so that a
        window is enlarged as much as the whole image is.
        """
        x, rgb = self._low_block(features, rgb, share)
        x = F.leaky_relu(self.high_second(x), self.config.slope)
        return rgb + self.high_rgb(x).float()

    def choose(self, features: Tensor, rgb: Tensor, layers: Layers, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `forward`, for a module with layers: the head's colours (B, 3, 2s, 2s) and opacity (B, 1, 2s, 2s)."""
        x, rgb = self._low_block(features, rgb, share)
        pictures = torch.cat([rgb[:, None], layers.colours], dim=1)  # (B, 1 + K, 3, 2s, 2s)
        x = torch.cat([x, pictures.flatten(1, 2).to(x.dtype), layers.clues.to(x.dtype)], dim=1)
        out = self.high_rgb(F.leaky_relu(self.high_second(x), self.config.slope)).float()
        residual, logits, more = out.split([3, 1 + self.layers, 1], dim=1)
        shares = torch.softmax(logits + layers.prior.log(), dim=1)
        image = (shares[:, :, None] * pictures).sum(dim=1) + residual
        return image, (layers.opacity + more).clamp(0.0, 1.0)

    def _low_block(self, features: Tensor, rgb: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The first block and the doubling: features and RGB at the output size."""
        start = None if self.config.start_size is None else round(self.config.start_size * share)
        if start is not None and start != rgb.shape[-1]:
            features, rgb = (_resize(x, start) for x in (features, rgb))
        x = F.leaky_relu(self.low_first(features), self.config.slope)
        x = F.leaky_relu(self.low_second(x), self.config.slope)
        rgb = rgb + self.low_rgb(x).float()
        return F.leaky_relu(self.up(x), self.config.slope), upsample2(rgb)


def upsample2(x: Tensor) -> Tensor:
    """Bilinear enlargement by 2 (pixel centres aligned by area)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _resize(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
