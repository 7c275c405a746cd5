"""Cutouts of a frame in which a face is looked for: squares, turned by quarter turns, reduced where they are large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from export3d.tracking.faces import Face

LARGEST_PX = 640
"""Cutouts are averaged down to less than twice this side: the networks look at 128 and 256 pixels."""

DETECTABLE = 1.0 / 7.0
"""The detector finds faces from this share of the picture's side on (measured: 0.15 yes, 0.12 no)."""

_TURN = (
    np.array([[1, 0], [0, 1]]),
    np.array([[0, 1], [-1, 0]]),
    np.array([[-1, 0], [0, -1]]),
    np.array([[0, -1], [1, 0]]),
)
"""Quarter turns of a picture to the left (`np.rot90`), as what they do to positions about the centre, y down."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A square of a frame; what lies outside the frame is black."""

    x: int
    y: int
    """Upper left corner, pixels of the frame; may be negative."""
    side: int
    turns: int = 0
    """Quarter turns to the left by which the cutout is turned."""

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """The cutout of a uint8 ``(H, W, 3)`` frame, square, contiguous, uint8."""
        part = frame[max(self.y, 0) : max(self.y + self.side, 0), max(self.x, 0) : max(self.x + self.side, 0)]
        factor = max(self.side // LARGEST_PX, 1)
        side = self.side // factor
        above, left = max(-self.y, 0), max(-self.x, 0)
        if factor > 1 and part.size:  # the border comes after the reduction; whole blocks of it, so that nothing shifts
            part = np.pad(part, ((above % factor, 0), (left % factor, 0), (0, 0)))
            part = np.asarray(Image.fromarray(part).reduce(factor))
            above, left = above // factor, left // factor
        part = part[: side - above, : side - left]
        if part.shape[:2] != (side, side):
            whole = np.zeros((side, side, 3), dtype=np.uint8)
            whole[above : above + part.shape[0], left : left + part.shape[1]] = part
            part = whole
        return np.ascontiguousarray(np.rot90(part, self.turns))

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points ``(..., 2)`` or ``(..., 3)`` in [0, 1] of the cutout -> pixels of the frame; depth in the same scale."""
        out = points.astype(np.float64) * self.side
        half = self.side / 2.0
        out[..., :2] = (out[..., :2] - half) @ _TURN[-self.turns % 4].T + half + (self.x, self.y)
        return out.astype(np.float32)

    def holds(self, face: Face) -> bool:
        """Whether a face still lies well inside: not near the edge, not too small or large, not turned away."""
        box, centre = face.box, face.centre - (self.x, self.y)
        size = max(float(box[2] - box[0]), face.height_px) / self.side
        inside = np.abs(centre / self.side - 0.5).max() < 0.22
        turned = np.angle(np.exp(1j * (face.roll - self.turns * np.pi / 2.0)))
        return bool(inside and 0.2 < size < 0.55 and abs(turned) < np.radians(60.0))


def view_around(box: np.ndarray, roll: float) -> View:
    """The view of a face with this box ``(4,)``: the box is a third of the side, and a head that is turned by `roll`
    (radians, as `Face.roll`) is level to an eighth of a turn."""
    centre, side = (box[:2] + box[2:]) / 2.0, max(round(3.0 * float((box[2:] - box[:2]).max())), 48)
    x, y = np.round(centre - side / 2.0).astype(int)
    return View(x=int(x), y=int(y), side=side, turns=round(roll / (np.pi / 2.0)) % 4)


def whole_views(width: int, height: int) -> list[View]:
    """The whole frame in a square, then with a border as wide as the frame: faces that fill it become findable."""
    side = max(width, height)
    x, y = (width - side) // 2, (height - side) // 2
    return [View(x=x, y=y, side=side), View(x=x - side // 2, y=y - side // 2, side=2 * side)]


def tiles(width: int, height: int, side: int) -> Iterator[View]:
    """Squares that cover the frame; neighbours share the size of the largest face that only a smaller tile would find."""
    step = max(round(side * (1.0 - 2.0 * DETECTABLE)), 1)
    for y in _starts(height, side, step):
        for x in _starts(width, side, step):
            yield View(x=x, y=y, side=side)


def _starts(length: int, side: int, step: int) -> list[int]:
    if length <= side:
        return [(length - side) // 2]
    count = -(-(length - side) // step) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]
