"""The small network that mends what enlarging leaves (not in the paper): lids, lips, teeth, hairline, silhouette."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.nn.conv import binomial_mean, conv
from export3d.portrait.layers import Choice, Layers

GAIN = 0.35
"""Share of its fine detail that the photograph gets on top after it was read, before the network says how much."""


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """The network; it works at half the output size, so its cost is that of a quarter of the pixels."""

    width: int = 16
    """Channels of its two hidden layers."""
    state: int = 8
    """Channels to which the last features of the super-resolution are reduced before they are enlarged."""
    slope: float = 0.1
    """Of its leaky ReLUs."""


class DetailNet(nn.Module):
    """Corrects the shares of the layers, the residual and the matte at the output size.

    Args:
        state_channels: of `Choice.state`.
        layers: K pictures to choose from.
    """

    def __init__(self, config: DetailConfig, state_channels: int, layers: int) -> None:
        super().__init__()
        self.config = config
        self.outputs = (1 + layers, 3, 1, 1)  # logits, residual, opacity, gain of the fine detail
        seen = 4 * 3 + 3 * layers + 3 + (1 + layers) + 3 + 1 + config.state
        self.state = conv(state_channels, config.state, kernel=1)
        self.first = conv(seen, config.width)
        self.second = nn.Conv2d(config.width, config.width, 3, padding=2, dilation=2)
        self.out = conv(config.width, sum(self.outputs))
        # Starts without a say, so a trained model may be grown by it.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    @property
    def is_silent(self) -> bool:
        """Whether it corrects nothing, as before its training."""
        return not bool(self.out.weight.any()) and not bool(self.out.bias.any())  # type: ignore[union-attr]

    def forward(self, choice: Choice, layers: Layers) -> tuple[Choice, Layers]:
        """The choice corrected, and the pictures with their fine detail strengthened or weakened.

        All that it says is enlarged from half the size, so it can invent no pattern of pixels: detail comes from the pictures.

        Args:
            choice: enlarged to the output size, ``(.., h, w)``, both even; but its state as the super-resolution left it.
            layers: pictures at the output size.
        """
        # These are smooth: every second pixel says it all.
        rgb, logits, residual, more, prior, opacity = (
            x[..., ::2, ::2] for x in (*choice[:-1], layers.prior, layers.opacity)
        )
        # Where a picture agrees with the raw image it may be trusted, with all its detail.
        apart = (layers.colours[..., ::2, ::2] - rgb[:, None]).abs().flatten(1, 2)
        smooth = torch.cat([rgb, logits + prior.log(), residual, opacity + more, apart], dim=1)
        clues = F.interpolate(self.state(choice.state), size=smooth.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([F.pixel_unshuffle(layers.colours[:, 0], 2), smooth, clues], dim=1)
        found = F.interpolate(self.said(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        logits, residual, more, gain = found.split(self.outputs, dim=1)
        mended = Choice(
            choice.rgb, choice.logits + logits, choice.residual + residual, choice.more + more, choice.state
        )
        return mended, sharper(layers, GAIN + gain)

    def said(self, x: Tensor) -> Tensor:
        """All that is seen ``(B, .., h/2, w/2)`` -> logits, residual, opacity and gain ``(B, 3 + layers + 3, h/2, w/2)``."""
        x = F.leaky_relu(self.first(x.contiguous(memory_format=torch.channels_last)), self.config.slope)
        return self.out(F.leaky_relu(self.second(x), self.config.slope)).float()


def sharper(layers: Layers, gain: Tensor | float) -> Layers:
    """The pictures with `gain` times the fine detail (itself less its 3x3 binomial mean) of the first one added to it."""
    own = layers.colours[:, 0]
    own = own + gain * (own - binomial_mean(own))
    return replace(layers, colours=torch.cat([own[:, None], layers.colours[:, 1:]], dim=1))
