"""Convolution blocks and the low-pass filter after pixel shuffle (Sec. 3.2)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """Convolution with half padding and SegFormer's start: normal with std sqrt(2 / fan_out), zero bias."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (kernel * kernel * out_channels)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def binomial_mean(image: Tensor) -> Tensor:
    """3x3 mean with the weights [1, 2, 1] / 4 along each axis: ``(B, C, H, W)`` -> the same shape, borders repeated."""
    taps, channels = image.new_tensor([0.25, 0.5, 0.25]), int(image.shape[1])
    kernel = (taps[:, None] * taps).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


class ResidualBlock(nn.Module):
    """x + conv(act(conv(x))), activation after the sum; no normalisation (a batch of 8 makes batch norm poor)."""

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels)
        nn.init.zeros_(self.second.weight)  # starts as the identity, so depth does not scale the signal
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        inner = self.second(F.leaky_relu(self.first(x), self.slope))
        return F.leaky_relu(x + inner, self.slope)


class ConvStack(nn.Sequential):
    """3x3 convolutions with LeakyReLU after each: `channels` = (in, c1, c2, ...)."""

    def __init__(self, channels: tuple[int, ...], slope: float, kernel: int = 3, first_stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(channels)):
            first = index == 0
            layers += [conv(before, after, kernel if first else 3, first_stride if first else 1), nn.LeakyReLU(slope)]
        super().__init__(*layers)


class GaussianLowPass(nn.Module):
    """Depthwise separable Gaussian with reflect padding; removes the period-2 grid that pixel shuffle leaves.

    `taps` = 3 and `sigma_px` = 0.849 give [1, 2, 1] / 4, whose gain at the Nyquist frequency is zero.
    """

    kernel: Tensor

    def __init__(self, taps: int = 3, sigma_px: float = 0.8493218) -> None:
        super().__init__()
        if taps % 2 == 0:
            raise ValueError(f"taps must be odd; got {taps}")
        position = torch.arange(taps, dtype=torch.float64) - taps // 2
        kernel = torch.exp(-0.5 * (position / sigma_px) ** 2)
        self.register_buffer("kernel", (kernel / kernel.sum()).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        channels, taps = x.shape[1], self.kernel.numel()
        half = taps // 2
        kernel = (self.kernel[:, None] * self.kernel[None, :]).to(x.dtype)
        weight = kernel.expand(channels, 1, taps, taps)
        return F.conv2d(F.pad(x, (half, half, half, half), mode="reflect"), weight, groups=channels)


def with_coordinates(source: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> (B, C + 2, H, W): append x (left to right) and y (top to bottom) in [-1, 1]."""
    batch, _, height, width = source.shape
    x = torch.linspace(-1.0, 1.0, width, device=source.device).expand(batch, 1, height, width)
    y = torch.linspace(-1.0, 1.0, height, device=source.device)[:, None].expand(batch, 1, height, width)
    return torch.cat([source, x.to(source.dtype), y.to(source.dtype)], dim=1)
