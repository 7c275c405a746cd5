"""Hair styles in numbers, and the hairline (no paper section)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.heads.look.appearance import Traits
from export3d.heads.raster.fields import interpolate_table, smoothstep

SKULL_CENTER_CM = (0.0, 4.5, 1.0)
"""Middle of the skull, from which hair grows outwards."""

DEG = math.pi / 180.0
"""Radians in a degree."""

# Hairline: polar angle (degrees from the crown) where hair ends, by |azimuth| (0 = face, 90 = ear, 180 = nape).
_AZIMUTH = (0.0, 18.0, 32.0, 44.0, 54.0, 61.0, 67.0, 74.0, 82.0, 90.0, 104.0, 120.0, 150.0, 180.0)
_MASCULINE = (56.0, 55.5, 54.0, 60.0, 73.0, 90.0, 106.0, 113.0, 108.0, 100.0, 116.0, 130.0, 139.0, 142.0)
_FEMININE = (55.0, 56.0, 59.0, 65.0, 74.0, 86.0, 98.0, 106.0, 105.0, 100.0, 115.0, 128.0, 138.0, 141.0)


@dataclass(frozen=True, kw_only=True)
class HairStyle:
    """Numbers of one style; lengths in cm, angles in radians."""

    thickness: float
    """Of the outer shell above the skull."""
    taper: float = 0.2
    """Share of the thickness that is left at the border."""
    top: float = 0.0
    """Extra thickness on top."""
    shift: float = 0.0
    """Moves the hairline down (+)."""
    fringe: float = 0.0
    """How far the hairline comes down over the forehead."""
    crown: tuple[float, float] = (40.0, 0.0)
    """Where strands start: degrees forwards from the top, degrees to the side."""
    sides: float = 1.0
    """Thickness of sides and nape relative to the top."""
    curtain: tuple[float, float] | None = None
    """Long hair: height of the ends and outward flare."""
    part: float = 0.0
    """Depth of the parting's gap in the hairline."""
    wave: float = 0.0
    curl: float = 0.0
    bun: bool = False
    locks: float = 0.25
    """Height of the locks relative to the thickness."""
    tip: float = 0.10
    """Unevenness of the ends, radians of the border."""


STYLES: dict[str, HairStyle | None] = {
    "bald": None,
    "buzz": HairStyle(thickness=0.26, taper=0.4, crown=(-25, 0), locks=0.0, tip=0.03),
    "short": HairStyle(thickness=1.1, top=0.7, crown=(-30, 12), sides=0.36, locks=0.35, fringe=0.02, tip=0.11),
    "quiff": HairStyle(thickness=1.3, top=2.1, crown=(65, 25), sides=0.40, locks=0.3, tip=0.06),
    "sidepart": HairStyle(thickness=1.4, top=1.0, crown=(30, -42), sides=0.5, shift=0.01, fringe=0.05, tip=0.07),
    "fringe": HairStyle(thickness=1.5, taper=0.5, crown=(-35, 5), fringe=0.30, shift=0.03, sides=0.8, tip=0.12),
    "curly": HairStyle(thickness=2.6, taper=0.45, top=0.8, crown=(-20, 0), curl=0.6, sides=0.6, fringe=0.08, tip=0.12),
    "bob": HairStyle(thickness=1.7, taper=0.4, top=0.3, crown=(30, -12), curtain=(-6.0, 0.12), part=0.30, fringe=0.05),
    "bobfringe": HairStyle(thickness=1.7, taper=0.5, crown=(-10, 0), curtain=(-5.0, 0.05), fringe=0.34, shift=0.05),
    "long": HairStyle(thickness=1.6, taper=0.4, top=0.5, crown=(38, 8), curtain=(-19.0, 0.25), part=0.30),
    "wavy": HairStyle(
        thickness=2.1, taper=0.4, top=0.6, crown=(35, -20), curtain=(-14.0, 0.5), part=0.30, fringe=0.03, wave=1.0
    ),
    "updo": HairStyle(thickness=0.9, crown=(70, 0), bun=True, locks=0.2, tip=0.05),
    "afro": HairStyle(thickness=4.6, taper=0.6, crown=(-20, 0), curl=1.0, fringe=0.02, shift=0.02),
}


def hairline(azimuth: Tensor, femininity: float, recession: float = 0.0) -> Tensor:
    """Polar angle (radians) of the hairline at azimuths in [-pi, pi]; `recession` in [0, 1] raises forehead and temples."""
    x = azimuth.abs() / DEG
    mix = min(max(0.5 + 0.5 * femininity, 0.0), 1.0)
    masculine = interpolate_table(x, _AZIMUTH, _MASCULINE)
    feminine = interpolate_table(x, _AZIMUTH, _FEMININE)
    line = masculine + (feminine - masculine) * mix
    back = recession * (6.0 * smoothstep(50.0, 20.0, x) + 9.0 * torch.exp(-(((x - 36.0) / 10.0) ** 2)))
    return (line - back) * DEG


def spherical(points: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth (0 = face, positive to the image right) and polar angle from the crown of ``(..., 3)`` points in cm."""
    d = points - points.new_tensor(SKULL_CENTER_CM)
    return torch.atan2(d[..., 0], d[..., 2]), torch.acos((d[..., 1] / d.norm(dim=-1)).clamp(-1, 1))


def parting(azimuth: Tensor, style: HairStyle, side: float) -> Tensor:
    """How far a parting lifts (-) or lowers (+) the hairline, radians; `side` is 1 or -1."""
    gap = smoothstep(0.0, 0.85, (azimuth - 0.18 * side).abs()) - 0.35
    return style.part * gap * smoothstep(1.4, 1.0, azimuth.abs())


def parting_side(seed: int) -> float:
    """1 or -1: on which side an identity parts its hair."""
    return 1.0 if np.random.default_rng([seed, 10]).random() < 0.5 else -1.0


def recession_of(traits: Traits) -> float:
    """How far the hairline went back, from age, for masculine faces."""
    if traits.is_feminine:
        return 0.0
    spread = (traits.seed * 0.3819660113) % 1.0
    return float(np.clip((traits.age - 25.0) / 45.0, 0.0, 1.0)) * (0.3 + 0.9 * spread)
