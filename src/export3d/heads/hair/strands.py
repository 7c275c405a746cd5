"""Fields over the hair's grid, the strands among them, and the texture that they are baked to (no paper section)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.hair.styles import DEG, HairStyle, hairline, parting, recession_of
from export3d.heads.look.appearance import AppearanceOptions, Traits
from export3d.heads.raster.fields import shared_noise, smoothstep


@dataclass(frozen=True, kw_only=True)
class HairGrid:
    """What hair is over a grid of R rows (down) and C columns (azimuths)."""

    layers: Tensor
    """``(2, R, C, 3)`` cm: near the roots, and the outer surface."""
    edge: Tensor
    """``(R, C)`` distance to the hair's border, radians; negative outside."""
    across: Tensor
    """``(R, C, 2)`` periodic coordinates across the strands."""
    along: Tensor
    """``(R, C)`` coordinate along the strands."""
    tangent: Tensor
    """``(R, C, 3)`` direction of the strands, away from the root."""


def strand_field(out: Tensor, crown: tuple[float, float], mirror: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates across the strands ``(..., 2)`` and along them, and their direction, around a tilted crown."""
    a, b = crown[0] * DEG, crown[1] * DEG * mirror
    axis = F.normalize(out.new_tensor([math.sin(b) * math.cos(a), math.cos(b) * math.cos(a), math.sin(a)]), dim=0)
    first = F.normalize(torch.linalg.cross(axis, out.new_tensor([1.0, 0.0, 0.0])), dim=0)
    second = torch.linalg.cross(axis, first)
    cosine = (out @ axis).clamp(-1, 1)
    cu, su = out @ first, out @ second
    sine = torch.hypot(cu, su).clamp(min=0.05)
    tangent = (cosine[..., None] * out - axis) / sine[..., None]
    return torch.stack([cu / sine, su / sine], -1), torch.acos(cosine), tangent


def border(pp: Tensor, style: HairStyle, traits: Traits, offset: Tensor, mirror: float) -> Tensor:
    """``(R, C)`` polar angle where the hair ends."""
    noise = shared_noise(32)

    def wobble(frequency: float, shift: float) -> Tensor:
        ring = torch.stack([pp.sin() * frequency, pp.cos() * frequency, torch.full_like(pp, shift)], -1)
        return noise(ring.reshape(-1, 3) + offset).reshape(pp.shape)

    recession = 0.0 if style.curtain is not None or style.fringe > 0.2 else recession_of(traits)
    line = hairline(pp, traits.femininity, recession) + style.shift
    line = line + style.fringe * smoothstep(0.98, 0.25, pp.abs()) * (1 + 0.3 * wobble(1.5, 0.0))
    line = line + 0.05 * wobble(3.0, 4.0)
    return line + parting(pp, style, mirror)


def bake(hair: HairGrid, style: HairStyle, options: AppearanceOptions, offset: Tensor) -> Tensor:
    """``(rows, columns, 4)`` texture: strands of even shells, of odd shells, tone, distance to the border (radians)."""
    rows, columns = (176, 704) if options.quality == "fast" else (320, 1280)
    fields = [hair.across, hair.along[..., None], hair.edge[..., None], hair.layers[-1]]
    grid = torch.cat(fields, -1).permute(2, 0, 1)[None]
    fine = (
        F.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=True)[0]
        .permute(1, 2, 0)
        .reshape(-1, 7)
    )
    across, along, edge, place = fine[:, :2], fine[:, 2:3], fine[:, 3], fine[:, 4:]
    noise = shared_noise(34)

    def look(frequency: float, run: float, shift: float, bend: Tensor | float = 0.0) -> Tensor:
        return noise(torch.cat([across * frequency + bend, along * run], 1) + offset + shift)[:, 0]

    bend = look(3.0, 1.5, 0.0)
    lock = look(11.0, 0.8, 2.0, bend[:, None] * 0.5)
    tone = look(6.0, 0.5, 3.0) * 0.5 + 0.5
    strands = []
    for shift in (0.0, 13.7):
        if style.thickness < 0.5:  # cropped: stubs that stand upright, no strands
            strands.append(0.5 + 0.25 * noise(place * 4.0 + shift)[:, 0] + 0.25 * noise(place * 7.0 + shift)[:, 0])
        elif style.curl:
            swirl = noise(place * 0.9 + shift)[:, :1]
            point = place * (1.5 + 1.6 * style.curl) + 1.2 * swirl + offset + shift
            one, two = noise(point)[:, 0], noise(point * 2.3 + 9)[:, 0]
            strands.append(0.5 + 0.30 * one + 0.28 * two + 0.08 * lock)
        else:
            turn = bend[:, None] * (0.8 + 1.5 * style.wave)
            one = look(30.0, 1.1, shift + 5.7, turn)
            two = look(66.0, 2.2, shift + 9.0, turn * 2)
            strands.append(0.5 + 0.25 * one + 0.22 * two + 0.16 * lock)
    edge = edge + style.tip * (0.65 * lock + 0.6 * (strands[0] - 0.5))
    return torch.stack([*strands, tone, edge], -1).reshape(rows, columns, 4)
