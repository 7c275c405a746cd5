"""What a photograph may show behind its person, put together from pieces of its background (not in the paper).

Patches are matched from coarse to fine and averaged where they overlap (PatchMatch, Barnes et al. 2009; the alternation of
Wexler et al. 2007), then the pieces are copied at the photograph's own size, and their tone is drawn to that of the border.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from export3d.animation.person import planes, spread
from export3d.portrait.background import grown

WORKING_PX = 192
"""Longest side of the picture in which patches are matched."""

COARSEST_PX = 24
"""And of the coarsest one."""

RADIUS = 3
"""Patches have 7 x 7 pixels."""

ROUNDS, TRIES = 3, 4
"""Alternations on each level, and random places that each patch tries in each of them, ever nearer to its best."""

MEMBRANE_PX, MEMBRANE_STEPS = 96, 600
"""Longest side of the picture in which the tone is spread, and how often each pixel takes the mean of its neighbours."""

LEAST = 200
"""Fewer patches of background say nothing."""


def behind_person(photo: np.ndarray, hole: Tensor, person: Tensor, *, blur: float) -> Tensor:
    """``(3, H, W)`` in [0, 255]: the photograph uint8 ``(H, W, 3)`` with its hole ``(1, H, W)`` filled from where no person
    ``(1, H, W)`` is; smoothly, blurred by `blur` pixels, where there is hardly any background."""
    height, width = photo.shape[:2]
    shrink = max(height, width) / WORKING_PX
    size = (max(round(height / shrink), 1), max(round(width / shrink), 1)) if shrink > 1.0 else (height, width)
    unknown = F.interpolate(torch.maximum(hole, person)[None], size=size, mode="area")[0] > 0.0
    wanted = F.interpolate(hole[None], size=size, mode="area")[0] > 0.0
    image = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BOX))
    places = _matched(planes(image), spread(image, unknown.float(), blur=1.0), unknown, wanted)
    if places is None:
        return spread(photo, torch.maximum(hole, person), blur=blur)
    whole = planes(photo)
    # The pieces' tone follows the border of the hole.
    near = grown(hole, max(round(RADIUS * shrink / 2.0), 1))
    pieces = _copied(whole, places, near[0] > 0.0)
    tone = _membrane(whole - pieces, (near - hole) * (1.0 - person.ceil()))
    return torch.where(hole > 0.0, (pieces + tone).clamp(0.0, 255.0), whole)


def _membrane(error: Tensor, known: Tensor) -> Tensor:
    """``(3, H, W)``: smoothly between where the error ``(3, H, W)`` is `known` ``(1, H, W)`` (Laplace's equation, in a small
    picture)."""
    height, width = error.shape[1:]
    size = [max(round(n * MEMBRANE_PX / max(height, width)), 2) for n in (height, width)]
    weight = F.interpolate(known[None], size=size, mode="area")
    given = F.interpolate((error * known)[None], size=size, mode="area") / weight.clamp_min(1e-6)
    fixed = weight > 0.0
    if not bool(fixed.any()):
        return torch.zeros_like(error)
    value = torch.where(fixed, given, given.sum(dim=(2, 3), keepdim=True) / fixed.sum())
    for _ in range(MEMBRANE_STEPS):
        wide = F.pad(value, (1, 1, 1, 1), mode="replicate")
        mean = (wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]) / 4.0
        value = torch.where(fixed, given, mean)
    return F.interpolate(value, size=(height, width), mode="bilinear", align_corners=False)[0]


def _matched(image: Tensor, start: Tensor, unknown: Tensor, wanted: Tensor) -> Tensor | None:
    """``(2, h, w)`` for each pixel of the picture ``(3, h, w)`` the row and column that it is taken from: itself where it is
    not `wanted`; None with too little background. `start` is a first filling."""
    chance = torch.Generator().manual_seed(0)
    places: Tensor | None = None
    current = start
    levels = max(int(np.log2(max(image.shape[1:]) / COARSEST_PX)), 0)
    for level in range(levels, -1, -1):
        size = [max(n >> level, 2 * RADIUS + 2) for n in image.shape[1:]]
        known = F.interpolate(image[None], size=size, mode="area")[0]
        hidden = F.interpolate(unknown[None].float(), size=size, mode="area")[0] > 0.0
        target = F.interpolate(wanted[None].float(), size=size, mode="area")[0] > 0.0
        usable = grown(hidden.float(), RADIUS)[0] == 0.0
        usable[:RADIUS] = usable[-RADIUS:] = usable[:, :RADIUS] = usable[:, -RADIUS:] = False
        sources = usable.nonzero()
        if len(sources) < LEAST:
            continue
        if places is None:
            at = torch.randint(len(sources), tuple(size), generator=chance)
            places, current = sources[at].permute(2, 0, 1), F.interpolate(start[None], size=size, mode="area")[0]
        else:
            scale = torch.tensor([a / b for a, b in zip(size, places.shape[1:], strict=True)])[:, None, None]
            larger = F.interpolate(places[None].float(), size=size, mode="nearest")[0]
            within = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
            coarse = (within / scale).floor()
            places = (larger * scale + within - coarse * scale).long()
            places = _valid(places, usable, sources, chance)
            current = F.interpolate(current[None], size=size, mode="bilinear", align_corners=False)[0]
        current = torch.where(hidden, current, known)
        near = grown(target.float(), RADIUS)[0] > 0.0
        for _ in range(ROUNDS if level else 1):  # the finest level only sharpens what the others found
            places = _searched(current, known, places, near & (grown(hidden.float(), RADIUS)[0] > 0.0), usable, chance)
            current = torch.where(hidden & near, _voted(known, places), current)
    if places is None:
        return None
    own = torch.stack(torch.meshgrid(*(torch.arange(n) for n in places.shape[1:]), indexing="ij"))
    return torch.where(near, places, own)


def _valid(places: Tensor, usable: Tensor, sources: Tensor, chance: torch.Generator) -> Tensor:
    """Places that are not usable exchanged for random ones that are."""
    limit = torch.tensor(usable.shape)[:, None, None] - 1
    places = torch.minimum(places.clamp_min(0), limit)
    good = usable[places[0], places[1]]
    other = sources[torch.randint(len(sources), usable.shape, generator=chance)].permute(2, 0, 1)
    return torch.where(good, places, other)


def _patches(image: Tensor) -> Tensor:
    """``(h w, 3 * 49)``: the patch around each pixel, the border repeated."""
    padded = F.pad(image[None], (RADIUS,) * 4, mode="replicate")
    return F.unfold(padded, 2 * RADIUS + 1)[0].T.contiguous()


def _searched(
    current: Tensor, known: Tensor, places: Tensor, near: Tensor, usable: Tensor, chance: torch.Generator
) -> Tensor:
    """Better places for the pixels that are `near`: those of their neighbours, moved along, and random ones."""
    height, width = usable.shape
    rows, columns = near.nonzero().T
    if not len(rows):
        return places
    patches, own = _patches(known), _patches(current)[rows * width + columns]
    limit = torch.tensor([[height - 1], [width - 1]])
    places = places.clone()
    best = places[:, rows, columns]
    cost = (patches[best[0] * width + best[1]] - own).square().mean(dim=1)
    for step in range(TRIES):
        tries = []
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            reach = max(width >> (2 * step + 2), 1) if step < 2 else 1
            at = ((rows + down * reach).clamp(0, height - 1), (columns + right * reach).clamp(0, width - 1))
            tries.append(places[:, at[0], at[1]] - torch.stack([at[0] - rows, at[1] - columns]))
        radius = max(height, width) * 0.5**step
        tries.append(best + ((torch.rand(best.shape, generator=chance) * 2.0 - 1.0) * radius).long())
        for candidate in tries:
            candidate = torch.minimum(candidate.clamp_min(0), limit)
            error = (patches[candidate[0] * width + candidate[1]] - own).square().mean(dim=1)
            better = (error < cost) & usable[candidate[0], candidate[1]]
            best = torch.where(better, candidate, best)
            cost = torch.where(better, error, cost)
        places[:, rows, columns] = best
    return places


def _voted(known: Tensor, places: Tensor) -> Tensor:
    """``(3, h, w)``: the mean of what all patches that hold a pixel say of it."""
    height, width = places.shape[1:]
    said = _patches(known)[(places[0] * width + places[1]).flatten()].T[None]
    total = F.fold(said, (height + 2 * RADIUS, width + 2 * RADIUS), 2 * RADIUS + 1)
    count = F.fold(torch.ones_like(said[:, : (2 * RADIUS + 1) ** 2]), total.shape[2:], 2 * RADIUS + 1)
    return (total / count)[0, :, RADIUS:-RADIUS, RADIUS:-RADIUS]


def _copied(photo: Tensor, places: Tensor, wanted: Tensor) -> Tensor:
    """``(3, H, W)``: the photograph, and where it is `wanted` ``(H, W)`` read where the places ``(2, h, w)`` of its small
    picture say, the mean of 3 x 3."""
    height, width = photo.shape[1:]
    small = places.shape[1:]
    scale = [height / small[0], width / small[1]]
    y, x = wanted.nonzero().T
    row, column = (y / scale[0]).long().clamp(0, small[0] - 1), (x / scale[1]).long().clamp(0, small[1] - 1)
    pixels = photo.flatten(1).T.contiguous()
    total = torch.zeros(len(y), 3)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            r, c = (row + down).clamp(0, small[0] - 1), (column + right).clamp(0, small[1] - 1)
            from_y = y + ((places[0, r, c] - r) * scale[0]).round().long()
            from_x = x + ((places[1, r, c] - c) * scale[1]).round().long()
            total += pixels[from_y.clamp(0, height - 1) * width + from_x.clamp(0, width - 1)]
    made = photo.clone()
    made[:, y, x] = (total / 9.0).T
    return made
