"""Putting pictures together: resizing, panels side by side, depth as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

DEPTH_COLOURS = np.array(
    [
        [255, 244, 214],  # nearest: warm and light
        [250, 205, 120],
        [226, 140, 82],
        [172, 84, 84],
        [108, 58, 98],
        [58, 46, 92],
        [26, 30, 58],  # farthest: cold and dark
    ],
    dtype=np.float64,
)
"""Colours from near to far; the lightness falls steadily, so the picture reads in grey as well."""

EMPTY_COLOUR = np.array([12.0, 12.0, 16.0])
"""Where a ray met nothing."""


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 ``(H, W, 3)`` -> ``(height, width, 3)``, Lanczos; the same array where nothing changes."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def fit_height(image: np.ndarray, height: int) -> np.ndarray:
    """Resize to a height, the proportions kept; the width comes out even, as video needs it."""
    width = max(2, 2 * round(image.shape[1] * height / image.shape[0] / 2))
    return resize(image, width, height)


def side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels of any size -> one picture as high as the last panel."""
    height = panels[-1].shape[0]
    return np.concatenate([fit_height(panel, height) for panel in panels], axis=1)


def depth_range(depth: np.ndarray, opacity: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth to show: the middle 96 % of the rays that met something."""
    seen = depth[opacity > 0.5]
    if seen.size == 0:
        seen = depth.reshape(-1)
    near, far = np.quantile(seen, [0.02, 0.98])
    return float(near), float(max(far, near + 1e-6))


def depth_picture(depth: np.ndarray, opacity: np.ndarray, near: float, far: float) -> np.ndarray:
    """Depth ``(H, W)`` in scene units and opacity ``(H, W)`` in [0, 1] -> uint8 ``(H, W, 3)``.

    Depths outside [near, far] take the colour of the nearer end.
    """
    place = np.clip((depth.astype(np.float64) - near) / (far - near), 0.0, 1.0) * (len(DEPTH_COLOURS) - 1)
    stops = np.arange(len(DEPTH_COLOURS))
    colours = np.stack([np.interp(place, stops, DEPTH_COLOURS[:, channel]) for channel in range(3)], axis=-1)
    share = np.clip(opacity.astype(np.float64), 0.0, 1.0)[..., None]
    return np.round(share * colours + (1.0 - share) * EMPTY_COLOUR).astype(np.uint8)
