"""The driven head put back into the untouched photograph (not in the paper): `--framing photo`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from export3d.animation.backdrop import Backdrop, as_picture, laid
from export3d.animation.compose import resize
from export3d.animation.fill import behind_person
from export3d.animation.head import SIDE_FADE, HeadLayer, grid_of, rising, sizes
from export3d.animation.old_head import GROWTH, HEAD, JAW, old_head, soft
from export3d.animation.person import HOLE_FROM, Person, crop_places, planes, spread
from export3d.portrait.background import grown
from export3d.rendering.fused import paste_head
from export3d.tracking import Crop

FULL_HD = (1920, 1080)
"""Longer and shorter side of the largest picture that is made without being asked for, pixels."""

LARGEST_PX = 1024
"""Side of the largest picture that is composed, pixels; larger ones are enlarged from it."""

DETAIL_PX = 512
"""Side of the largest head that is composed, pixels; in a photograph with a larger one it is enlarged."""

LOWER_FADE = 0.25
"""Over so much of the crop's side the picture falls off to the photograph at the lower border, where the body goes on."""

REACH = 0.2
"""A head's picture goes no farther beyond the crop and its room, as a share of the crop's side."""

BODY = 0.06
"""So near to the photograph's body, as a share of the crop's side, what is rendered of it below the head is shown."""

BENDING = (0.7, 0.95)
"""Heights of the crop: above the first all goes with the head, below the second all stays, and between them a neck bends."""


@dataclass(frozen=True, kw_only=True)
class Pasteboard:
    """A photograph into which heads are put; made once for each portrait by `pasteboard`.

    Attributes:
        photo: uint8 ``(H, W, C)``, both sides even; C is 3, or 4 before nothing (premultiplied).
        rows, columns: the part of it that a head may touch, (h, w).
        places: ``(2, 3)``: its pixel (x, y) lies in the crop where this times (1, x, y) says, in [0, 1].
        share: float32 ``(1, h, w)`` in [0, 1], how far that part may change.
        resting: ``(h,)`` in [0, 1], how far each row stays where it is when the head goes: a neck bends.
        hole: bool ``(h, w)``, where the old head was, its neighbourhood included.
        behind: float32 ``(C, h, w)`` in [0, 255], the part without the old head.
        side: of the crop, in pixels of `photo`.
        fused: whether the compiled renderer pastes; the same picture to a grey level.
    """

    photo: np.ndarray
    rows: slice
    columns: slice
    places: np.ndarray
    share: Tensor
    resting: np.ndarray
    hole: Tensor
    behind: Tensor
    side: float
    fused: bool = False

    def paste(self, head: HeadLayer) -> np.ndarray:
        """The photograph with this head, uint8 ``(H, W, C)``. Where neither it nor the old head is, nothing changes."""
        return _straight(self.lay(head, self._bare))

    def empty(self) -> np.ndarray:
        """uint8 ``(H, W, C)``: the photograph without the old head."""
        return _straight(self._bare)

    @cached_property
    def _bare(self) -> np.ndarray:
        return self._changed(self.photo, lambda part: part + self.share * (self.behind - part))

    def emptied(self, onto: np.ndarray) -> np.ndarray:
        """A picture uint8 ``(H, W, 3)`` of this photograph, in which other heads may be driven, without this old head."""
        return self._changed(onto, lambda part: torch.where(self.hole, part + self.share * (self.behind - part), part))

    def lay(self, head: HeadLayer, onto: np.ndarray) -> np.ndarray:
        """A picture uint8 ``(H, W, C)`` as large as the photograph with this head before all that is in it."""
        if not self.fused:
            light, opacity = self._warped(head)
            return self._changed(onto, lambda part: part + self.share * (laid(light, opacity, part) - part))
        made, square = onto.copy(), self._square(head)[0]
        lines = head.seen_at(self.places, square, self.resting)
        paste_head(made[self.rows, self.columns], square, lines, self.share[0])
        return made

    def _changed(self, onto: np.ndarray, change: Callable[[Tensor], Tensor]) -> np.ndarray:
        made = onto.copy()
        part = change(planes(onto[self.rows, self.columns]))
        made[self.rows, self.columns] = part.round().clamp(0.0, 255.0).permute(1, 2, 0).byte().numpy()
        return made

    def changing(self, head: HeadLayer) -> np.ndarray:
        """bool ``(H, W)``: the pixels that `paste` may change."""
        changing = np.zeros(self.photo.shape[:2], dtype=bool)
        seen = (self._warped(head)[1] > 0.0)[0] | self.hole
        changing[self.rows, self.columns] = (seen & (self.share[0] > 0.0)).numpy()
        return changing

    def _square(self, head: HeadLayer) -> Tensor:
        square = torch.cat([head.colours, head.opacity])[None]
        smaller = self.side / sizes(square)[0]
        if smaller < 1.0 / 1.5:  # a small face: averaged first, or it would sparkle
            square = F.interpolate(square, size=[max(round(smaller * n), 1) for n in square.shape[-2:]], mode="area")
        for border in (square[..., 0, :], square[..., 0], square[..., -1]):
            border.zero_()  # it goes on for ever
        return square

    def _warped(self, head: HeadLayer) -> tuple[Tensor, Tensor]:
        square = self._square(head)
        grid = grid_of(head.seen_at(self.places, square, self.resting), self.share, square)
        warped = F.grid_sample(square, grid, "bicubic", "border", align_corners=False)[0]
        # Cubic kernels ring; what shows nothing must stay nothing.
        opacity = warped[3:].clamp(0.0, 1.0) * (warped[3:] > 1 / 512)
        return torch.minimum(warped[:3].clamp_min(0.0), 255.0 * opacity), opacity


