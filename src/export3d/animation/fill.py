"""What a photograph may show behind its person: a smooth continuation of what is around (not in the paper)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.person import planes

LEVELS_PX = (12, 24, 48, 96, 192)
"""Longest sides of the pictures in which it is found, each from the one before."""

STEPS = 60
"""How often each pixel takes the mean of its neighbours there."""


def behind_person(photo: np.ndarray, hole: Tensor, person: Tensor) -> Tensor:
    """``(3, H, W)`` in [0, 255]: the photograph uint8 ``(H, W, 3)`` with its hole ``(1, H, W)`` filled from where no person
    ``(1, H, W)`` is, as smoothly as its border allows (Laplace's equation)."""
    whole, known = planes(photo), 1.0 - torch.maximum(hole, person).ceil()
    if not bool(known.any()):
        return whole
    value = (whole * known).sum(dim=(1, 2), keepdim=True)[None] / known.sum()
    for longest in LEVELS_PX:
        size = [max(round(n * longest / max(photo.shape)), 2) for n in photo.shape[:2]]
        weight = F.interpolate(known[None], size=size, mode="area")
        given = F.interpolate((whole * known)[None], size=size, mode="area") / weight.clamp_min(1e-6)
        value = F.interpolate(value, size=size, mode="bilinear", align_corners=False)
        for _ in range(STEPS):
            value = torch.where(weight > 0.0, given, value)
            wide = F.pad(value, (1, 1, 1, 1), mode="replicate")
            value = (wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]) / 4.0
    smooth = F.interpolate(value, size=photo.shape[:2], mode="bicubic", align_corners=False)[0]
    return torch.where(hole > 0.0, smooth.clamp(0.0, 255.0), whole)
