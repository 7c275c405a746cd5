"""How a figure is put together: header, labels, tiles; false colours of errors and depth with their legend (Sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LABEL_PX = 120
"""Width of the column of labels at the left."""

LINE_PX = 13
"""Height of a line of text."""

HEADER_LINES = 2
HEADER_PX = HEADER_LINES * LINE_PX + 4
"""Height of the row of column names."""

LEGEND_PX = 30
"""Height of the legend of error maps."""

ERROR_FULL = 64
"""Mean absolute difference, 8-bit levels, from which an error map has its last colour. Fixed: figures can be compared."""

_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_HEAT = np.array([(0, 0, 0), (70, 15, 110), (185, 50, 90), (245, 130, 35), (255, 250, 190)], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A label (lines of text) and one uint8 ``(S, S, 3)`` tile for each column."""

    label: str
    tiles: Sequence[np.ndarray]


def lay_out(columns: Sequence[str], rows: Sequence[SheetRow], *, with_legend: bool = False) -> np.ndarray:
    """A figure: a header with the names of the columns, then rows with their label at the left.

    Tile (row, column) of side S has its upper left corner at ``(HEADER_PX + row * S, LABEL_PX + column * S)``.

    Args:
        columns: names of the columns; a long one is broken into two lines, then cut.
        rows: at least one; all tiles of one size.
        with_legend: put the colour scale of the error maps below.

    Returns:
        uint8 ``(HEADER_PX + rows * S + legend, LABEL_PX + columns * S, 3)``.

    Raises:
        ValueError: No rows, a row with another number of tiles, or tiles of several sizes.
    """
    if not rows:
        raise ValueError("a figure needs at least one row")
    side = rows[0].tiles[0].shape[0]
    for row in rows:
        if len(row.tiles) != len(columns) or any(tile.shape != (side, side, 3) for tile in row.tiles):
            shapes = [tile.shape for tile in row.tiles]
            raise ValueError(f"row '{row.label}': expected {len(columns)} tiles of {side} x {side} x 3; got {shapes}")
    width = LABEL_PX + len(columns) * side
    bottom = HEADER_PX + len(rows) * side
    sheet = Image.new("RGB", (width, bottom + (LEGEND_PX if with_legend else 0)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, name in enumerate(columns):
        _write(pen, name, (LABEL_PX + number * side + 2, 2), side - 4, HEADER_LINES)
    for number, row in enumerate(rows):
        top = HEADER_PX + number * side
        _write(pen, row.label, (2, top + 2), LABEL_PX - 4, max(side // LINE_PX, 1))
        for column, tile in enumerate(row.tiles):
            sheet.paste(Image.fromarray(tile), (LABEL_PX + column * side, top))
    if with_legend:
        _legend(sheet, pen, bottom, width)
    return np.asarray(sheet)


def error_levels(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``(H, W)`` absolute difference of two uint8 ``(H, W, 3)`` pictures, mean over the channels, 8-bit levels."""
    return np.abs(image.astype(np.float32) - truth.astype(np.float32)).mean(axis=-1)


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The same in false colour, uint8 ``(H, W, 3)``: black is 0, the last colour is `ERROR_FULL` levels and more."""
    return heat(error_levels(image, truth) / ERROR_FULL)


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] (clipped) of any shape -> uint8 colours ``(..., 3)``: black, violet, red, orange, pale yellow."""
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    channels = [np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _write(pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, lines: int) -> None:
    """Write text that is broken where it must be; what does not fit into `lines` is left out."""
    font = ImageFont.load_default()
    for number, line in enumerate(_broken(text, font, width)[:lines]):
        pen.text((place[0], place[1] + number * LINE_PX), line, fill=_INK, font=font)


def _broken(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels: broken at line ends, then at spaces, then inside a word."""
    out = []
    for paragraph in text.encode("ascii", "replace").decode().split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            if line:
                out.append(line)
            line = word
            while font.getlength(line) > width and len(line) > 1:
                fits = max((n for n in range(1, len(line)) if font.getlength(line[:n]) <= width), default=1)
                out.append(line[:fits])
                line = line[fits:]
        out.append(line)
    return out


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, top: int, width: int) -> None:
    bar = min(256, width - LABEL_PX)
    colours = heat(np.repeat(np.linspace(0.0, 1.0, bar)[None], 12, axis=0))
    sheet.paste(Image.fromarray(colours), (LABEL_PX, top + 3))
    font = ImageFont.load_default()
    pen.text((2, top + 3), "absolute error", fill=_INK, font=font)
    last = f"{ERROR_FULL} of 255 and more"
    pen.text((LABEL_PX, top + 16), "0", fill=_INK, font=font)
    pen.text((LABEL_PX + bar - font.getlength(last), top + 16), last, fill=_INK, font=font)
