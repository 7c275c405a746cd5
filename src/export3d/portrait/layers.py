"""Super-resolution that may take its colours from pictures: the enlarged raw image and the portrait, read where the source
lookup says (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.model.superres import SuperResConfig, SuperResolution
from export3d.nn.conv import binomial_mean, conv

AGREEMENT = 0.12
"""Mean difference of colours in [-1, 1] at which two pictures still agree by 1 / e."""

GAIN = 0.35
"""Share of its fine detail that the photograph gets on top after it was read at its own size."""

_LEAST_SHARE = 1e-4


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


class Choice(NamedTuple):
    """What the last block says of the mixture; smooth enough to be enlarged (`compose.py`)."""

    rgb: Tensor
    """``(B, 3, s, s)`` the enlarged raw image in [-1, 1]."""
    logits: Tensor
    """``(B, 1 + K, s, s)`` of the shares of raw image and pictures, without the prior."""
    residual: Tensor
    """``(B, 3, s, s)`` added to the mixture."""
    more: Tensor
    """``(B, 1, s, s)`` added to the opacity."""


def trusting(choice: Choice, layers: Layers) -> Choice:
    """The choice in which the first picture has the raw image's share wherever both agree: it says the same in more detail."""
    prior = layers.prior.log()
    raw, own, *others = torch.softmax(choice.logits.float() + prior, dim=1).split(1, dim=1)
    apart = (layers.colours[:, 0] - choice.rgb).float().abs().mean(dim=1, keepdim=True)
    taken = raw * torch.exp(-(apart / AGREEMENT).square())
    shares = torch.cat([raw - taken, own + taken, *others], dim=1)
    return choice._replace(logits=shares.clamp_min(_LEAST_SHARE).log() - prior)


def mixed(choice: Choice, layers: Layers) -> tuple[Tensor, Tensor]:
    """The head's colours (B, 3, s, s) and opacity (B, 1, s, s); choice and layers are of one size."""
    shares = torch.softmax(choice.logits + layers.prior.log(), dim=1)
    image = choice.residual
    for share, picture in zip(shares.split(1, dim=1), (choice.rgb, *layers.colours.unbind(1)), strict=True):
        image = torch.addcmul(image, share, picture)
    return image, (layers.opacity + choice.more).clamp(0.0, 1.0)


def sharper(layers: Layers, gain: float) -> Layers:
    """The pictures with `gain` times the fine detail (itself less its 3x3 binomial mean) of the first one added to it."""
    own = layers.colours[:, 0]
    own = own + gain * (own - binomial_mean(own))
    return replace(layers, colours=torch.cat([own[:, None], layers.colours[:, 1:]], dim=1))


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

    def choose(self, features: Tensor, rgb: Tensor, layers: Layers, share: float = 1.0) -> Choice:
        """The mixture of `layers`, which have the output size."""
        x, rgb = self.low_block(features, rgb, share)
        seen = torch.cat([rgb, layers.colours.flatten(1, 2), layers.clues], dim=1).to(x.dtype)
        # Laid out as the features are: the convolution would copy all of them otherwise.
        x = torch.cat([x, seen.contiguous(memory_format=torch.channels_last)], dim=1)
        x = F.leaky_relu(self.high_second(x), self.config.slope)
        residual, logits, more = self.high_rgb(x).float().split([3, 1 + self.layers, 1], dim=1)
        return Choice(rgb, logits, residual, more)
