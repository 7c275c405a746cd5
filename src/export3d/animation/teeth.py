"""What is seen between open lips: two rows of teeth, gums, the tongue and the dark behind them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UPPER, LOWER = (0.0, 0.165, 0.295, 0.405), (0.0, 0.10, 0.21, 0.33)
"""Where one tooth ends and the next begins, from the middle outwards, in widths of a shut mouth of 5 cm."""

_WHITE, _GUM, _TONGUE, _DARK = (0.92, 0.88, 0.8), (0.71, 0.45, 0.42), (0.59, 0.32, 0.31), (0.19, 0.085, 0.08)
"""Colours in full light."""

_LIGHTEST, _FULL = 0.95, 1.0
"""The light in which a face is seen is that of its lightest places, this quantile; in full light they have this grey."""


@dataclass(frozen=True)
class Row:
    """A row of teeth.

    Attributes:
        ends: `UPPER` or `LOWER`.
        edge: where it ends in the middle, t.
        arch: how much further up it ends at the sides, per s^2.
        half: s of its last tooth.
        light: of its teeth.
    """

    ends: tuple[float, ...]
    edge: float
    arch: float
    half: float
    light: float

    def seen(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether a tooth is there, 0 to 1, how far it is from its edge, and its light; `t` grows towards the gums."""
        ends = torch.tensor([sign * end for end in self.ends for sign in (-1.0, 1.0)])
        between = (s[..., None] - ends).abs().amin(dim=-1)
        deep = t - self.edge - self.arch * s * s - 0.014 * torch.exp(-((between / 0.022) ** 2))
        there = (deep / _SOFT + 0.5).clamp(0.0, 1.0) * ((self.half - s.abs()) / 0.05).clamp(0.0, 1.0)
        light = (1.0 - 0.13 * torch.exp(-((between / 0.009) ** 2))) * (1.0 - 0.65 * (s / self.half) ** 2)
        return there, deep, self.light * light * (0.9 + 0.1 * (deep / 0.1).clamp(0.0, 1.0))


_SOFT = 0.02
"""Width of a tooth's soft edge."""

_UPPER, _LOWER = Row(UPPER, -0.035, 0.3, 0.47, 1.0), Row(LOWER, -0.045, 0.25, 0.4, 0.66)
_GUMS = 0.2
"""So far from their edges teeth end in gums."""


@dataclass(frozen=True)
class Inside:
    """The inside of one person's mouth.

    Attributes:
        teeth, gum, tongue, dark: ``(3,)`` in [0, 1].
    """

    teeth: Tensor
    gum: Tensor
    tongue: Tensor
    dark: Tensor

    @staticmethod
    def of(face: Tensor) -> Inside:
        """In the light in which a face ``(3, h, w)`` in [0, 1] is seen."""
        grey = torch.tensor([0.299, 0.587, 0.114]) @ face.flatten(1)
        skin = face.flatten(1).median(dim=1).values
        light = min(1.0, float(grey.quantile(_LIGHTEST)) / _FULL) * (0.7 + 0.3 * skin / skin.mean().clamp_min(1e-3))
        return Inside(*(light * torch.tensor(colour) for colour in (_WHITE, _GUM, _TONGUE, _DARK)))

    def seen(self, skull: tuple[Tensor, Tensor], edges: tuple[Tensor, Tensor, Tensor], opening: Tensor) -> Tensor:
        """Colours ``(3, h, w)`` in [0, 1].

        Args:
            skull: s and t of the pixels ``(h, w)`` before the upper teeth, which stay with the skull.
            edges: t of the upper lip (negative below its edge), s and t of the lower lip, which the jaw takes along.
            opening: ``(h, w)`` between the lips.
        """
        under, s, t = edges
        seen = self.dark[:, None, None].expand(3, *s.shape)
        wide = ((opening - 0.1) / 0.1).clamp(0.0, 1.0) * ((0.36 - s.abs()) / 0.08).clamp(0.0, 1.0)
        low = ((0.35 * opening - t + 0.02) / 0.05).clamp(0.0, 1.0)
        tongue = self.tongue[:, None, None] * (0.55 + 0.3 * (1.0 - t / 0.2).clamp(0.0, 1.0))
        seen = torch.lerp(seen, tongue, 0.9 * wide * low)
        for row, along, up in ((_LOWER, s, -t), (_UPPER, *skull)):
            there, deep, light = row.seen(along, up)
            gums = there * ((deep - _GUMS) / _SOFT + 0.5).clamp(0.0, 1.0)
            flesh = torch.lerp(self.teeth[:, None, None] * light, self.gum[:, None, None] * light, gums)
            seen = torch.lerp(seen, flesh, there)
        shade = (0.5 + 0.5 * (-under / 0.09).clamp(0.0, 1.0)) * (0.6 + 0.4 * (opening / 0.2).clamp(0.0, 1.0))
        return (seen * shade).clamp(0.0, 1.0)
