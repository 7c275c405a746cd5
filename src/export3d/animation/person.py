"""A photograph taken apart (not in the paper): its person, and what is behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

_FACE = (slice(30, 60), slice(38, 62))
"""Percent of the crop (down, aside) that are face."""

_PLAIN = 150.0
"""Grey level behind the person in the picture that the networks read: they see heads that are not there in busy
backgrounds."""

ROOMS = (0.0, 0.15, 0.3)
"""So much of the crop's side above it and at both sides moves along with the head: as much as hair or a hat reach beyond it."""

_BORDER = 0.06
"""Share of the crop's side that is its border; what of the upper part is there may be cut."""

SOFTENED = 0.06
"""Beyond so much of the crop's side outside the photograph its continuation is all blurred."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """The person of a photograph.

    Attributes:
        share: float32 ``(H, W)`` in [0, 1], how much of each pixel of the photograph is a person.
        own: the same of the one person who is driven; nothing of bystanders.
        plain: uint8 ``(H', W', 3)`` the person before grey; as large as the photograph and the crop together.
        spread: the same with the person's colours continued beyond their outline.
        crop: the crop in these two.
        room: share of the crop's side above it and at both sides that moves along with the head, of `ROOMS`.
    """

    share: np.ndarray
    own: np.ndarray
    plain: np.ndarray
    spread: np.ndarray
    crop: Crop
    room: float = 0.0


def person_apart(
    image: np.ndarray,
    crop: Crop,
    matte: Callable[[], Tensor],
    *,
    others: Sequence[Crop] = (),
    opacity: np.ndarray | None = None,
) -> Person:
    """Find the person in a photograph uint8 ``(H, W, 3)`` around the crop of their face.

    By the photograph's own `opacity` uint8 ``(H, W)``, where it is a cutout; else by MediaPipe's segmentation; where that is
    not there or finds no face, by the model's own `matte` of the crop, ``(1, m, m)`` in [0, 1]. `others` are bystanders.

    Raises:
        UsageError: The model's own matte takes the background for the person.
    """
    share = find_person(image, crop) if opacity is None else opacity.astype(np.float32) / 255.0
    if share is None or not _holds_face(share, crop):
        share = _share_of(matte(), image.shape, crop)
    own = own_share(share, crop, others)
    wider = [replace(crop, side=crop.side * (1.0 + 2.0 * room)) for room in ROOMS]
    room, canvas = next(
        ((r, c) for r, c in zip(ROOMS, wider, strict=True) if not _is_cut(own, c)), (ROOMS[-1], wider[-1])
    )
    wide, moved = continued(image, canvas)
    beyond = _beyond(image.shape, canvas)
    inside = np.pad(own, beyond, mode="edge")[..., None]
    plain = inside * wide + (1.0 - inside) * _PLAIN
    moved = replace(moved, side=crop.side)
    colours = spread(wide, torch.from_numpy((inside[..., 0] < 0.8).astype(np.float32))[None], blur=1.0).permute(1, 2, 0)
    made = (x.round().astype(np.uint8) for x in (plain, colours.numpy()))
    return Person(share=share, own=own, plain=next(made), spread=next(made), crop=moved, room=room)


def _is_cut(own: np.ndarray, crop: Crop) -> bool:
    """Whether the person ``(H, W)`` reaches the crop's border above the mouth, inside the photograph."""
    y, x = (np.mgrid[:55, :100] + 0.5) / 100.0
    border = (y < _BORDER) | (np.abs(x - 0.5) > 0.5 - _BORDER)
    column, row = crop.from_crop(np.stack([x, y], axis=-1)[border]).astype(int).T
    inside = (row >= 0) & (row < own.shape[0]) & (column >= 0) & (column < own.shape[1])
    return bool((own[row[inside], column[inside]] > 0.5).any())


def continued(image: np.ndarray, crop: Crop) -> tuple[np.ndarray, Crop]:
    """The photograph as far as the crop reaches, and the crop there. Beyond the photograph its border pixels are repeated,
    the more blurred the farther: never black."""
    pads = _beyond(image.shape, crop)
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return image, crop
    wide = np.pad(image, (*pads, (0, 0)), mode="edge")
    far_y, far_x = (
        np.maximum(np.arange(-first, n + last) - (n - 1), np.arange(first, -n - last, -1)).clip(0)
        for n, (first, last) in zip(image.shape[:2], pads, strict=True)
    )
    weight = (np.maximum(far_y[:, None], far_x) / (SOFTENED * crop.side)).clip(0.0, 1.0)[..., None]
    soft = np.asarray(Image.fromarray(wide).filter(ImageFilter.GaussianBlur(SOFTENED * crop.side / 2.0)))
    wide = (wide + weight * (soft.astype(np.float32) - wide)).round().astype(np.uint8)
    return wide, replace(crop, center_x=crop.center_x + left, center_y=crop.center_y + top)


