"""The paper's generator with what the shipped model adds: a high-resolution branch and motion planes (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export3d.model.generator import GeneratorConfig, TriPlaneGenerator
from export3d.nn.conv import ConvStack, conv

_CONDITION_GAIN = 8.0  # beta' has d components of size 1 / sqrt(d) times its length


@dataclass(frozen=True, kw_only=True)
class PortraitGeneratorConfig(GeneratorConfig):
    """The paper's generator and two branches more."""

    highres_channels: tuple[int, ...] = (24, 32)
    """Channels of the branch that carries the portrait's detail to the planes at H/2 (LP3D's E_high)."""
    motion_basis: int = 24
    """Basis fields of the motion planes, from which the source lookup reads where a point was."""


class PortraitGenerator(TriPlaneGenerator):
    """Portrait and condition -> residual tri-planes and three displacement channels beside them."""

    config: PortraitGeneratorConfig

    def __init__(self, config: PortraitGeneratorConfig, plane_channels: int, condition_dim: int) -> None:
        widths = config.highres_channels
        super().__init__(config, plane_channels, condition_dim, beside=widths[-1])
        self.highres = ConvStack((config.in_channels, *widths), config.slope, config.stem_kernel, 2)
        self.motion = MotionPlanes(self.to_planes.in_channels, condition_dim, config.motion_basis)

    def detail(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] -> the high-resolution features (B, C, P, P)."""
        return self.highres(self.prepared(source))

    def drive(self, tokens: Tensor, detail: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, N, h), `detail` and the condition (B, d) -> (B, 3, C + 3, P, P): residual planes, then x, y, z."""
        x = self.features(tokens, condition, detail)
        return torch.cat([self.as_planes(x), self.motion(x, condition)], dim=2)


class MotionPlanes(nn.Module):
    """Displacement planes as a sum of basis fields of the portrait, weighted by the expression (not in the paper).

    As in a blendshape model the fields say where the face moves and the weights how far, so the expression need not be
    carried through the tokens point by point.
    """

    def __init__(self, in_channels: int, condition_dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.fields = conv(in_channels, 9 * count, kernel=1)
        self.weights = nn.Sequential(nn.Linear(condition_dim, 64), nn.GELU(), nn.Linear(64, count))
        nn.init.zeros_(self.weights[2].weight)  # type: ignore[arg-type]  # starts without motion
        nn.init.zeros_(self.weights[2].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """``features`` (B, C, P, P) and the condition of G (B, d) -> (B, 3 planes, 3 axes, P, P)."""
        weights = self.weights(_CONDITION_GAIN * condition).float()  # (B, count)
        batch, channels, *size = features.shape
        # The sum over the fields goes into the kernel, so that the fields themselves are never made.
        assert self.fields.bias is not None
        kernels = self.fields.weight.reshape(9, self.count, channels)
        with torch.autocast(features.device.type, enabled=False):
            kernel = torch.einsum("bk,pkc->bcp", weights, kernels)
            bias = torch.einsum("bk,pk->bp", weights, self.fields.bias.reshape(9, self.count))
            texels = features.float().permute(0, 2, 3, 1).reshape(batch, -1, channels)
            planes = torch.baddbmm(bias[:, None], texels, kernel)  # (B, P * P, 9)
        return planes.transpose(1, 2).reshape(batch, 3, 3, *size)
