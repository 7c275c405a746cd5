"""Super-resolution of the raw image (Sec. 3.3): EG3D's two blocks with plain convolutions."""

from __future__ import annotations

from dataclasses import dataclass

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


class SuperResolution(nn.Module):
    """Raw features -> image of twice the start size, with an RGB skip path."""

    def __init__(self, config: SuperResConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        low, high = config.channels
        self.low_first = conv(in_channels, low)
        self.low_second = conv(low, low)
        self.low_rgb = conv(low, 3, kernel=1)
        self.up = nn.ConvTranspose2d(low, high, 4, stride=2, padding=1)  # cheaper than upsample-then-convolve
        nn.init.normal_(self.up.weight, std=(2.0 / (4 * low)) ** 0.5)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]
        self.high_second = conv(high, high)
        self.high_rgb = conv(high, 3, kernel=1)
        nn.init.zeros_(self.low_rgb.weight)  # starts as plain bilinear enlargement of the raw image
        nn.init.zeros_(self.high_rgb.weight)

    def forward(self, features: Tensor, rgb: Tensor, share: float = 1.0) -> Tensor:
        """``features`` (B, C, r, r) and ``rgb`` (B, 3, r, r) in [-1, 1] -> (B, 3, 2s, 2s), s = the start size or r.

        `share` is the side of a window over the side of the whole raw image; the start size shrinks with it, so that a
        window is enlarged as much as the whole image is.
        """
        x, rgb = self.low_block(features, rgb, share)
        x = F.leaky_relu(self.high_second(x), self.config.slope)
        return rgb + self.high_rgb(x).float()

    def low_block(self, features: Tensor, rgb: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The first block and the doubling: features and RGB at the output size."""
        start = None if self.config.start_size is None else round(self.config.start_size * share)
        if start is not None and start != rgb.shape[-1]:
            features, rgb = (resize(x, start) for x in (features, rgb))
        x = F.leaky_relu(self.low_first(features), self.config.slope)
        x = F.leaky_relu(self.low_second(x), self.config.slope)
        rgb = rgb + self.low_rgb(x).float()
        return F.leaky_relu(self.up(x), self.config.slope), upsample2(rgb)


def upsample2(x: Tensor) -> Tensor:
    """Bilinear enlargement by 2 (pixel centres aligned by area)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def resize(image: Tensor, size: int) -> Tensor:
    """Antialiased bilinear resize of ``(B, C, H, W)`` to a square of `size`."""
    if image.shape[-1] == size:
        return image
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