def pasteboard(
    image: np.ndarray,
    crop: Crop,
    person: Person,
    own: Tensor,
    *,
    landmarks: np.ndarray | None = None,
    height: int | None = None,
    backdrop: Backdrop | None = None,
) -> Pasteboard:
    """Prepare a photograph.

    Args:
        image: uint8 ``(H, W, 3)``.
        crop: the square of the face in it; it may be turned and reach beyond the photograph.
        person: of this photograph.
        own: ``(1, h, w)`` the opacity of the head as it is rendered in its own pose.
        landmarks: ``(68, 2)`` in [0, 1] of the crop; with them the old chin leaves, too.
        height: of the result in pixels; None is the photograph's own size, reduced where it is more than `FULL_HD`.
        backdrop: what is behind instead of the photograph's background.
    """
    photo = sized(image, height)
    scale = np.array([photo.shape[1] / (image.shape[1] & ~1), photo.shape[0] / (image.shape[0] & ~1)])
    side, room = crop.side * float(scale.mean()), (own.shape[-1] - own.shape[-2]) / sizes(own)[0]
    body_px, growth = max(round(BODY * side), 1), max(round(GROWTH * side), 2)
    rows, columns = _touched(photo, crop, room + REACH, scale)
    near, inner = _around((rows, columns), 2 * body_px)  # masks reach no farther
    top, left = near[0].start / scale[1], near[1].start / scale[0]
    moved = replace(crop, center_x=crop.center_x - left, center_y=crop.center_y - top)
    places = crop_places(moved, photo[near].shape, scale)
    grid = (places + room) / torch.tensor([0.5 + room, 0.5 + room / 2.0]) - 1.0
    rendered = F.grid_sample(own[None], grid[None], "bilinear", "zeros", align_corners=False)[0]
    down, owned, anybody = places[None, ..., 1], _at(person.own, photo)[..., near[0], near[1]], _at(person.share, photo)
    old = old_head(owned, rendered, places, side=side, room=room, landmarks=landmarks)
    # A body hardly moves: beside it nothing is rendered that the photograph does not have there.
    empty_there = 1.0 - soft(grown((owned > 0.5).float(), body_px), body_px)
    stays = ((down - HEAD) / (JAW - HEAD)).clamp(0.0, 1.0) * empty_there
    share = _share(places, room + REACH) * (1.0 - stays)
    if backdrop is None:
        empty, person_here = planes(photo[near]), grown((anybody > HOLE_FROM / 2.0).float(), growth)
        empty += old.leaves * (behind_person(photo, old.hole, person_here, near) - empty)
        # Where the chin was there is neck and clothing.
        empty += old.throat * (behind_person(photo, old.face.ceil(), None, near) - empty)
    else:
        photo, empty = _before(photo, backdrop, anybody, old.leaves, near)
    share, hole, empty = (
        x[..., inner[0], inner[1]].contiguous() for x in (share, old.leaves + old.throat > 0.0, empty)
    )
    places = _affine(crop, scale, (columns.start, rows.start))
    where: dict[str, Any] = {"rows": rows, "columns": columns, "places": places, "resting": _resting(places, share)}
    return Pasteboard(photo=photo, share=share, hole=hole[0], behind=empty, side=side, **where)


