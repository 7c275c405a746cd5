"""A photograph taken apart (not in the paper): its person, and what is behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from export3d.downloads import PERSON_SEGMENTATION
from export3d.errors import UsageError
from export3d.portrait.background import fill_background
from export3d.tracking import Crop
from export3d.tracking.person import find_person

HOLE_FROM = 0.1
"""From this share on a pixel belongs to the hole that the person leaves."""

_MOST_AT_BORDER = 0.3
"""A head touches no more of the crop's upper border and upper sides."""

_PLAIN = 150.0
"""Grey level behind the person in the picture that the networks read: they see heads that are not there in busy
backgrounds."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """The person of a photograph.

    Attributes:
        share: float32 ``(H, W)`` in [0, 1], how much of each pixel of the photograph is the person.
        plain: uint8 ``(H', W', 3)`` the person before grey; as large as the photograph and the crop together.
        spread: the same with the person's colours continued beyond their outline.
        crop: the crop in these two.
    """

    share: np.ndarray
    plain: np.ndarray
    spread: np.ndarray
    crop: Crop


def person_apart(image: np.ndarray, crop: Crop, matte: Callable[[], Tensor]) -> Person:
    """Find the person in a photograph uint8 ``(H, W, 3)`` around the crop of their face.

    By MediaPipe's segmentation; where it is not installed, by the model's own `matte` of the crop, ``(1, m, m)`` in [0, 1].

    Raises:
        UsageError: The model's own matte takes the background for the person.
    """
    share = find_person(image, crop)
    if share is None:
        share = _share_of(matte(), image.shape, crop)
    wide, own, moved = _continued(image, share, crop)
    plain = own[..., None] * wide + (1.0 - own[..., None]) * _PLAIN
    beyond = torch.from_numpy((own < 0.8).astype(np.float32))[None]
    colours = spread(wide, beyond, blur=1.0).permute(1, 2, 0)
    made = (x.round().astype(np.uint8) for x in (plain, colours.numpy()))
    return Person(share=share, plain=next(made), spread=next(made), crop=moved)


def spread(image: np.ndarray, hole: Tensor, *, blur: float) -> Tensor:
    """``(3, H, W)`` in [0, 255]: the picture uint8 ``(H, W, 3)``, colours from around the hole ``(1, H, W)`` spread into it and
    blurred there by `blur` pixels."""
    height, width = image.shape[:2]
    cells = 2 ** max(math.ceil(math.log2(max(height, width))) - 2, 0)
    pads = (0, -width % cells, 0, -height % cells)
    source = F.pad(planes(image) / 127.5 - 1.0, pads)
    filled = fill_background(source[None], F.pad(hole, pads, value=1.0)[None], reach=0)[0, :, :height, :width]
    picture = ((filled + 1.0) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    # What was spread has the blocks of coarse grids.
    softer = planes(np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(blur))))
    return torch.where(hole > 0.0, softer, planes(image))


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask ``(1, H, W)`` grown by so many pixels on all sides."""
    mask = F.max_pool2d(mask, (2 * pixels + 1, 1), 1, (pixels, 0))
    return F.max_pool2d(mask, (1, 2 * pixels + 1), 1, (0, pixels))


def planes(image: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` -> float32 ``(3, H, W)``, a copy."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def _share_of(matte: Tensor, shape: tuple[int, ...], crop: Crop) -> np.ndarray:
    """``(H, W)``: the matte in the photograph; what touches the crop's border goes on beyond it."""
    half = matte.shape[-1] // 2
    sides = torch.cat([matte[0, 0], matte[0, :half, 0], matte[0, :half, -1]])
    if float((sides > 0.5).float().mean()) > _MOST_AT_BORDER:
        raise UsageError(
            "--framing photo cannot tell the person from the background of this source image. Name a file "
            f"selfie_segmentation.tflite (MediaPipe's) in {PERSON_VARIABLE}, take a plainer photo, or --framing face."
        )
    grid = crop_places(crop, shape)[None] * 2.0 - 1.0
    return F.grid_sample(matte[None].float().cpu(), grid, "bilinear", "border", align_corners=False)[0, 0].numpy()


def crop_places(crop: Crop, shape: tuple[int, ...], scale: np.ndarray | float = 1.0) -> Tensor:
    """``(H, W, 2)``: where the pixels of a photograph of shape (H, W, ..), enlarged by `scale`, lie in the crop, in [0, 1]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return torch.from_numpy(crop.to_crop((np.stack([x, y], axis=-1) + 0.5) / scale))


def _continued(image: np.ndarray, share: np.ndarray, crop: Crop) -> tuple[np.ndarray, np.ndarray, Crop]:
    """Photograph and share with their border pixels repeated where the crop reaches beyond them (never black), and the crop
    there."""
    reach = crop.side / 2.0 * (abs(math.cos(crop.angle)) + abs(math.sin(crop.angle)))
    height, width = share.shape
    left, top = (max(math.ceil(reach - c), 0) for c in (crop.center_x, crop.center_y))
    right, bottom = max(math.ceil(crop.center_x + reach - width), 0), max(math.ceil(crop.center_y + reach - height), 0)
    pads = ((top, bottom), (left, right))
    wide = np.pad(image, (*pads, (0, 0)), mode="edge")
    moved = replace(crop, center_x=crop.center_x + left, center_y=crop.center_y + top)
    return wide, np.pad(share, pads, mode="edge"), moved
