"""Long hair: a curtain that leaves the skull below the ears' tops (no paper section)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.hair.strands import HairGrid
from export3d.heads.hair.styles import SKULL_CENTER_CM, HairStyle
from export3d.heads.raster.fields import shared_noise, smoothstep

_CURTAIN_POLAR = 1.62  # polar angle, just below the ears' tops, where long hair leaves the skull
_CURTAIN_ROWS = 22


def with_curtain(hair: HairGrid, tt: Tensor, pp: Tensor, style: HairStyle, offset: Tensor) -> HairGrid:
    """Replace the grid below the ears' tops by a curtain that falls to the style's length, open at the face.

    Args:
        tt, pp: ``(R, C)`` polar angles and azimuths of the grid.
        offset: ``(3,)`` where this identity looks its noise up.
    """
    assert style.curtain is not None
    end, flare = style.curtain
    noise = shared_noise(33)
    layers, edge = hair.layers, hair.edge
    start = int((tt[:, 0] - _CURTAIN_POLAR).abs().argmin())
    azimuth = pp[0]
    center = layers.new_tensor(SKULL_CENTER_CM)
    fall = torch.linspace(0, 1, _CURTAIN_ROWS + 1, device=layers.device)[1:, None]  # (rows, 1)
    ring = torch.stack([azimuth.sin() * 3, azimuth.cos() * 3, torch.zeros_like(azimuth)], -1) + offset
    uneven, phase = noise(ring)[:, 0], noise(ring * 0.7 + 5)[:, 0]
    root = layers[:, start]  # (L, C, 3)
    horizontal = (root - center) * layers.new_tensor([1.0, 0.0, 1.0])
    reach = horizontal.norm(dim=-1, keepdim=True)
    heading = horizontal / reach
    drop = (root[..., 1] - (end + 1.0 * uneven))[:, None] * fall  # (L, rows, C)
    profile = reach[:, None, :, 0] * (
        1 + 0.2 * flare * torch.sin(fall * 2.2) - 0.12 * (1 - flare) * smoothstep(0.3, 1, fall)
    )
    profile = profile + 2.2 * flare * fall**2
    profile = profile + (0.12 + style.wave) * 0.5 * torch.sin(fall * 11 + 9 * phase) * fall.sqrt()
    lock = noise(torch.stack([ring[:, 0] * 2.4, ring[:, 1] * 2.4, ring[:, 2]], -1))[:, 0]
    height = layers.new_tensor([0.2, 1.0])[:, None, None]
    profile = profile + 0.35 * lock * height * fall.sqrt()
    hanging = center + heading[:, None] * profile[..., None]
    hanging = torch.stack([hanging[..., 0], root[:, None, :, 1] - drop, hanging[..., 2]], -1)
    layers = torch.cat([layers[:, : start + 1], hanging], 1)
    # The border: beside the face the curtain covers temples and ears; below, it ends at the tips and at the opening.
    beside = (azimuth.abs() - 1.0) * 1.2
    upper = torch.where(tt[: start + 1] < 1.7, torch.maximum(edge[: start + 1], beside[None]), edge[: start + 1])
    lower = torch.minimum(beside[None].expand(_CURTAIN_ROWS, -1).clamp(max=0.5), (1 - fall) * 1.6)
    path = torch.gradient(layers[-1], dim=0)[0]
    settle = smoothstep(0.75, _CURTAIN_POLAR - 0.15, tt[: start + 1])[..., None]  # no kink where the curtain starts
    skull = (1 - settle) * hair.tangent[: start + 1] + settle * F.normalize(path[: start + 1], dim=-1)
    return HairGrid(
        layers=layers,
        edge=torch.cat([upper, lower]),
        across=torch.cat([hair.across[: start + 1], hair.across[start].expand(_CURTAIN_ROWS, -1, -1)]),
        along=torch.cat([hair.along[: start + 1], hair.along[start] + drop[-1] / 9.0]),
        tangent=torch.cat([skull, F.normalize(path[start + 1 :], dim=-1)]),
    )
