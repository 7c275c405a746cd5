"""Super-resolution that may take its colours from pictures: the enlarged raw image and the portrait, read where the source
lookup says (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.model.superres import SuperResConfig, SuperResolution
from export3d.nn.conv import conv


@dataclass(frozen=True)
class Layers:
    """Pictures that the last block may take its colours from, at the output size (`lookup.py`).

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


class LayeredSuperResolution(SuperResolution):
    """A mixture of the enlarged raw image and of `layers` pictures, plus a residual, and the head's opacity at the output size.

    Args:
        layers: K pictures to choose from.
        clues: channels beside them that help to choose.
    """

    def __init__(self, config: SuperResConfig, in_channels: int, *, layers: int, clues: int) -> None:
        super().__init__(config, in_channels)
        self.layers = layers
        high = config.channels[1]
        self.high_second = conv(high + 3 * (1 + layers) + clues, high)
        self.high_rgb = conv(high, 3 + 2 + layers, kernel=1)  # RGB; shares; opacity
        nn.init.zeros_(self.high_rgb.weight)

    def choose(self, features: Tensor, rgb: Tensor, layers: Layers, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """The head's colours (B, 3, 2s, 2s) and opacity (B, 1, 2s, 2s)."""
        x, rgb = self.low_block(features, rgb, share)
        pictures = torch.cat([rgb[:, None], layers.colours], dim=1)  # (B, 1 + K, 3, 2s, 2s)
        x = torch.cat([x, pictures.flatten(1, 2).to(x.dtype), layers.clues.to(x.dtype)], dim=1)
        out = self.high_rgb(F.leaky_relu(self.high_second(x), self.config.slope)).float()
        residual, logits, more = out.split([3, 1 + self.layers, 1], dim=1)
        shares = torch.softmax(logits + layers.prior.log(), dim=1)
        image = (shares[:, :, None] * pictures).sum(dim=1) + residual
        return image, (layers.opacity + more).clamp(0.0, 1.0)
