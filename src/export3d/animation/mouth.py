"""A mouth that opens in a photograph that shows it shut: the lips are laid anew, and what is between them is drawn.

The model knows how far a mouth opens, but between the lips it stretches a line of skin or paints fog. So both lips are laid up
to where skin beside them carries them (`lips.py`), read in the photograph; between them are teeth and tongue (`teeth.py`).
Mouths that the photograph shows open stay the model's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.lips import ACROSS, FEWEST, Lips, MouthFrame, Rays, surface_terms
from export3d.animation.teeth import Inside
from export3d.camera import Camera
from export3d.images import bounds
from export3d.landmarks import INNER_EDGES, INNER_LIPS, MOUTH_CORNERS
from export3d.model import Render
from export3d.portrait.lookup import read_at

_OPEN, _LOOSE = 0.12, 0.05
"""Lips so far apart in the photograph, in widths, show what is behind them; rays lie so far beside a smooth surface at most."""

_LAID, _ENDS = (0.12, 0.24), 0.55
"""Lips are laid anew wholly up to the first and not at all from the second on, so far from the line, nor from the third on
along it."""

_CORNER, _FADE, _ALIKE = 0.52, 0.06, 0.2
"""Where lips meet along the mouth, and over how much of it what is between them fades there. Both tell of a place between them
where a mouth is; what they tell differs by so much at most."""

_BAND, _PUCKERED, _NARROW = (0.0, 0.05), (0.08, 0.16), (0.8, 0.97)
"""Where the band in which rays stand still is not wider than the first, in widths, the mouth is shut; from the second on it is
as open as it is found. Puckered lips, which are as much narrower as the last say, need more: some stand still in them, too."""

_COARSE = 6
"""Pixels from one place that is calculated to the next; between them all is smooth."""

Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """The mouth of a portrait whose photograph shows it shut.

    Attributes:
        picture: ``(3, S, S)`` the photograph in [-1, 1].
        frame: where the mouth lies in the head.
        places: ``(6, 2)`` of where the photograph shows (s, t), in [0, 1].
        depth: ``(6,)`` of z, scene units.
        rest, breadth: ``(19,)`` what is found as its opening in the portrait itself, and its width there, in its own.
        inside: what is seen between the lips.
    """

    picture: Tensor
    frame: MouthFrame
    places: np.ndarray
    depth: np.ndarray
    rest: np.ndarray
    breadth: float
    inside: Inside

    @staticmethod
    def of(own: Render, picture: Tensor, landmarks: np.ndarray) -> Mouth | None:
        """From the portrait in its own state, its photograph ``(3, S, S)`` and the landmarks ``(68, 2)`` in [0, 1] of it; None
        where the mouth is open, or its surface is not found."""
        marks, rays = landmarks.astype(np.float64), Rays.of(own)
        ends, (upper, lower) = marks[MOUTH_CORNERS], (marks[edge] for edge in INNER_EDGES)
        across, apart = float(np.linalg.norm(ends[1] - ends[0])), float(np.linalg.norm(upper - lower, axis=-1).max())
        centre = marks[INNER_LIPS].mean(axis=0)
        near = rays.met & (np.linalg.norm(rays.seen - centre, axis=-1) < 0.8 * across)
        if apart > _OPEN * across or near.sum() < 4 * FEWEST:
            return None
        seen, points = rays.seen[near], rays.points[near]
        surface = _fitted(seen - centre, points)
        corners, met = _at(surface, ends - centre), _at(surface, (upper + lower) / 2.0 - centre)
        width, middle = float(np.linalg.norm(corners[1] - corners[0])), float(met[[0, -1], 0].mean())
        if not 0.0 < np.abs(_at(surface, seen - centre) - points).mean() < _LOOSE * width:
            return None
        frame = MouthFrame(width, middle, np.polyfit((met[:, 0] - middle) / width, met[:, 1] / width, 2))
        lips = Lips.of(rays, frame)
        if lips is None:
            return None
        where = np.stack(frame.places(points), axis=-1)
        places = _fitted(where, seen)
        left, right = _at(places, np.array([[-0.3, 0.0], [0.3, 0.0]]))
        face = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 17), np.linspace(-0.6, 1.2, 19)), axis=-1)
        return Mouth(
            picture=picture.cpu(),
            frame=frame,
            places=places,
            depth=_fitted(where, points[:, 2]),
            rest=lips.opening,
            breadth=lips.width * 0.6 / float(np.linalg.norm(right - left)),
            inside=Inside.of((_read(picture, torch.from_numpy(_at(places, face)).float()) + 1.0) / 2.0),
        )

    def drawn(self, render: Render, camera: Camera) -> None:
        """Draw the mouth in place into the final image of a `render` (B = 1) seen by `camera`, where it is open."""
        lips = Lips.of(Rays.of(render), self.frame)
        if lips is None or lips.band == 0.0 or render.image is None:
            return
        size, opening, skull = render.image.shape[-1], lips.opening - self.rest, self._skull(camera)
        narrowed = lips.width / float(np.linalg.norm(skull[1])) / self.breadth
        wide = np.interp(narrowed, _NARROW, (0.0, 1.0))
        least, most = np.array(_PUCKERED) + wide * (np.array(_BAND) - _PUCKERED)
        share, box = float(np.interp(lips.band * narrowed, (least, most), (0.0, 1.0))), self._box(lips, size)
        if box is None or share == 0.0 or opening.max() * lips.width * size < 1.0:
            return
        laid = _Laid.of(lips, opening * share, self.places, box, size)
        part = render.image[0][(slice(None), *box)]
        part.copy_(self._painted(part.float().cpu(), laid, min(1.0, 3.0 * share), skull))

    def _box(self, lips: Lips, size: int) -> Box | None:
        """Rows and columns of the pixels that are drawn."""
        s = np.linspace(-_ENDS, _ENDS, 13)
        ends = np.concatenate(
            [side.at(s, np.full_like(s, t)) for side, t in ((lips.upper, _LAID[1]), (lips.lower, -_LAID[1]))]
        )
        (x0, y0), (x1, y1) = (
            np.clip(np.round(at * size), 0, size).astype(int).tolist() for at in (ends.min(axis=0), ends.max(axis=0))
        )
        return (slice(y0, y1), slice(x0, x1)) if min(y1 - y0, x1 - x0) > _COARSE else None

    def _painted(self, before: Tensor, laid: _Laid, share: float, skull: tuple[np.ndarray, np.ndarray]) -> Tensor:
        """The box ``(3, h, w)`` with its mouth."""
        above = laid.upper[1] + laid.lower[1] > 0.0  # nearer to the upper lip
        s, t, x, y = (torch.where(above, up, low) for up, low in zip(laid.upper, laid.lower, strict=True))
        near = ((_LAID[1] - t.abs()) / (_LAID[1] - _LAID[0])).clamp(0.0, 1.0) * ((_ENDS - s.abs()) / 0.1).clamp(
            0.0, 1.0
        )
        after = torch.lerp(before, _read(self.picture, torch.stack([x, y], dim=-1)), share * near)
        between = (0.5 - laid.upper[1] / laid.pixel).clamp(0.0, 1.0) * (0.5 + laid.lower[1] / laid.pixel).clamp(
            0.0, 1.0
        )
        apart = [(low - up).abs() for up, low in zip(laid.upper[:2], laid.lower[:2], strict=True)]
        between *= (apart[0] < _ALIKE) & ((apart[1] - laid.opening).abs() < _ALIKE)
        between *= ((_CORNER - s.abs()) / _FADE).clamp(0.0, 1.0)
        part = bounds((between > 0.0).numpy())
        if part is None:
            return after
        edges = (laid.upper[1][part], laid.lower[0][part], laid.lower[1][part])
        colours = self.inside.seen(laid.before(skull, part), edges, laid.opening[part])
        inner = (slice(None), *part)
        after[inner] = torch.lerp(after[inner], colours * 2.0 - 1.0, between[part])
        return after

    def _skull(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Where the camera sees the middle of the shut mouth, which no lip moves, and one width along it: (x, y) in [0, 1]."""
        s = np.array([-0.3, 0.0, 0.3])
        points = self.frame.points(s, _at(self.depth, np.stack([s, np.zeros(3)], axis=-1)))
        seen, _ = camera.project(torch.from_numpy(points)[None].to(camera.to_vector()))
        left, middle, right = seen[0].double().cpu().numpy()
        return middle, (right - left) / 0.6


