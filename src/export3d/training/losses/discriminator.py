"""Dual, camera-conditioned discriminator of phase 2 (Sec. 3.4; StyleGAN2-ADA's residual network with EG3D's two inputs)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.checks import check_shape

CAMERA_DIM = 25


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes; the defaults are EG3D's."""

    channel_base: int = 32768
    """Channels at side s are channel_base / s, at most channel_max."""
    channel_max: int = 512
    """Upper bound of the channels, also the length of the camera code."""
    mapping_layers: int = 8
    """Fully connected layers between the camera and its code."""
    group_size: int = 4
    """Samples over which the mini-batch standard deviation is taken."""

    def __post_init__(self) -> None:
        if min(self.channel_base, self.channel_max, self.group_size) < 1 or self.mapping_layers < 0:
            raise ValueError(f"discriminator sizes must be positive; got {self}")

    def channels(self, side: int) -> int:
        """Channels of the features at `side` pixels."""
        return max(min(self.channel_base // side, self.channel_max), 1)


class EqualizedLinear(nn.Module):
    """Linear layer whose weights are stored with unit variance and scaled in use (StyleGAN2).

    Args:
        rate: learning-rate multiplier.
        activate: LeakyReLU 0.2 with gain sqrt(2) behind the layer.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._gain = rate / math.sqrt(inputs)
        self._rate = rate
        self._activate = activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self._gain, self.bias * self._rate)
        return _activation(y) if self._activate else y


class EqualizedConv(nn.Module):
    """Convolution with scaled unit-variance weights; with `down`, a [1, 3, 3, 1] low-pass and stride 2."""

    lowpass: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        down: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self._kernel = kernel
        self._down = down
        self._activate = activate
        self._gain = gain
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
        self.register_buffer("lowpass", taps[:, None] * taps[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self._scale
        pad = self._kernel // 2
        if self._down:
            # Low-pass first; pads keep output pixel i centred on input pixels 2i and 2i + 1.
            channels = x.shape[1]
            edge = pad + 1
            x = F.conv2d(
                F.pad(x, (edge, edge, edge, edge)), self.lowpass.to(x.dtype).expand(channels, 1, 4, 4), groups=channels
            )
            y = F.conv2d(x, weight.to(x.dtype), self.bias, stride=2)
        else:
            y = F.conv2d(x, weight.to(x.dtype), self.bias, padding=pad)
        return (_activation(y) if self._activate else y) * self._gain


class ResidualDown(nn.Module):
    """Two convolutions (the second halves the side) plus a 1x1 short cut, both with gain sqrt(1/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        gain = math.sqrt(0.5)
        self.first = EqualizedConv(inputs, inputs, 3)
        self.second = EqualizedConv(inputs, outputs, 3, down=True, gain=gain)
        self.shortcut = EqualizedConv(inputs, outputs, 1, down=True, bias=False, activate=False, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + self.shortcut(x)


class DualDiscriminator(nn.Module):
    """Judges the final and the raw image together, given the camera.

    The raw image is enlarged to the final size and joined to it as three more channels, so the discriminator also sees
    whether the two agree (EG3D).

    Args:
        image_side: side of the final image (or window) in pixels: a power of two, at least 8.
    """

    def __init__(self, config: DiscriminatorConfig, image_side: int) -> None:
        super().__init__()
        if image_side < 8 or image_side & (image_side - 1):
            raise ValueError(f"the discriminator's image side must be a power of two, at least 8; got {image_side}")
        self.config = config
        self.image_side = image_side
        self.from_rgb = EqualizedConv(6, config.channels(image_side), 1)
        sides = [image_side >> i for i in range(int(math.log2(image_side)) - 2)]  # down to 8
        self.blocks = nn.ModuleList(ResidualDown(config.channels(side), config.channels(side // 2)) for side in sides)
        last = config.channels(4)
        self.last_conv = EqualizedConv(last + 1, last, 3)
        self.last_linear = EqualizedLinear(last * 16, last, activate=True)
        code = config.channel_max
        self.to_code = EqualizedLinear(last, code)
        self.embed_camera = EqualizedLinear(CAMERA_DIM, code)
        self.mapping = nn.ModuleList(
            EqualizedLinear(code, code, rate=0.01, activate=True) for _ in range(config.mapping_layers)
        )

    def forward(self, image: Tensor, raw: Tensor, camera: Tensor) -> Tensor:
        """Logits ``(B,)``, positive for real.

        Args:
            image: ``(B, 3, s, s)`` in [-1, 1].
            raw: ``(B, 3, r, r)`` in [-1, 1], r <= s.
            camera: ``(B, 25)``.
        """
        check_shape("image", image, None, 3, self.image_side, self.image_side)
        check_shape("camera", camera, image.shape[0], CAMERA_DIM)
        raw = F.interpolate(raw, size=image.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
        x = self.from_rgb(torch.cat([image, raw], dim=1))
        for block in self.blocks:
            x = block(x)
        x = self.last_conv(torch.cat([x, self._spread(x)], dim=1))
        features = self.to_code(self.last_linear(x.flatten(1)))  # (B, code)
        code = self._camera_code(camera)
        return (features * code).sum(dim=1) / math.sqrt(code.shape[1])

    def _camera_code(self, camera: Tensor) -> Tensor:
        code = self.embed_camera(camera)
        code = code * (code.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            code = layer(code)
        return code

    def _spread(self, x: Tensor) -> Tensor:
        """Mini-batch standard deviation as one more channel: ``(B, 1, H, W)``."""
        batch = x.shape[0]
        group = math.gcd(batch, self.config.group_size)
        grouped = x.float().reshape(group, batch // group, *x.shape[1:])
        spread = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (B / group,)
        return spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)


def _activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)
