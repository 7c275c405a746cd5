"""A made-up photograph, a person in it and a head to put there, for the tests of films."""

from __future__ import annotations

import math

import numpy as np
import torch

from export3d.animation.head import HeadLayer
from export3d.animation.person import Person
from export3d.tracking import Crop

CROPS = {
    "upright": Crop(120.0, 90.0, 80.0),
    "tilted": Crop(120.0, 90.0, 80.0, math.radians(35.0)),
    "beyond": Crop(30.0, 20.0, 100.0),
    "beyond and tilted": Crop(215.0, 150.0, 100.0, math.radians(-20.0)),
}


def a_photo(height: int = 180, width: int = 240) -> np.ndarray:
    """Noise on a slope: no two pixels agree by chance."""
    noise = np.random.default_rng(3).integers(0, 60, (height, width, 3))
    return (noise + np.linspace(60, 180, width)[None, :, None]).astype(np.uint8)


def a_disc(size: int, radius: float, x: float = 0.5) -> torch.Tensor:
    """``(1, size, size)``: 1 within a circle of the crop, hard."""
    place = (torch.arange(size) + 0.5) / size
    return (torch.hypot(place[None] - x, place[:, None] - 0.4) < radius).float()[None]


def a_head(size: int = 64, radius: float = 0.25, x: float = 0.5) -> HeadLayer:
    """A green head."""
    opacity = a_disc(size, radius, x)
    return HeadLayer(opacity * torch.tensor([20.0, 230.0, 40.0])[:, None, None], opacity)


def share_in(photo: np.ndarray, crop: Crop, radius: float = 0.2) -> np.ndarray:
    """The person of a photograph: a circle around the face."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    away = np.hypot(*(crop.to_crop(np.stack([x, y], -1) + 0.5) - np.array([0.5, 0.4], np.float32)).transpose(2, 0, 1))
    return (away < radius).astype(np.float32)


def a_person(share: np.ndarray, own: np.ndarray | None = None) -> Person:
    """Only the shares, which is all that a pasteboard asks for."""
    return Person(
        share=share, own=share if own is None else own, plain=a_photo(), spread=a_photo(), crop=CROPS["upright"]
    )
