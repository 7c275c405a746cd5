"""The rendered head as a layer of its own, with room for what goes beyond the crop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HAZE = 0.3
"""Opacity below it is haze and shows nothing, what is as near to 1 is solid: enlarged from few rays, an edge is too soft."""


@dataclass(frozen=True)
class HeadLayer:
    """A head apart from what is behind it, in the crop and perhaps room above it and at both sides (`sizes`).

    Attributes:
        colours: float32 ``(3, h, w)`` in [0, 255], premultiplied by the opacity.
        opacity: float32 ``(1, h, w)`` in [0, 1].
    """

    colours: Tensor
    opacity: Tensor

    @classmethod
    def of_picture(cls, picture: Tensor, opacity: Tensor, behind: Tensor) -> HeadLayer:
        """What lies in a composed `picture` before `behind`, both ``(3, S, S)`` in [-1, 1]; `opacity` ``(1, S, S)``."""
        picture, opacity, behind = (x.float().cpu() for x in (picture, opacity, behind))
        clear = ((opacity - HAZE) / (1.0 - 2.0 * HAZE)).clamp(0.0, 1.0)
        light = torch.addcmul(picture - behind, opacity, behind + 1.0)
        light *= 127.5 / opacity.clamp_min(HAZE)  # as if the head were solid
        return cls(light.clamp_(0.0, 255.0).mul_(clear), clear)

    def with_room(self, share: float) -> HeadLayer:
        """The same with empty room above and at both sides, as a share of its side."""
        room = round(share * self.opacity.shape[-1])
        return HeadLayer(*(F.pad(x, (room, room, room, 0)) for x in (self.colours, self.opacity)))


def sizes(head: Tensor) -> tuple[int, int]:
    """Side of the crop in the picture ``(.., h, w)`` of a head, and the room above it and at both sides, pixels."""
    height, width = head.shape[-2:]
    return 2 * height - width, width - height
