"""Decoder of the tri-plane features into density and colour (Eq. 8, Sec. 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COLOUR_MARGIN = 0.001
"""Colours are sigmoid(x) * (1 + 2 margin) - margin (mip-NeRF, EG3D), so that pure black and white can be reached."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The radiance decoder."""

    hidden: int = 64
    """Width of the hidden layer (EG3D: 64)."""
    colour_channels: int = 32
    """Rendered channels; the first three are the raw RGB, all of them feed the super-resolution (EG3D: 32; 3 = RGB only)."""
    shared_first_layer: bool = True
    """True: one layer to the hidden features, then separate layers for colour and density. False: two separate
    two-layer networks."""
    density_bias: float = 0.0
    """Start of the density layer's bias."""


class RadianceDecoder(nn.Module):
    """Fully connected layers with soft-plus; separate layers predict colour and density (Sec. 6.2).

    No activation stands before the first layer, so that it can be folded into the planes.
    """

    def __init__(self, config: DecoderConfig, in_features: int) -> None:
        super().__init__()
        self.config = config
        self.first = _layer(in_features, config.hidden)
        self.first_colour = None if config.shared_first_layer else _layer(in_features, config.hidden)
        self.to_density = _layer(config.hidden, 1)
        self.to_colour = _layer(config.hidden, config.colour_channels)
        nn.init.constant_(self.to_density.bias, config.density_bias)

    def density(self, features: Tensor, clues: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features ``(B, P, F)`` -> raw density ``(B, P)`` and the state that `colour` needs ``(B, P, hidden)``.

        `clues` ``(B, P, hidden)`` join the hidden features before their activation (`source_depth.py`).
        """
        more = 0.0 if clues is None else clues
        hidden = F.softplus(self.first(features) + more)
        density = self.to_density(hidden)[..., 0].float()
        if self.first_colour is not None:
            hidden = F.softplus(self.first_colour(features) + more)
        return density, hidden

    def colour(self, state: Tensor) -> Tensor:
        """State ``(B, P, hidden)`` -> colours ``(B, P, colour_channels)`` in about [0, 1]."""
        return torch.sigmoid(self.to_colour(state).float()) * (1.0 + 2.0 * COLOUR_MARGIN) - COLOUR_MARGIN


def _layer(in_features: int, out_features: int) -> nn.Linear:
    """Weights normal(0, 1 / fan_in), bias 0: EG3D's equalised layer at learning-rate multiplier 1, scale folded in."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=in_features**-0.5)
    nn.init.zeros_(layer.bias)
    return layer
