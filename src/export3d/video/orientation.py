"""Decoded picture -> upright RGB array with square pixels."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from av.video.reformatter import ColorPrimaries, Colorspace, VideoReformatter

from export3d.video.colours import is_wide, to_bt709

_UNSPECIFIED_COLORSPACE = 2
_HD_HEIGHT_PX = 720
_MAX_ASPECT = 16
_QUARTER_TURNS = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}


def to_upright_rgb(
    picture: Any, stream: Any, reformatter: VideoReformatter, size: tuple[int, int] | None = None
) -> np.ndarray:
    """uint8 ``(H, W, 3)`` of a decoded picture; the reformatter is kept between frames, making one is slow.

    Args:
        size: width and height before turning: of the first picture, for films whose size changes.
    """
    width, height = size or (None, None)
    aspect = stream.sample_aspect_ratio
    if size is None and aspect and 1 / _MAX_ASPECT < aspect < _MAX_ASPECT and aspect != 1:
        width = max(2, round(picture.width * aspect))
    colorspace = None
    if picture.colorspace == _UNSPECIFIED_COLORSPACE and picture.height >= _HD_HEIGHT_PX:
        colorspace = Colorspace.ITU709  # what players assume for untagged HD
    wide = is_wide(picture)
    if wide and picture.colorspace == _UNSPECIFIED_COLORSPACE and picture.color_primaries != ColorPrimaries.SMPTE432:
        colorspace = Colorspace.BT2020
    kind = "rgb48le" if wide else "rgb24"
    rgb = reformatter.reformat(picture, format=kind, width=width, height=height, src_colorspace=colorspace).to_ndarray()
    image = to_bt709(rgb, picture) if wide else rgb
    return np.ascontiguousarray(apply_display_matrix(image, _display_matrix(picture)))


def _display_matrix(picture: Any) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of the display matrix, each -1, 0 or 1: shown x = a p + c q, y = b p + d q (y down)."""
    try:
        side_data = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV has no name for another kind of side data beside it, such as a phone's EXIF
        return _QUARTER_TURNS.get(round(picture.rotation) % 360)
    if side_data is None:
        return None
    numbers = struct.unpack("<9i", bytes(side_data)[:36])
    a, b, c, d = (round(numbers[i] / 65536) for i in (0, 1, 3, 4))
    return (a, b, c, d) if abs(a * d - b * c) == 1 else None  # right angles only; the rest is left as it is


def apply_display_matrix(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    if matrix is None:
        return image
    a, b, c, d = matrix
    if a == 0:  # rows and columns change places
        image = image.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
