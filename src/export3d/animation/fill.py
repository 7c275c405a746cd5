"""What a photograph may show behind its person: a smooth continuation of what is around (not in the paper)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.person import HOLE_FROM, Person, planes
from export3d.images import bounds
from export3d.portrait.background import grown

LEVELS_PX = (12, 24, 48, 96, 192)
"""Longest sides of the pictures in which it is found, each from the one before."""

STEPS = 60
"""How often each pixel takes the mean of its neighbours there."""


_RIM = 0.02
"""The hole of a person is so much wider than their share, as a part of the crop's side."""


def without_person(image: np.ndarray, person: Person) -> np.ndarray:
    """The photograph uint8 ``(H, W, 3)`` without the one who is driven; bystanders stay."""
    own, anybody = (torch.from_numpy((x > HOLE_FROM).astype(np.float32))[None] for x in (person.own, person.share))
    wider = max(round(_RIM * person.crop.side), 1)
    empty = behind_person(image, grown(own, wider), grown(anybody, wider))
    return empty.round().clamp(0.0, 255.0).byte().permute(1, 2, 0).contiguous().numpy()


def behind_person(
    photo: np.ndarray, hole: Tensor, person: Tensor | None, part: tuple[slice, slice] = (slice(None), slice(None))
) -> Tensor:
    """``(3, h, w)`` in [0, 255]: a part of the photograph uint8 ``(H, W, 3)``, with its hole ``(1, h, w)`` filled from where
    neither it nor any person ``(1, H, W)`` is, as smoothly as its border allows (Laplace's equation)."""
    here = planes(photo[part])
    known = torch.ones(1, *photo.shape[:2]) if person is None else 1.0 - person.ceil()
    known[..., part[0], part[1]] *= 1.0 - hole.ceil()
    if not bool(known.any()):
        return here
    sums = torch.cat([planes(photo) * known, known])[None]
    value = sums[:, :3].sum(dim=(2, 3), keepdim=True) / known.sum()
    sizes = [[max(round(n * longest / max(photo.shape)), 2) for n in photo.shape[:2]] for longest in LEVELS_PX]
    sums = F.interpolate(sums, size=sizes[-1], mode="area")  # the other sizes begin from here: a photograph is large
    for size in sizes:
        *light, weight = F.interpolate(sums, size=size, mode="area").split(1, dim=1)
        given = torch.cat(light, dim=1) / weight.clamp_min(1e-6)
        value = F.interpolate(value, size=size, mode="bilinear", align_corners=False)
        for _ in range(STEPS):
            value = torch.where(weight > 0.0, given, value)
            wide = F.pad(value, (1, 1, 1, 1), mode="replicate")
            value = (wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]) / 4.0
    box = bounds((hole[0] > 0.0).numpy())
    if box is None:
        return here
    first = [each.start or 0 for each in part]
    y, x = (
        (torch.arange(b.start, b.stop) + f + 0.5) * (2.0 / n) - 1.0
        for b, f, n in zip(box, first, photo.shape[:2], strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    smooth = F.grid_sample(value, grid, "bicubic", "border", align_corners=False)[0].clamp(0.0, 255.0)
    there = (slice(None), *box)
    here[there] = torch.where(hole[there] > 0.0, smooth, here[there])
    return here
