"""The small network that mends what enlarging leaves (not in the paper): lids, lips, teeth, hairline, silhouette."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.nn.conv import binomial_mean, conv
from export3d.portrait.layers import Choice, Layers, Mixture, mixed, trusting

GAIN = 0.35
"""Share of its fine detail that the photograph gets on top after it was read, before the network says how much."""


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """The network; it works at half the model's size, whatever the size of the picture."""

    width: int = 32
    """Channels of its hidden layers."""
    state: int = 8
    """Channels to which the last features of the super-resolution are reduced before it reads them."""
    reach: float = 0.012
    """How far it may move the places at which the photograph is read, in sides of the picture."""
    slope: float = 0.1
    """Of its leaky ReLUs."""


class DetailNet(nn.Module):
    """Corrects what the super-resolution says of the mixture, for pictures with the photograph's detail.

    Args:
        state_channels: of `Choice.state`.
        layers: K pictures to choose from.
    """

    def __init__(self, config: DetailConfig, state_channels: int, layers: int) -> None:
        super().__init__()
        self.config = config
        self.outputs = (1 + layers, 3, 1, 1, 2)  # logits, residual, opacity, gain of the fine detail, shift
        seen = 3 + 3 * layers + (1 + layers) + 1 + config.state
        self.state = conv(state_channels, config.state, kernel=1)
        self.first = conv(seen, config.width, stride=2)
        self.second = conv(config.width, config.width)
        self.third = nn.Conv2d(config.width, config.width, 3, padding=2, dilation=2)
        self.out = conv(config.width, sum(self.outputs))
        # Starts without a say, so a trained model may be grown by it.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, choice: Choice, layers: Layers) -> Mixture:
        """How the photograph is read and mixed.

        All that it says is enlarged from few places, so it can invent no pattern of pixels: detail comes from the pictures.

        Args:
            choice: as the super-resolution left it, ``(B, .., s, t)``, both even.
            layers: what it chose from.
        """
        trusted = trusting(choice, layers)
        image, opacity = mixed(choice, layers)
        shares = torch.softmax(trusted.logits + layers.prior.log(), dim=1)
        # Where a picture agrees with the image it may be trusted, with all its detail.
        apart = (layers.colours - image[:, None]).flatten(1, 2)
        seen = [image, apart, shares, opacity, self.state(choice.state)]
        found = self.said(torch.cat([x.to(choice.state.dtype) for x in seen], dim=1))
        found = F.interpolate(found, size=opacity.shape[-2:], mode="bilinear", align_corners=False)
        logits, residual, more, gain, shift = found.split(self.outputs, dim=1)
        return Mixture(
            rgb=choice.rgb,
            logits=trusted.logits + logits,
            residual=choice.residual + residual,
            more=choice.more + more,
            gain=GAIN + gain,
            shift=self.config.reach * torch.tanh(shift),
        )

    def said(self, x: Tensor) -> Tensor:
        """All that is seen ``(B, .., s, t)`` -> logits, residual, opacity, gain and shift ``(B, 3 + layers + 5, s/2, t/2)``."""
        x = F.leaky_relu(self.first(x.contiguous(memory_format=torch.channels_last)), self.config.slope)
        x = F.leaky_relu(self.second(x), self.config.slope)
        return self.out(F.leaky_relu(self.third(x), self.config.slope)).float()


def sharper(layers: Layers, gain: Tensor | float) -> Layers:
    """The pictures with `gain` times the fine detail (itself less its 3x3 binomial mean) of the first one added to it."""
    own = layers.colours[:, 0]
    own = own + gain * (own - binomial_mean(own))
    return replace(layers, colours=torch.cat([own[:, None], layers.colours[:, 1:]], dim=1))
