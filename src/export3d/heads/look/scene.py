"""Clothes and backgrounds (no paper section)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.raster.fields import grid_triangles, interpolate_table, shared_noise, smoothstep
from export3d.heads.shape.parametric import ParametricHead

_PALETTE = (
    (0.02, 0.022, 0.03),
    (0.50, 0.50, 0.50),
    (0.75, 0.74, 0.72),
    (0.03, 0.05, 0.14),
    (0.25, 0.03, 0.04),
    (0.04, 0.13, 0.08),
    (0.30, 0.22, 0.12),
    (0.09, 0.20, 0.34),
    (0.40, 0.25, 0.30),
    (0.10, 0.10, 0.11),
)
_ROWS, _COLUMNS = 28, 48
_SMOOTH = (0.06, 0.24, 0.40, 0.24, 0.06)


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """A lofted garment.

    Attributes:
        vertices: ``(C, 3)`` cm.
        triangles: ``(F, 3)``.
        uv: ``(C, 2)`` place in the texture, [0, 1].
        texture: ``(rows, columns, 3)`` linear albedo.
        collar_y: Height (cm) below which the neck is hidden by the garment.
        collar_x: Distance (cm) from the middle beyond which shoulders are hidden by the garment.
    """

    vertices: Tensor
    triangles: Tensor
    uv: Tensor
    texture: Tensor
    collar_y: float
    collar_x: float


def build_clothes(head: ParametricHead, vertices: Tensor, seed: int) -> Clothes:
    """A garment that fits the neck of the identity's ``(V, 3)`` resting head."""
    rng = np.random.default_rng([seed, 6])
    device = vertices.device
    neck = vertices[head.vertices_of("face", "head_neck") & (vertices[:, 1] < -9.0) & (vertices[:, 1] > -11.5)]
    if neck.shape[0] == 0:
        neck = vertices[vertices[:, 1] < vertices[:, 1].amin() + 2.0]
    middle_z = float(neck[:, 2].amin() + neck[:, 2].amax()) / 2
    half = float(neck[:, 0].abs().amax())
    collar = str(rng.choice(["crew", "v"]))
    dip = float(rng.uniform(0.0, 3.0 if collar == "v" else 1.6))
    width = float(rng.uniform(0.92, 1.1))
    down = torch.linspace(0, 3, _ROWS, device=device)
    steps = (0.0, 0.12, 0.5, 1.0, 1.6, 2.2, 3.0)
    wide = _smooth(
        interpolate_table(
            down, steps, (half + 0.7, half + 1.3, half + 4.5, 15 * width, 19.5 * width, 22 * width, 23.5 * width)
        )
    )
    deep = _smooth(interpolate_table(down, steps, (half + 0.2, half + 0.6, 8.2, 9.2, 10.0, 10.6, 11.5)))
    high = _smooth(interpolate_table(down, steps, (-10.9, -11.2, -12.9, -14.8, -17.2, -21.0, -36.0)))
    azimuth = torch.linspace(-math.pi, math.pi, _COLUMNS + 1, device=device)[None]
    sine, cosine = azimuth.sin(), azimuth.cos()
    x = wide[:, None] * sine.sign() * sine.abs() ** 0.85
    z = deep[:, None] * cosine.sign() * cosine.abs() ** 0.9 + middle_z * 0.6 - 0.5
    front = smoothstep(0.1, 1.0, cosine)
    k = down[:, None]
    y = high[:, None] + 1.6 * (-cosine).clamp(min=0) * smoothstep(1.5, 0, k)
    y = y - (dip * front ** (3 if collar == "v" else 1) + 0.8 * front) * smoothstep(2.2, 0, k)
    y = y - 0.02 * x.abs() * smoothstep(0.5, 1.5, k)
    grid = torch.stack([x, y, z], -1)
    offset = grid.new_tensor(rng.uniform(0, 30, 3))
    folds = shared_noise(41).octaves((grid * 0.3).reshape(-1, 3) + offset, 3)[:, 0].reshape(x.shape)
    grid = grid + (0.55 * folds * smoothstep(0.2, 1, k))[..., None] * grid.new_tensor([0.5, 1.0, 1.0])
    rows, columns = x.shape
    uv = torch.stack(
        [
            torch.linspace(0, 1, columns, device=device)[None].expand(rows, columns),
            torch.linspace(0, 1, rows, device=device)[:, None].expand(rows, columns),
        ],
        -1,
    )
    return Clothes(
        vertices=grid.reshape(-1, 3),
        triangles=cloth_triangles(device),
        uv=uv.reshape(-1, 2),
        texture=_cloth_texture(grid, down, rng, offset),
        collar_y=-11.9 - dip,
        collar_x=half + 0.6,
    )


