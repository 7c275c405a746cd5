"""Where a picture of the model shows the lips, from the places that its rays find in the portrait.

Where a mouth is open the model stretches a line of skin: there the places of the rays stand still. Beside that band they are
right, so both lips are carried on from the skin around them to their edges.

Along the mouth runs s, up across it t, both in widths of the mouth; t is 0 on the line where the lips meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from export3d.model import Render

ACROSS = np.linspace(-0.45, 0.45, 19)
"""Where along the mouth its opening is measured."""

FEWEST, _SOLID = 12, 0.9
"""Rays by which one lip is carried, at least, and the opacity of those that meet skin."""

_BESIDE, _ALONG = (0.17, 0.6), 0.7
"""From where to where, up and down from the line, skin carries its lip, and how far along it; nearer, rays may stand still."""

_STILL, _MIDST = 0.5, (0.2, 0.35)
"""Rays stand still that cross less than so many widths of the portrait's mouth per width of their own. They are looked for so
far from the opening's middle, along and up and down."""


@dataclass(frozen=True)
class Rays:
    """What the rays of a picture met.

    Attributes:
        seen: ``(r, r, 2)`` where in the picture they are, (x, y) in [0, 1].
        points: ``(r, r, 3)`` which places of the portrait they found, scene units.
        met: ``(r, r)`` whether they met skin.
    """

    seen: np.ndarray
    points: np.ndarray
    met: np.ndarray

    @staticmethod
    def of(render: Render) -> Rays:
        """Of a picture of the shipped model (B = 1)."""
        assert render.guide is not None  # the paper's model has none
        points, opacity = found_places(render.guide, render.opacity)
        y, x = (np.mgrid[: len(opacity), : len(opacity)] + 0.5) / len(opacity)
        return Rays(np.stack([x, y], axis=-1), points, opacity > _SOLID)


@dataclass(frozen=True)
class MouthFrame:
    """Where a shut mouth lies in the head.

    Attributes:
        width: scene units.
        middle: x, scene units.
        line: of its height, in widths, over s: coefficients of a parabola.
    """

    width: float
    middle: float
    line: np.ndarray

    def places(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and t ``(..)`` of points ``(.., 3)``."""
        s = (points[..., 0] - self.middle) / self.width
        return s, points[..., 1] / self.width - np.polyval(self.line, s)

    def points(self, s: np.ndarray, z: np.ndarray) -> np.ndarray:
        """``(.., 3)`` on the line."""
        return np.stack([s * self.width + self.middle, np.polyval(self.line, s) * self.width, z], axis=-1)


@dataclass(frozen=True)
class Carried:
    """Where the skin on one side of the mouth is seen, as a smooth function of its place.

    Attributes:
        terms: ``(5, 2)`` of 1, s, t, s^2 and s t; (x, y) in [0, 1] of the picture.
    """

    terms: np.ndarray

    @classmethod
    def of(cls, s: np.ndarray, t: np.ndarray, seen: np.ndarray) -> Carried | None:
        """From places ``(N,)`` on that side and where they are seen ``(N, 2)``; None: they are too few."""
        if len(s) < FEWEST:
            return None
        weight = np.exp((_BESIDE[0] - np.abs(t)) / 0.15)[:, None]
        return cls(np.linalg.lstsq(surface_terms(s, t) * weight, seen * weight, rcond=None)[0])

    def at(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Where places are seen, ``(.., 2)``."""
        return surface_terms(s, t) @ self.terms

    def places(self, seen: np.ndarray, s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which places are seen at ``(.., 2)``, from a guess on, by Newton's method."""
        (x0, y0), (xs, ys), (xt, yt), (xss, yss), (xst, yst) = self.terms.tolist()
        for _ in range(3):
            up_x, up_y = xt + xst * s, yt + yst * s
            away_x = x0 + s * (xs + xss * s) + t * up_x - seen[..., 0]
            away_y = y0 + s * (ys + yss * s) + t * up_y - seen[..., 1]
            along_x, along_y = xs + 2.0 * xss * s + xst * t, ys + 2.0 * yss * s + yst * t
            area = along_x * up_y - along_y * up_x
            area = np.where(np.abs(area) < 1e-9, 1e-9, area)
            s = np.minimum(np.maximum(s - (away_x * up_y - away_y * up_x) / area, -2.0), 2.0)
            t = np.minimum(np.maximum(t - (along_x * away_y - along_y * away_x) / area, -2.0), 2.0)
        return s, t


@dataclass(frozen=True, kw_only=True)
class Lips:
    """Both lips of one picture.

    Attributes:
        upper, lower: what carries them.
        opening: ``(19,)`` between their edges, in widths of the mouth, along it.
        band: how wide the one is in which rays stand still, in widths.
        middle: ``(2,)`` of the opening, (x, y) in [0, 1] of the picture.
        along, down: ``(2,)`` unit vectors in the picture.
        width: of the mouth, in pictures.
    """

    upper: Carried
    lower: Carried
    opening: np.ndarray
    band: float
    middle: np.ndarray
    along: np.ndarray
    down: np.ndarray
    width: float

    @staticmethod
    def of(rays: Rays, frame: MouthFrame) -> Lips | None:
        """None: the picture does not show them."""
        s, t = frame.places(rays.points)
        near = rays.met & (np.abs(s) < _ALONG)
        sides = [near & (way * t > _BESIDE[0]) & (way * t < _BESIDE[1]) for way in (1.0, -1.0)]
        upper, lower = (Carried.of(s[side], t[side], rays.seen[side]) for side in sides)
        if upper is None or lower is None:
            return None
        edges = [side.at(ACROSS, np.zeros_like(ACROSS)) for side in (upper, lower)]
        reach = edges[0][-1] - edges[0][0]
        length = max(float(np.linalg.norm(reach)), 1e-6)
        along, width = reach / length, length / float(np.ptp(ACROSS))
        down, middle = np.array([-along[1], along[0]]), (edges[0][len(ACROSS) // 2] + edges[1][len(ACROSS) // 2]) / 2.0
        return Lips(
            upper=upper,
            lower=lower,
            opening=(edges[1] - edges[0]) @ down / width,
            band=_band(rays, t, (middle, along, down), width),
            middle=middle,
            along=along,
            down=down,
            width=width,
        )


def _band(rays: Rays, t: np.ndarray, place: tuple[np.ndarray, np.ndarray, np.ndarray], width: float) -> float:
    """How wide the band is in which rays stand still, in widths of the mouth."""
    middle, along, down = place
    away, step = rays.seen - middle, 1.0 / (len(t) * width)  # from ray to ray, widths
    below, right = np.gradient(t)
    crossed = -(right * down[0] + below * down[1]) / step
    midst = rays.met & (np.abs(away @ along) < _MIDST[0] * width) & (np.abs(away @ down) < _MIDST[1] * width)
    return float((1.0 - crossed[midst] / _STILL).clip(0.0, 1.0).sum()) * step**2 / (2.0 * _MIDST[0])


def found_places(guide: Tensor, opacity: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which places of the portrait rays found ``(r, r, 3)``, and their opacity ``(r, r)``, by the guide ``(1, 5, r, r)``."""
    share = opacity[0, 0].double().cpu().numpy()
    return np.moveaxis(guide[0, :3].double().cpu().numpy() / share.clip(min=0.05), 0, -1), share


def surface_terms(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """``(.., 5)``: 1, s, t, s^2 and s t."""
    return np.stack([np.ones_like(s), s, t, s * s, s * t], axis=-1)
