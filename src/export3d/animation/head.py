"""The rendered head as a layer of its own, with room for what goes beyond the crop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Values = TypeVar("Values", np.ndarray, Tensor)

HAZE = 0.3
"""Opacity below it is haze and shows nothing, what is as near to 1 is solid: enlarged from few rays, an edge is too soft."""

SIDE_FADE = 0.05
"""Over so much of the crop's side a picture that goes with a head falls off at its upper border and at its sides."""


@dataclass(frozen=True)
class Place:
    """Where a head stands: the point p of the crop shows point ``scale * p + (x, y)`` of its picture, both in [0, 1]."""

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class HeadLayer:
    """A head apart from what is behind it, in the crop and perhaps room above it and at both sides (`sizes`).

    Attributes:
        colours: float32 ``(3, h, w)`` in [0, 255], premultiplied by the opacity.
        opacity: float32 ``(1, h, w)`` in [0, 1].
        place: where it goes in a photograph, for which it falls off at its borders; None: it fills the crop.
    """

    colours: Tensor
    opacity: Tensor
    place: Place | None = None

    @classmethod
    def of_picture(cls, picture: Tensor, opacity: Tensor, behind: Tensor, *, place: Place | None = None) -> HeadLayer:
        """What lies in a composed `picture` before `behind`, both ``(3, S, S)`` in [-1, 1]; `opacity` ``(1, S, S)``."""
        picture, opacity, behind = (x.float().cpu() for x in (picture, opacity, behind))
        clear = ((opacity - HAZE) / (1.0 - 2.0 * HAZE)).clamp(0.0, 1.0)
        if place is not None:
            columns, rows = faded(*opacity.shape[-2:])
            clear = clear * columns * rows[:, None]
        light = torch.addcmul(picture - behind, opacity, behind + 1.0)
        light *= 127.5 / opacity.clamp_min(HAZE)  # as if the head were solid
        return cls(light.clamp_(0.0, 255.0).mul_(clear), clear, place)

    def seen_at(self, places: np.ndarray, picture: Tensor, resting: np.ndarray) -> np.ndarray:
        """`lines_of` a photograph: where its pixels lie in a `picture` ``(.., H, W)`` of the head, of any size.

        Args:
            places: ``(2, 3)``; pixel (x, y) lies in the crop where this times (1, x, y) says, in [0, 1].
            resting: ``(h,)`` in [0, 1], how far each row stays where the crop has it, however the head goes.
        """
        place, (size, room) = self.place or Place(), sizes(self.opacity)
        count = np.array(picture.shape[:-3:-1]) * (size / np.array(self.opacity.shape[:-3:-1]))
        matrix = places * count[:, None]
        start = room / size * count - 0.5
        moved, home = lines_of(place.scale * matrix, len(resting)), lines_of(matrix, len(resting))
        moved[..., 0] += np.array([place.x, place.y]) * count
        lines = moved + resting[:, None, None] * (home - moved)
        lines[..., 0] += start
        return lines

    def with_room(self, share: float) -> HeadLayer:
        """The same with empty room above and at both sides, as a share of its side."""
        room = round(share * self.opacity.shape[-1])
        colours, opacity = (F.pad(x, (room, room, room, 0)) for x in (self.colours, self.opacity))
        return HeadLayer(colours, opacity, self.place)


def lines_of(places: np.ndarray, height: int) -> np.ndarray:
    """``(h, 2, 2)``: pixel (x, y) lies across and down at the first of row y plus x times the second; from ``(2, 3)``, which
    times (1, x, y) says where."""
    start = places[:, 0] + np.arange(height)[:, None] * places[:, 2]
    return np.stack([start, np.broadcast_to(places[:, 1], start.shape)], axis=-1)


def grid_of(lines: np.ndarray, to: Tensor, picture: Tensor) -> Tensor:
    """``(1, h, w, 2)`` for `grid_sample`: where pixels of `to` ``(.., h, w)`` lie in a `picture` as `lines_of` says."""
    pixels = lines[:, None, :, 0] + np.arange(to.shape[-1])[:, None] * lines[:, None, :, 1]
    return torch.from_numpy((2.0 * pixels + 1.0) / picture.shape[:-3:-1] - 1.0).float()[None]


def sizes(head: Tensor) -> tuple[int, int]:
    """Side of the crop in the picture ``(.., h, w)`` of a head, and the room above it and at both sides, pixels."""
    height, width = head.shape[-2:]
    return 2 * height - width, width - height


@lru_cache(maxsize=4)
def faded(height: int, width: int, *, over: float = SIDE_FADE, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Shares ``(width,)`` and ``(height,)`` of a picture of a head: in its crop, or in the `whole` of it, they fall to 0 at the
    sides and the upper border, `over` so much of the crop's side."""
    size, room = 2 * height - width, 0 if whole else width - height
    away = [(torch.arange(count) + 0.5 - room) / size for count in (width, height)]
    across = torch.minimum(away[0], away[0].flip(0))
    return rising(across / over), rising(away[1] / over)


def rising(away: Values) -> Values:
    """From 0 at 0 to 1 at 1, level at both."""
    away = away.clip(0.0, 1.0)
    return away * away * (3.0 - 2.0 * away)