def cloth_triangles(device: torch.device | None = None) -> Tensor:
    """The triangles of any garment: all have the same grid."""
    return grid_triangles(_ROWS, _COLUMNS + 1, device)


def _cloth_texture(grid: Tensor, down: Tensor, rng: np.random.Generator, offset: Tensor) -> Tensor:
    """``(128, 384, 3)`` albedo: plain, striped, knitted or a jacket over a shirt, with a darker hem."""
    size = (128, 384)
    place = F.interpolate(grid.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=True)[0].permute(
        1, 2, 0
    )
    level = torch.linspace(0, float(down[-1]), size[0], device=grid.device)[:, None]
    first = np.array(_PALETTE[int(rng.integers(0, len(_PALETTE)))]) * rng.uniform(0.8, 1.2)
    second = grid.new_tensor(_PALETTE[int(rng.integers(0, len(_PALETTE)))])
    base = grid.new_tensor(first).expand(*size, 3)
    pattern = str(rng.choice(["plain", "plain", "stripe", "knit", "jacket"]))
    if pattern == "stripe":
        mask = smoothstep(-0.2, 0.2, torch.sin(place[..., 1] * 3.2))[..., None]
        base = base * (1 - mask) + second * mask
    if pattern == "jacket":
        opening = (2.2 + (-11 - place[..., 1]) * 0.55).clamp(min=1.5)
        mask = torch.sigmoid((place[..., 0].abs() - opening) / 0.08) * (place[..., 2] > -1)
        mask = torch.maximum(mask, (place[..., 2] < -1).float())[..., None]
        base = second * 0.9 * (1 - mask) + base * mask * 0.6
    grain = place.new_tensor([2.0, 6.0, 2.0] if pattern == "knit" else [5.0, 5.0, 5.0])
    weave = shared_noise(42)((place * grain).reshape(-1, 3) + offset)[:, 0].reshape(size)
    hem = 0.65 + 0.35 * smoothstep(0.0, 0.25, (level - 0.18).abs())
    return base * (1 + (0.2 if pattern == "knit" else 0.1) * weave)[..., None] * hem[..., None]


def build_background(seed: int, size: int = 128) -> Tensor:
    """``(3, size, size)`` linear colour: a gradient with blurred shapes, as behind a portrait taken with a wide lens."""
    rng = np.random.default_rng([seed, 7])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    line = torch.linspace(-1, 1, size)
    yy, xx = torch.meshgrid(line, line, indexing="ij")

    def color(low: float, high: float, spread: float) -> Tensor:
        value = np.clip(uniform(low, high) * (1 + rng.normal(size=3) * spread), 0.005, 1.2)
        return torch.tensor(value, dtype=torch.float32)

    first, second = color(0.03, 0.6, 0.18), color(0.03, 0.6, 0.18)
    t = ((yy * uniform(-1, 1) + xx * uniform(-0.7, 0.7)) * 0.5 + 0.5)[..., None].clamp(0, 1)
    image = first * (1 - t) + second * t
    kind = int(rng.integers(0, 3))
    for _ in range(int(rng.integers(3, 14)) if kind else 0):
        shade = color(0.02, 0.9, 0.3)
        x, y = uniform(-1, 1), uniform(-1, 1)
        wide, tall, blur = uniform(0.05, 0.5), uniform(0.05, 0.8), uniform(0.04, 0.15)
        if kind == 1:  # furniture, windows
            mask = torch.sigmoid((wide - (xx - x).abs()) / blur) * torch.sigmoid((tall - (yy - y).abs()) / blur)
        else:  # lights out of focus
            mask = torch.sigmoid((wide * 0.4 - torch.hypot(xx - x, yy - y)) / (blur * 0.5))
        image = image * (1 - 0.8 * mask[..., None]) + 0.8 * mask[..., None] * shade
    image = image * (1.05 - 0.125 * (xx**2 + yy**2))[..., None]
    return image.permute(2, 0, 1).contiguous()


def _smooth(values: Tensor) -> Tensor:
    """A 1-D profile blurred over five samples, ends kept."""
    kernel = values.new_tensor(_SMOOTH)[None, None]
    return F.conv1d(F.pad(values[None, None], (2, 2), mode="replicate"), kernel)[0, 0]