def spread(image: np.ndarray, hole: Tensor, *, blur: float) -> Tensor:
    """``(3, H, W)`` in [0, 255]: the picture uint8 ``(H, W, 3)``, colours from around the hole ``(1, H, W)`` spread into it and
    blurred there by `blur` pixels."""
    picture = filled(planes(image), hole).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    # What was spread has the blocks of coarse grids.
    softer = planes(np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(blur))))
    return torch.where(hole > 0.0, softer, planes(image))


def filled(light: Tensor, hole: Tensor) -> Tensor:
    """``(C, H, W)``: what is around the hole ``(1, H, W)`` spread into it."""
    height, width = light.shape[1:]
    cells = 2 ** max(math.ceil(math.log2(max(height, width))) - 2, 0)
    pads = (0, -width % cells, 0, -height % cells)
    known = fill_background(F.pad(light, pads)[None], F.pad(hole, pads, value=1.0)[None], reach=0)
    return known[0, :, :height, :width]


def planes(image: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` -> float32 ``(3, H, W)``, a copy."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def _share_of(matte: Tensor, shape: tuple[int, ...], crop: Crop) -> np.ndarray:
    """``(H, W)``: the matte in the photograph; what touches the crop's border goes on beyond it."""
    half = matte.shape[-1] // 2
    sides = torch.cat([matte[0, 0], matte[0, :half, 0], matte[0, :half, -1]])
    if float((sides > 0.5).float().mean()) > _MOST_AT_BORDER:
        raise UsageError(
            "the person cannot be told from the background of this source image, as --framing photo and --background ask. "
            f"Run: {PERSON_SEGMENTATION.command}, take a plainer photo, or --framing face."
        )
    grid = crop_places(crop, shape)[None] * 2.0 - 1.0
    return F.grid_sample(matte[None].float().cpu(), grid, "bilinear", "border", align_corners=False)[0, 0].numpy()


def crop_places(crop: Crop, shape: tuple[int, ...], scale: np.ndarray | float = 1.0) -> Tensor:
    """``(H, W, 2)``: where the pixels of a photograph of shape (H, W, ..), enlarged by `scale`, lie in the crop, in [0, 1]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return torch.from_numpy(crop.to_crop((np.stack([x, y], axis=-1) + 0.5) / scale))


def _beyond(shape: tuple[int, ...], crop: Crop) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels by which the crop reaches beyond a photograph of shape (H, W, ..): (top, bottom), (left, right)."""
    reach = crop.side / 2.0 * (abs(math.cos(crop.angle)) + abs(math.sin(crop.angle)))
    far = [(reach - at, at + reach - n) for at, n in zip((crop.center_y, crop.center_x), shape[:2], strict=True)]
    top_bottom, left_right = ((max(math.ceil(a), 0), max(math.ceil(b), 0)) for a, b in far)
    return top_bottom, left_right


def _holds_face(share: np.ndarray, crop: Crop) -> bool:
    """Whether most of the face counts as a person."""
    places = (np.mgrid[_FACE[1], _FACE[0]].reshape(2, -1).T + 0.5) / 100.0
    x, y = crop.from_crop(places).astype(int).T
    height, width = share.shape
    return float(share[y.clip(0, height - 1), x.clip(0, width - 1)].mean()) > 0.5


def own_share(share: np.ndarray, crop: Crop, others: Sequence[Crop]) -> np.ndarray:
    """The share of persons ``(H, W)`` where a pixel is nearer to this head than to another one, larger heads reaching
    farther; else 0."""
    y, x = np.mgrid[: share.shape[0], : share.shape[1]].astype(np.float32) + 0.5
    own, *away = (np.hypot(x - c.center_x, y - c.center_y) - c.side / 4.0 for c in (crop, *others))
    return share * np.all([own <= other for other in away], axis=0) if away else share
