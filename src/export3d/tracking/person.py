"""The person in a photograph, by MediaPipe's selfie segmentation (not in the paper)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from export3d.downloads import PERSON_SEGMENTATION, find
from export3d.errors import UsageError
from export3d.tracking.alignment import Crop
from export3d.tracking.mediapipe_graphs import _quiet, import_mediapipe

_LARGEST_PX = 1024
"""Pictures are reduced to this side: the network looks at 256 pixels."""

_NEAR = 1.7
"""Side of the second, closer look over that of the crop: head and shoulders, as the network knows them."""

_GUIDE_PX, _GUIDE_REACH = 384, 6
"""Longest side of the picture whose edges the share takes on, and how far from its own they may be, pixels."""

_EDGE = 0.03
"""Difference of colours, of 1, that is an edge."""

_UNDECIDED = (0.2, 0.8)
"""Between these shares of the coarse network nothing is sure; outside it is all or nothing."""


def find_person(image: np.ndarray, crop: Crop) -> np.ndarray | None:
    """How much of each pixel is a person: float32 ``(H, W)`` in [0, 1]; None where the network has not been fetched.

    The whole photograph is looked at, and the surroundings of the face once more from near.

    Args:
        image: uint8 ``(H, W, 3)`` RGB.
        crop: the square of the face.
    """
    path = find(PERSON_SEGMENTATION)
    if path is None:
        return None
    with _Segmenter(path) as segmenter:
        whole = segmenter.look(image)
        height, width = image.shape[:2]
        half = _NEAR * crop.side / 2.0
        left, top = max(math.floor(crop.center_x - half), 0), max(math.floor(crop.center_y - half), 0)
        right, bottom = math.ceil(min(crop.center_x + half, width)), math.ceil(min(crop.center_y + half, height))
        large = (right - left) * (bottom - top) > 0.8 * width * height
        if right - left >= 2 and bottom - top >= 2 and not large:
            near = segmenter.look(image[top:bottom, left:right])
            share = _inner(bottom - top, top > 0, bottom < height)[:, None] * _inner(
                right - left, left > 0, right < width
            )
            part = whole[top:bottom, left:right]
            part += share * (near - part)
    return refined(image, whole)


def refined(image: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A coarse share ``(H, W)`` with the edges of the picture uint8 ``(H, W, 3)``, and decided where it hardly was: a guided
    filter (He et al. 2013), whose coefficients come from a small picture."""
    picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255.0
    given, shape = torch.from_numpy(share)[None, None], share.shape
    size = [max(round(n * min(_GUIDE_PX / max(shape), 1.0)), 2) for n in shape]
    small, coarse = (F.interpolate(x, size=size, mode="area") for x in (picture, given))
    colour, level = _mean(small), _mean(coarse)
    moments = _mean((small[:, :, None] * small[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    spread = (moments - colour[:, :, None] * colour[:, None]).permute(0, 3, 4, 1, 2) + _EDGE**2 * torch.eye(3)
    together = (_mean(small * coarse) - colour * level).permute(0, 2, 3, 1)
    slope = torch.linalg.solve(spread, together).permute(0, 3, 1, 2)
    found = _mean(torch.cat([slope, level - (slope * colour).sum(dim=1, keepdim=True)], dim=1))
    found = F.interpolate(found, size=shape, mode="bilinear", align_corners=False)
    low, high = _UNDECIDED
    sure = (((found[:, :3] * picture).sum(dim=1) + found[:, 3] - low) / (high - low)).clamp(0.0, 1.0)
    return (sure * sure * (3.0 - 2.0 * sure))[0].numpy()


def _mean(x: Tensor) -> Tensor:
    """Over the square around each pixel ``(B, C, h, w)``, inside the picture."""
    return F.avg_pool2d(x, 2 * _GUIDE_REACH + 1, 1, _GUIDE_REACH, count_include_pad=False)


def _inner(length: int, starts: bool, ends: bool) -> np.ndarray:
    """``(length,)``: 1 inside, falling to 0 over a tenth at the ends that lie inside the picture."""
    place = (np.arange(length, dtype=np.float32) + 0.5) / (0.1 * length)
    inside = np.ones_like(place)
    return np.minimum(place if starts else inside, place[::-1] if ends else inside).clip(0.0, 1.0)


class _Segmenter:
    """MediaPipe's image segmenter, open."""

    def __init__(self, path: Path) -> None:
        self._mediapipe = import_mediapipe()
        vision, base = self._mediapipe.tasks.vision, self._mediapipe.tasks.BaseOptions
        options = vision.ImageSegmenterOptions(
            base_options=base(model_asset_buffer=path.read_bytes()), output_confidence_masks=True
        )
        with _quiet():
            try:
                self._graph: Any = vision.ImageSegmenter.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                raise UsageError(
                    f"{path}: MediaPipe cannot load this as a segmentation of persons ({error}). Unset "
                    f"{PERSON_SEGMENTATION.variable}."
                ) from error

    def __enter__(self) -> _Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        with _quiet():
            self._graph.close()

    def look(self, image: np.ndarray) -> np.ndarray:
        """float32 ``(H, W)`` of a uint8 ``(H, W, 3)`` picture."""
        height, width = image.shape[:2]
        shrink = max(height, width) / _LARGEST_PX
        small = image
        if shrink > 1.0:
            size = (max(round(width / shrink), 1), max(round(height / shrink), 1))
            small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        mp = self._mediapipe
        with _quiet():  # the first picture makes it warn of things that are as they should be
            result = self._graph.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(small)))
        mask = np.array(result.confidence_masks[0].numpy_view(), dtype=np.float32)
        mask = mask.reshape(small.shape[:2]).clip(0.0, 1.0)
        if small is not image:
            mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
        return np.array(mask)
