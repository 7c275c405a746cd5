"""Eyes that shut in a photograph: the skin above them is drawn down over them, to the lower lid.

The model paints a shut eye, on photographs half of one; its places in the photograph hardly move with a lid. So lids also close
in the photograph itself, before it is read: whatever shows the eye, from any side, then shows the lid. The eye behind it stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.images import bounds
from export3d.landmarks import BLINKS, EyeShape
from export3d.portrait.state import Box, DrivenPlanes, PortraitCode, patched

_REACH = (0.25, 0.5)
"""Least and most of the skin above the lid's rim that follows it, in widths of the eye; most of what there is to the brow."""

_STEPS = 64
"""A lid stands at one of so many places: from frame to frame an open one does not stir."""

_LASHES = 0.04
"""So far above its rim the lid is not stretched, in widths of the eye."""

_LOW_BROW = (0.3, 0.5)
"""Where the brow is nearer to the rim than the second, in widths of the eye, lids are partly, and from the first on wholly of
skin from below the eye: there is none above."""

_BELOW = 0.12
"""How far below the lower lid that skin lies, in widths of the eye."""

_BEYOND = 0.03
"""How far a shut lid goes past the lower one's landmarks, in widths of the eye; else a line of white stays."""


@dataclass(frozen=True, kw_only=True)
class Lid:
    """The upper lid of one eye of a square picture.

    Attributes:
        box: rows and columns of the pixels that it moves.
        up: ``(2,)`` how far a pixel is upwards, in the picture's units of [-1, 1] (x, y) per width of the eye.
        rim: ``(h, w)`` height of the open lid's rim, in widths of the eye above the line between the corners.
        opening: ``(h, w)`` from there down to the lower lid; 0 beside the eye.
        height: ``(h, w)`` of each pixel.
        grid: ``(h, w, 2)`` of each pixel (x, y) in [-1, 1].
        reach: how far above its rim skin follows the lid, widths of the eye.
        low_brow: share of the lid's skin that comes from below the eye.
        pixel: side of a pixel, widths of the eye.
    """

    box: Box
    up: Tensor
    rim: Tensor
    opening: Tensor
    height: Tensor
    grid: Tensor
    reach: float
    low_brow: float
    pixel: float

    @staticmethod
    def of(eye: np.ndarray, brow: np.ndarray, side: int) -> Lid | None:
        """From the eye's landmarks ``(6, 2)`` and its brow's ``(5, 2)`` in [0, 1] of a picture of `side` pixels; None: too
        small to be seen there."""
        shape = EyeShape(eye)
        width = shape.width
        if width * side < 4.0:
            return None
        low, high = eye.min(axis=0) - width, eye.max(axis=0) + width
        (x0, y0), (x1, y1) = (np.clip(np.round(at * side), 0, side).astype(int) for at in (low, high))
        y, x = np.mgrid[y0:y1, x0:x1]
        at = (np.stack([x, y], axis=-1) + 0.5) / side
        s, t = shape.places(at)
        upper, opening = shape.lids(s)
        free, pixel = shape.places(brow)[1].mean() - upper.max(), 1.0 / (width * side)
        reach = float(np.clip(0.9 * free, *_REACH))
        moves = (opening > 0.0) & (t < upper + reach) & (t > upper - opening - _BEYOND - pixel)
        inside = bounds(moves)
        if inside is None:
            return None
        rows, columns = inside
        maps = {"rim": upper, "opening": opening, "height": t, "grid": 2.0 * at - 1.0}
        return Lid(
            box=(slice(y0 + rows.start, y0 + rows.stop), slice(x0 + columns.start, x0 + columns.stop)),
            up=torch.from_numpy(2.0 * shape.up).float(),
            **{name: torch.from_numpy(values[rows, columns].astype(np.float32)) for name, values in maps.items()},
            reach=reach,
            low_brow=float(np.interp(free, _LOW_BROW, (1.0, 0.0))),
            pixel=pixel,
        )

    def drawn(self, picture: Tensor, share: float) -> Tensor:
        """The box of a picture ``(1, C, S, S)`` with the lid so far down, 0 to 1: ``(1, C, h, w)``."""
        fall = share * (self.opening + _BEYOND * (self.opening > 0.0))
        above = self.height - (self.rim - fall)  # the lid's rim where it is now
        follows = ((self.reach + fall - above) / (self.reach + fall - _LASHES)).clamp(0.0, 1.0)
        lid = self._moved(picture, fall * follows)
        if self.low_brow > 0.0:
            skin = self._moved(picture, self.rim - self.opening - _BELOW - above / 2.0 - self.height)
            drawn = (above / _LASHES - 1.0).clamp(0.0, 1.0) * ((self.rim - self.height) / _LASHES + 0.5).clamp(0.0, 1.0)
            lid = torch.lerp(lid, skin, self.low_brow * drawn)
        return torch.lerp(picture[..., self.box[0], self.box[1]], lid, (above / self.pixel + 0.5).clamp(0.0, 1.0))

    def _moved(self, picture: Tensor, up: Tensor) -> Tensor:
        """The box, each pixel from so many widths of the eye farther up."""
        grid = self.grid + up[..., None] * self.up
        return F.grid_sample(picture, grid[None], "bicubic", "border", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Lids:
    """Both upper lids of a portrait that is read at its own size.

    Attributes:
        own: ``(1, 52)`` the portrait's own weights.
        small, large: the lids in its picture at the model's size and in the photograph.
    """

    own: Tensor
    small: tuple[Lid | None, ...]
    large: tuple[Lid | None, ...]

    @staticmethod
    def of(code: PortraitCode, landmarks: np.ndarray | None) -> Lids | None:
        """From its landmarks ``(68, 2)`` in [0, 1] of the pictures; None where these, its weights or the photo are missing."""
        own = code.state.weights
        if landmarks is None or own is None or code.maps.photo is None:
            return None
        places = landmarks.astype(np.float64)
        small, large = (
            tuple(Lid.of(places[eye], places[brow], picture.shape[-1]) for eye, brow in BLINKS.values())
            for picture in (code.maps.picture, code.maps.photo.picture)
        )
        return Lids(own=own.cpu(), small=small, large=large)

    def shut(self, state: FaceState) -> tuple[float, ...]:
        """How far each lid of a face (B = 1) is shut from where it is in the portrait on, 0 to 1; unknown ones are not."""
        if state.weights is None:
            return (0.0,) * len(BLINKS)
        shut = ((state.weights.cpu() - self.own) / (1.0 - self.own).clamp_min(0.1)).nan_to_num().clamp(0.0, 1.0)[0]
        return tuple(round(float(shut[ARKIT_NAMES.index(name)]) * _STEPS) / _STEPS for name in BLINKS)

    def drawn(self, driven: DrivenPlanes, shut: tuple[float, ...]) -> DrivenPlanes:
        """The portrait in this state, its lids so far down."""
        maps = driven.code.maps
        if maps.photo is None or not any(shut):
            return driven
        photo = patched(maps.photo, _drawn(maps.photo.picture, self.large, shut))
        maps = replace(patched(maps, _drawn(maps.picture, self.small, shut)), photo=photo)
        return replace(driven, code=replace(driven.code, maps=maps))


def _drawn(picture: Tensor, lids: tuple[Lid | None, ...], shut: tuple[float, ...]) -> list[tuple[Box, Tensor]]:
    told = [(lid, share) for lid, share in zip(lids, shut, strict=True) if lid is not None and share > 0.0]
    return [(lid.box, lid.drawn(picture, share)) for lid, share in told]