def _around(part: tuple[slice, slice], pixels: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that reach farther by so many pixels, and where the part lies in them."""
    first = [max(x.start - pixels, 0) for x in part]
    rows, columns = (slice(start, x.stop + pixels) for start, x in zip(first, part, strict=True))
    top, left = (slice(x.start - start, x.stop - start) for start, x in zip(first, part, strict=True))
    return (rows, columns), (top, left)


def _touched(photo: np.ndarray, crop: Crop, room: float, scale: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the photograph that the crop and the room around it touch."""
    reach = crop.side * (0.5 + room) * (abs(math.cos(crop.angle)) + abs(math.sin(crop.angle)))
    centre, size = np.array([crop.center_x, crop.center_y]), np.array([photo.shape[1], photo.shape[0]])
    x0, y0 = np.floor((centre - reach) * scale).clip(0, size - 1).astype(int).tolist()
    x1, y1 = np.ceil((centre + reach) * scale).clip(1, size).astype(int).tolist()
    return slice(y0, y1), slice(x0, x1)


def _before(
    photo: np.ndarray, backdrop: Backdrop, share: Tensor, hole: Tensor, near: tuple[slice, slice]
) -> tuple[np.ndarray, Tensor]:
    """The person before another background, uint8 ``(H, W, C)``, and the same without the head where the hole is, `near` it;
    `share` is the person's."""
    behind, colours = backdrop.behind(*photo.shape[:2]), spread(photo, (share < 0.8).float(), blur=1.0)
    whole, here = laid(colours * share, share, behind), (..., *near)
    left = share[here] * (1.0 - hole)
    made = np.ascontiguousarray(whole.round().clamp(0.0, 255.0).permute(1, 2, 0).byte().numpy())
    return made, laid(colours[here] * left, left, behind[here])


def _at(share: np.ndarray, photo: np.ndarray) -> Tensor:
    """A share ``(H, W)`` of the photograph's pixels at another size of it, ``(1, h, w)``."""
    return torch.from_numpy(np.array(Image.fromarray(share).resize((photo.shape[1], photo.shape[0]))))[None]


def sized(image: np.ndarray, height: int | None = None) -> np.ndarray:
    """A photograph at the size of the result, both sides even; an odd last row or column is cut off."""
    image = image[: image.shape[0] & ~1, : image.shape[1] & ~1]
    rows, columns = image.shape[:2]
    if height is None:
        scale = min(FULL_HD[0] / max(rows, columns), FULL_HD[1] / min(rows, columns), 1.0)
    else:
        scale = height / rows
    if scale == 1.0:
        return np.ascontiguousarray(image)
    return resize(image, *(max(2 * round(n * scale / 2.0), 2) for n in (columns, rows)))


def _share(places: Tensor, room: float) -> Tensor:
    """``(h, w)``: 1 inside the crop and the room around it, falling to 0 at its borders."""
    x, y = places.unbind(-1)
    share = torch.ones_like(x)
    for away in (*((each + room) / SIDE_FADE for each in (x, 1.0 - x, y)), (1.0 - y) / LOWER_FADE):
        share *= rising(away)
    return share


def _affine(crop: Crop, scale: np.ndarray, first: tuple[int, int]) -> np.ndarray:
    """`Pasteboard.places`, of the part from the `first` pixel on, across and down."""
    far = 1024.0 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    start, across, down = crop.to_crop((far + first + 0.5) / scale).astype(np.float64)
    return np.stack([start, (across - start) / far[1, 0], (down - start) / far[1, 0]], axis=1)


def _resting(places: np.ndarray, share: Tensor) -> np.ndarray:
    """`Pasteboard.resting`, by where the rows lie in the crop along its middle."""
    middle = np.linalg.solve(places[:, 1:], 0.5 - places[:, 0])[0]
    down = places[1, 0] + places[1, 1] * middle + places[1, 2] * np.arange(share.shape[-2])
    return rising((down - BENDING[0]) / (BENDING[1] - BENDING[0]))


def _straight(made: np.ndarray) -> np.ndarray:
    return made if made.shape[2] == 3 else as_picture(planes(made))
