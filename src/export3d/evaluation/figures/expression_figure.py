"""The two t-SNE pictures of Fig. 8 side by side, coloured by identity; drawn with Pillow."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export3d.evaluation.figures.tsne import tsne
from export3d.evaluation.scores.expression_sample import ExpressionSample

PANEL_PX = 520
_TITLE_PX = 34
_MARGIN = 0.04
_RADIUS = 3.2
_FINE = 3  # drawn at this many times the size, then averaged


def tsne_figure(sample: ExpressionSample, coefficients: np.ndarray) -> np.ndarray:
    """Left: beta-hat; right: beta' (its coefficients, which have the same distances).

    Args:
        sample: frames of held-out people; 5,000 at most.
        coefficients: ``(N, n)`` of the same frames.

    Returns:
        uint8 ``(554, 1040, 3)``.
    """
    colors = identity_colors(sample.identities)[sample.identity]
    titled = {"beta-hat, given by the extractor": sample.beta, "beta', after CLeBS": coefficients}
    panels = [
        scatter(tsne(points), colors, f"{title}: {sample.identities} held-out people, one colour each")
        for title, points in titled.items()
    ]
    return np.concatenate(panels, axis=1)


def scatter(points: np.ndarray, colors: np.ndarray, title: str) -> np.ndarray:
    """Draw points ``(N, 2)`` with their colours ``(N, 3)`` uint8 under a title: uint8 ``(554, 520, 3)``."""
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5  # one scale for both axes
    place = (unit * (1 - 2 * _MARGIN) + _MARGIN) * PANEL_PX * _FINE
    picture = Image.new("RGB", (PANEL_PX * _FINE, PANEL_PX * _FINE), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    size = _RADIUS * _FINE
    for (x, y), color in zip(place, colors, strict=True):
        pen.ellipse((x - size, y - size, x + size, y + size), fill=tuple(int(c) for c in color))
    panel = Image.new("RGB", (PANEL_PX, PANEL_PX + _TITLE_PX), (255, 255, 255))
    panel.paste(picture.resize((PANEL_PX, PANEL_PX), Image.Resampling.BOX), (0, _TITLE_PX))
    text = ImageDraw.Draw(panel)
    text.text((10, 10), title, fill=(30, 30, 30), font=ImageFont.load_default(14))
    text.rectangle((0, _TITLE_PX - 1, PANEL_PX - 1, PANEL_PX + _TITLE_PX - 1), outline=(190, 190, 190))
    return np.asarray(panel)


def identity_colors(count: int) -> np.ndarray:
    """``(count, 3)`` uint8: hues around the circle, three levels of brightness in turn."""
    levels = (0.62, 0.95, 0.80)
    rows = [colorsys.hsv_to_rgb(i / count, 0.55 + 0.4 * (i % 2), levels[i % len(levels)]) for i in range(count)]
    return np.rint(np.array(rows) * 255).astype(np.uint8)
