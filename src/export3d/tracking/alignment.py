"""The per-frame five-point crop of EG3D (300 of 1024, centre 700; Sec. 4, data)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

STANDARD_POINTS = np.array(
    [
        [-0.3115, 0.2904, 0.1338],  # eye at the image left
        [0.3098, 0.2897, 0.1318],  # eye at the image right
        [0.0033, -0.0462, 0.5524],  # tip of the nose
        [-0.2522, -0.3813, 0.2241],  # mouth corner at the image left
        [0.2485, -0.3813, 0.2224],  # mouth corner at the image right
    ]
)
"""``(5, 3)`` standard face in model units, x right, y up, z towards the viewer (Deep3DFaceRecon)."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How large and where the standard face lies in a crop. The defaults are EG3D's."""

    rescale: float = 300.0
    """Pixels per model unit in the square of side `target`."""

    target: float = 1024.0
    """Side of EG3D's first square; it is cut down to `crop`, so it sets no size of its own. Kept for the
    record."""

    crop: float = 700.0
    """Side of the centre crop in the same pixels."""

    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point of the standard face's space that comes to the centre of the crop, in model units. EG3D: its
    origin."""

    def __post_init__(self) -> None:
        if not (0.0 < self.rescale and 0.0 < self.crop <= self.target):
            raise ValueError(
                f"Alignment: rescale must be positive and 0 < crop <= target; got rescale {self.rescale}, "
                f"crop {self.crop}, target {self.target}"
            )


EG3D_ALIGNMENT = Alignment()
"""The paper's crop: rescale 300 of 1024, centre 700."""


@dataclass(frozen=True)
class Crop:
    """A square of a frame, in pixels of the frame (the centre of the first pixel is at 0.5)."""

    center_x: float
    center_y: float
    side: float
    angle: float = 0.0
    """How the square is turned, radians, positive clockwise as one sees it: a head tilted by this stands level in it."""

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Points ``(..., 2)`` in pixels of the frame -> float32 positions in [0, 1] of the crop."""
        away = np.asarray(points_px, dtype=np.float64) - np.array([self.center_x, self.center_y])
        return (away @ plane_turn(-self.angle).T / self.side + 0.5).astype(np.float32)

    def from_crop(self, points: np.ndarray) -> np.ndarray:
        """Positions ``(..., 2)`` in [0, 1] of the crop -> float32 pixels of the frame."""
        away = (np.asarray(points, dtype=np.float64) - 0.5) * self.side
        return (away @ plane_turn(self.angle).T + np.array([self.center_x, self.center_y])).astype(np.float32)


def plane_turn(angle: float) -> np.ndarray:
    """``(2, 2)`` turns points of a picture (y down) by an angle in radians, clockwise as one sees it."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """68 points ``(..., 68, 2)`` -> ``(..., 5, 2)``: eye centres (mean of the corners), nose tip, mouth corners."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks must have shape (..., 68, 2); got {points.shape}")
    eyes = (points[..., [36, 42], :] + points[..., [39, 45], :]) / 2.0
    return np.concatenate([eyes, points[..., [30, 48, 54], :]], axis=-2)


def fit_affine(five: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of an affine camera from the standard face to five points ``(..., 5, 2)``, y down.

    Returns:
        The matrix ``(..., 2, 3)`` and the translation ``(..., 2)``, in the unit of the points but with y up.
    """
    rows = _INVERSE @ (np.asarray(five, dtype=np.float64) * np.array([1.0, -1.0]))  # (..., 4, 2)
    return np.swapaxes(rows[..., :3, :], -1, -2), rows[..., 3, :]


def crop_squares(landmarks: np.ndarray, alignment: Alignment = EG3D_ALIGNMENT) -> np.ndarray:
    """Crop squares of many faces: ``(..., 68, 2)`` -> ``(..., 3)`` centre x, centre y, side, in the same unit.

    An affine camera is fitted to the five points by least squares; the mean length of the two rows of its matrix is
    the scale, the image of `alignment.origin` the centre.
    """
    matrix, translation = fit_affine(five_points(landmarks))
    scale = np.linalg.norm(matrix, axis=-1).mean(axis=-1)
    centre = translation + matrix @ np.asarray(alignment.origin)
    side = scale * alignment.crop / alignment.rescale
    return np.stack([centre[..., 0], -centre[..., 1], side], axis=-1)


def crop_transform(landmarks_px: np.ndarray, alignment: Alignment = EG3D_ALIGNMENT) -> Crop:
    """The crop of one face from its landmarks ``(68, 2)`` in pixels of the frame."""
    x, y, side = (float(value) for value in crop_squares(landmarks_px, alignment))
    return Crop(x, y, side)


def crop_image(frame: np.ndarray, crop: Crop, size: int = 256) -> np.ndarray:
    """Cut a square out of a frame and resize it with antialiasing (Lanczos); outside the frame is black.

    Args:
        frame: uint8 ``(H, W, 3)``.
        size: side of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    if size < 1 or not (crop.side > 0.0 and math.isfinite(crop.side)):
        raise ValueError(f"crop_image: size must be at least 1 and the side positive; got {size} and {crop.side}")
    if crop.angle:
        return _turned_image(frame, crop, size)
    # Huge crops are first averaged down by a whole factor; two pixels per output pixel are left for the
    # filter.
    factor = max(1, int(crop.side / (2.0 * size)))
    margin = 4 * factor  # room for the filter's support
    left, top = crop.center_x - crop.side / 2.0, crop.center_y - crop.side / 2.0
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    span = math.ceil(crop.side) + 2 * margin + 1
    span += -span % factor
    height, width = frame.shape[:2]
    inner = (max(x0, 0), max(y0, 0), min(x0 + span, width), min(y0 + span, height))
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return np.zeros((size, size, 3), dtype=np.uint8)
    canvas = Image.new("RGB", (span, span))
    part = np.ascontiguousarray(frame[inner[1] : inner[3], inner[0] : inner[2]])
    canvas.paste(Image.fromarray(part), (inner[0] - x0, inner[1] - y0))
    if factor > 1:
        canvas = canvas.reduce(factor)
    x, y, side = (value / factor for value in (left - x0, top - y0, crop.side))
    box = (x, y, x + side, y + side)
    return np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS, box=box))


def _turned_image(frame: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """A turned crop: the upright square around it, turned in twice the resolution, then its middle."""
    reach = abs(math.cos(crop.angle)) + abs(math.sin(crop.angle))
    fine = 2 * size
    wide = crop_image(frame, Crop(crop.center_x, crop.center_y, crop.side * reach), math.ceil(fine * reach))
    scale = wide.shape[0] / (fine * reach)
    (a, b), (c, d) = scale * plane_turn(crop.angle)
    middle, half = wide.shape[0] / 2.0, fine / 2.0
    affine = (a, b, middle - (a + b) * half, c, d, middle - (c + d) * half)
    turned = Image.fromarray(wide).transform((fine, fine), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(turned.reduce(2))


_INVERSE = np.linalg.pinv(np.concatenate([STANDARD_POINTS, np.ones((5, 1))], axis=1))
"""``(4, 5)``: least squares for one row of the affine camera."""
