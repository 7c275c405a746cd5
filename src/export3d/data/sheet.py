"""Contact sheets: frames of clips with landmarks and the head's axes drawn on top (docs/data.md)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from export3d.camera import Camera
from export3d.data.dataset import ClipDataset

AXIS_LENGTH = 0.3
"""Length of the drawn axes in scene units; a head is about 0.5 high."""

_AXIS_COLORS = ((230, 60, 50), (60, 200, 70), (70, 120, 255))  # x red, y green, z blue
_LANDMARK_COLOR = (255, 230, 0)
_LABEL_HEIGHT_PX = 14


def contact_sheet(
    data: ClipDataset, *, max_clips: int = 12, columns: int = 6, tile_px: int = 192, draw: bool = True
) -> np.ndarray:
    """One row per clip, `columns` frames spread over it.

    Args:
        max_clips: clips shown, spread over the data set.
        columns: frames of each clip.
        tile_px: side of one picture.
        draw: draw landmarks and axes.

    Returns:
        uint8 ``(rows * (tile_px + 14), columns * tile_px, 3)``.
    """
    clips = sorted({int(i) for i in np.linspace(0, len(data) - 1, min(max_clips, len(data))).round()})
    row_px = tile_px + _LABEL_HEIGHT_PX
    sheet = Image.new("RGB", (columns * tile_px, len(clips) * row_px), (24, 24, 24))
    pen = ImageDraw.Draw(sheet)
    for row, clip in enumerate(clips):
        times = np.linspace(0, data.num_frames(clip) - 1, columns).round().astype(int)
        for column, time in enumerate(times):
            tile = Image.fromarray(data.frame(clip, int(time))).resize((tile_px, tile_px))
            if draw:
                arrays = data.arrays(clip)
                draw_pose(tile, arrays["landmarks"][time], arrays["camera"][time])
            sheet.paste(tile, (column * tile_px, row * row_px + _LABEL_HEIGHT_PX))
        label = f"{data.keys[clip]}  {data.num_frames(clip)} frames  {data.identity(clip)}"
        pen.text((3, row * row_px + 1), label.encode("ascii", "replace").decode(), fill=(220, 220, 220))
    return np.asarray(sheet)


def draw_pose(picture: Image.Image, landmarks: np.ndarray, camera: np.ndarray) -> None:
    """Draw on `picture`, in place.

    Args:
        landmarks: ``(68, 2)`` in [0, 1].
        camera: ``(25,)``; the axes of the world (x right, y up, z out of the face) are projected with it.
    """
    pen = ImageDraw.Draw(picture)
    size = np.array(picture.size)
    radius = max(1.0, size[0] / 160)
    for x, y in landmarks * size:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_LANDMARK_COLOR)
    # (4, 3): the origin and the three ends
    points = torch.cat([torch.zeros(1, 3), AXIS_LENGTH * torch.eye(3)])
    view = Camera.from_vector(torch.from_numpy(camera[None].astype(np.float32)))
    ends = view.project(points[None])[0][0].numpy() * size  # (4, 2)
    for end, color in zip(ends[1:], _AXIS_COLORS, strict=True):
        pen.line((*ends[0], *end), fill=color, width=max(2, int(size[0] / 64)))
