"""Targets of a training step at the sizes it renders: shrunk, cut to windows, weighted (Sec. 6.3 and options)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.landmarks import BROWS, EYES, MOUTH
from export3d.rendering.rays import Window

_INSIDE_SHARE = 0.75  # a pixel of the shrunk depth counts if this share of it is head


def cut(image: Tensor, window: Window | None, scale: int = 1) -> Tensor:
    """The window of each sample: ``(B, C, H, W)`` -> ``(B, C, side * scale, side * scale)``."""
    if window is None:
        return image
    side = window[2] * scale
    places = zip(window[0].tolist(), window[1].tolist(), strict=True)
    parts = [
        image[i, :, top * scale : top * scale + side, left * scale : left * scale + side]
        for i, (top, left) in enumerate(places)
    ]
    return torch.stack(parts)


def trim(image: Tensor, window: Window, raw_size: int, edge_px: int) -> Tensor:
    """A window's picture without `edge_px` pixels on each side, where the super-resolution misses what lies beside it.

    At the border of the whole picture nothing lies beside it, so there no pixel is left out (and twice as many on the other
    side, so that all windows stay of one size): else the picture's outermost pixels would never be compared.

    Args:
        image: ``(B, C, s, s)``.
        window: where the windows lie in the raw image.
        raw_size: side of the raw image in rays.

    Returns:
        ``(B, C, s - 2 * edge_px, s - 2 * edge_px)``; the picture itself if the window is all of it.
    """
    last, side = raw_size - window[2], image.shape[-1] - 2 * edge_px
    if last == 0:
        return image

    def first(place: int) -> int:
        return 0 if place == 0 else 2 * edge_px if place == last else edge_px

    places = zip(window[0].tolist(), window[1].tolist(), strict=True)
    corners = [(first(top), first(left)) for top, left in places]
    return torch.stack([image[i, :, y : y + side, x : x + side] for i, (y, x) in enumerate(corners)])


def shrink_mask(mask: Tensor, size: int) -> Tensor:
    """``(B, H, W)`` uint8 alpha -> ``(B, 1, size, size)`` covered share in [0, 1]."""
    return F.interpolate(mask[:, None].float() / 255.0, size=(size, size), mode="area")


def shrink_depth(depth: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean depth of the head's pixels in each cell, and where enough of the cell is head.

    Args:
        depth: ``(B, 1, H, W)`` scene units, 0 where there is no head.

    Returns:
        depth and inside, each ``(B, 1, size, size)``.
    """
    known = (depth > 0).float()
    share = F.interpolate(known, size=(size, size), mode="area")
    mean = F.interpolate(depth, size=(size, size), mode="area") / share.clamp(min=1e-6)
    return mean, (share >= _INSIDE_SHARE).float()


def focus_weight(landmarks: Tensor, size: int, focus: float) -> Tensor:
    """1 everywhere plus `focus` inside boxes around each eye with its brow, and the mouth: ``(B, 1, size, size)``."""
    centre = (torch.arange(size, device=landmarks.device, dtype=torch.float32) + 0.5) / size
    boxes = torch.zeros(landmarks.shape[0], size, size, device=landmarks.device)
    left_eye, right_eye = landmarks[:, EYES].chunk(2, dim=1)
    left_brow, right_brow = landmarks[:, BROWS].chunk(2, dim=1)
    eyes = (torch.cat([left_brow, left_eye], dim=1), torch.cat([right_brow, right_eye], dim=1))
    for points in (*eyes, landmarks[:, MOUTH]):  # (B, K, 2)
        low, high = points.amin(dim=1), points.amax(dim=1)
        margin = 0.3 * (high - low).amax(dim=1, keepdim=True)
        low, high = low - margin, high + margin
        in_x = (centre >= low[:, :1]) & (centre <= high[:, :1])  # (B, size)
        in_y = (centre >= low[:, 1:]) & (centre <= high[:, 1:])
        boxes = torch.maximum(boxes, (in_y[:, :, None] & in_x[:, None, :]).float())
    return (1.0 + focus * boxes)[:, None]
