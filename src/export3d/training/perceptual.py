"""Perceptual distances of Eq. 13: LPIPS with VGG16, or features of a face network trained on our renders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export3d.training.image_encoder import ImageEncoder


class FaceNetworkDistance(nn.Module):
    """Substitute for LPIPS that needs no outside weights: features of f_I's trunk, each pixel scaled to unit length.

    The network has seen only renders of heads, so it knows faces but not natural images; it is not LPIPS and its numbers
    cannot be compared with it.

    Args:
        encoder: trained image encoder, frozen here.
        stages: how many feature maps are compared, from the finest (stride 2) on.
    """

    def __init__(self, encoder: ImageEncoder, stages: int = 4) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.stages = stages

    def forward(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Two batches ``(B, 3, H, W)`` in [-1, 1] -> ``(B,)``; no gradient flows to `wanted`."""
        with torch.no_grad():
            targets = self.encoder.features(wanted, self.stages)
        distance = given.new_zeros(given.shape[0])
        for a, b in zip(self.encoder.features(given, self.stages), targets, strict=True):
            distance = distance + (_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2))
        return distance

    def train(self, mode: bool = True) -> FaceNetworkDistance:
        """Stays in evaluation mode: its batch norms keep the statistics of its own training."""
        return super().train(False)


def _unit(features: Tensor) -> Tensor:
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-3).rsqrt()