@dataclass(frozen=True)
class _Laid:
    """What lies under the pixels of a box once both lips are carried to their edges.

    Attributes:
        upper, lower: s, t, and x, y in the photograph, each ``(h, w)``.
        opening: ``(h, w)`` between the edges, widths.
        pixel: side of a pixel, widths.
        box, size: in a picture of so many pixels a side.
    """

    upper: tuple[Tensor, ...]
    lower: tuple[Tensor, ...]
    opening: Tensor
    pixel: float
    box: Box
    size: int

    @staticmethod
    def of(lips: Lips, opening: np.ndarray, places: np.ndarray, box: Box, size: int) -> _Laid:
        shape = tuple(along.stop - along.start for along in box)
        rows, columns = (
            np.linspace(along.start, along.stop - 1, -(-n // _COARSE) + 1) for along, n in zip(box, shape, strict=True)
        )
        seen = (np.stack(np.meshgrid(columns, rows), axis=-1) + 0.5) / size
        guess = ((seen - lips.middle) @ lips.along / lips.width, (lips.middle - seen) @ lips.down / lips.width)
        upper, lower = (side.places(seen, *guess) for side in (lips.upper, lips.lower))
        s = (upper[0] + lower[0]) / 2.0
        wanted = np.interp(s, ACROSS, opening).clip(min=0.0) * (1.0 - (s / _CORNER).clip(-1.0, 1.0) ** 4)
        moved = (np.interp(s, ACROSS, lips.opening) - wanted) / 2.0
        fields = [wanted]
        for along, up in ((upper[0], upper[1] + moved), (lower[0], lower[1] - moved)):
            fields += [along, up, *np.moveaxis(_at(places, np.stack([along, up], axis=-1)), -1, 0)]
        smooth = torch.from_numpy(np.stack(fields)).float()[None]
        fine = F.interpolate(smooth, shape, mode="bilinear", align_corners=True)[0].unbind(0)
        return _Laid(fine[1:5], fine[5:], fine[0], 1.0 / (size * lips.width), box, size)

    def before(self, skull: tuple[np.ndarray, np.ndarray], part: Box) -> tuple[Tensor, Tensor]:
        """s and t ``(h, w)`` in the shut mouth of what its pixels lie before."""
        (middle, along), up = skull, np.array([skull[1][1], -skull[1][0]])
        y, x = (
            (torch.arange(inner.start, inner.stop) + outer.start + 0.5) / self.size - centre
            for outer, inner, centre in zip(self.box, part, middle[::-1], strict=True)
        )
        scale = max(float(along @ along), 1e-12)
        s, t = ((x * way[0] + y[:, None] * way[1]).float() / scale for way in (along, up))
        return s, t


def _smooth(at: np.ndarray) -> np.ndarray:
    x, y = np.moveaxis(at, -1, 0)
    return np.concatenate([surface_terms(x, y), (y * y)[..., None]], axis=-1)


def _fitted(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The six terms of a smooth function that is `values` ``(N, ..)`` at ``(N, 2)``."""
    return np.linalg.lstsq(_smooth(at), values, rcond=None)[0]


def _at(terms: np.ndarray, at: np.ndarray) -> np.ndarray:
    """What such a function is at ``(.., 2)``."""
    return _smooth(at) @ terms


def _read(picture: Tensor, places: Tensor) -> Tensor:
    """``(3, S, S)`` at (x, y) ``(h, w, 2)`` in [0, 1] -> ``(3, h, w)``."""
    return read_at(picture[None].float().cpu(), places[None], "bicubic")[0].clamp(-1.0, 1.0)
