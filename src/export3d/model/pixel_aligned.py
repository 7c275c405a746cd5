"""Pixel-aligned source features: each sample point looks its own place up in the portrait (not in the paper; off there).

A point on a driving ray is moved by an offset read from the tri-plane features (to where that piece of skin was in the
source's expression), projected into the source view, and the portrait's features are read there; a gate read from the
same tri-plane features fades them out where the copy is wrong or the point was hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.nn.conv import ConvStack, conv


@dataclass(frozen=True, kw_only=True)
class PixelAlignedConfig:
    """The pixel-aligned branch."""

    enabled: bool = False
    """Join features of the source image to the tri-plane features. Not in the paper."""
    channels: int = 13
    """Learned channels beside the 3 of RGB."""
    width: int = 32
    """Width of the small encoder; it halves the resolution once."""
    offset: bool = True
    """Read an offset per point, so that the lookup can follow the expression."""
    gate: bool = True
    """Read a gate per point."""
    offset_scale: float = 0.05
    """Scene units per unit of the offset layer (0.05 = 2.4 cm)."""


class PixelAligned(nn.Module):
    """Encoder of the source image and the guided lookup."""

    def __init__(self, config: PixelAlignedConfig, plane_channels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConvStack((3, config.width, config.width), 0.1, kernel=5, first_stride=2)
        self.to_features = conv(config.width, config.channels)
        self.guide = nn.Linear(plane_channels, 4)  # offset (3) and gate logit (1)
        nn.init.zeros_(self.guide.weight)
        nn.init.zeros_(self.guide.bias)
        with torch.no_grad():
            self.guide.bias[3] = 2.0  # starts open

    @property
    def out_channels(self) -> int:
        """Channels that the lookup adds: learned features and RGB."""
        return self.config.channels + 3

    def encode(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] -> feature map (B, out_channels, H/2, W/2)."""
        features = self.to_features(self.encoder(source))
        return torch.cat([features.float(), F.avg_pool2d(source.float(), 2)], dim=1)

    def lookup(self, feature_map: Tensor, source_camera: Camera, points: Tensor, plane_features: Tensor) -> Tensor:
        """Features of each point in the source view.

        Args:
            feature_map: ``(B, C, h, w)`` of `encode`.
            source_camera: the portrait's camera.
            points: ``(B, N, 3)`` world positions.
            plane_features: ``(B, N, plane channels)`` of the same points.

        Returns:
            ``(B, N, C)``.
        """
        guide = self.guide(plane_features).float()
        if self.config.offset:
            points = points + self.config.offset_scale * torch.tanh(guide[..., :3])
        position, _ = source_camera.project(points)
        features = F.grid_sample(
            feature_map, position[:, None] * 2.0 - 1.0, padding_mode="border", align_corners=False
        )[:, :, 0].transpose(1, 2)
        return features * torch.sigmoid(guide[..., 3:]) if self.config.gate else features
