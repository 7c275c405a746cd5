"""Light: spherical harmonics, the lights of a scene, and precomputed soft self-shadow per vertex (no paper section).

Transfer = how much light of each of the 9 harmonics a vertex receives, shadows included; irradiance is then one product
with the harmonics of the lights, so light may turn from frame to frame at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.raster.fields import smoothstep
from export3d.heads.raster.rasterize import depth_maps

COSINE_LOBE = (1.0, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25)
"""Factors of the clamped cosine for the 9 harmonics, divided by pi."""

_WINDOW = (1.0, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7)  # damps the ringing of a point light cut at order 2
_MAP_EXTENT_CM = 58.0
_MAP_CENTER_CM = (0.0, -3.0, 0.0)


@dataclass(frozen=True)
class HeadLight:
    """The light of B frames in the head's frame; of one where it does not turn.

    Attributes:
        harmonics: ``(B, 3, 9)``.
        directions: ``(B, L, 3)`` unit vectors towards the lights.
        colors: ``(L, 3)`` linear radiance.
    """

    harmonics: Tensor
    directions: Tensor
    colors: Tensor


@dataclass(frozen=True)
class Lights:
    """Directional lights and an ambient term, in the frame of the room.

    Attributes:
        directions: ``(L, 3)`` unit vectors towards the lights; the room's z axis points to the viewer.
        colors: ``(L, 3)`` linear radiance.
        ambient: ``(3,)`` linear.
        exposure: Factor before the tone curve.
    """

    directions: Tensor
    colors: Tensor
    ambient: Tensor
    exposure: float

    def in_head(self, room_to_head: Tensor) -> HeadLight:
        """The light in the head's frame, for ``(B, 3, 3)`` rotations."""
        return HeadLight(self.harmonics(room_to_head), self.turned(room_to_head), self.colors)

    def harmonics(self, room_to_head: Tensor) -> Tensor:
        """``(B, 3, 9)`` harmonics of the light in the head's frame, for ``(B, 3, 3)`` rotations."""
        turned = self.turned(room_to_head)  # (B, L, 3)
        basis = harmonics9(turned) * turned.new_tensor(_WINDOW)  # (B, L, 9)
        total = torch.einsum("lc,blk->bck", self.colors, basis) * (math.pi * 0.55)
        total[..., 0] += self.ambient * (math.pi * 1.13)
        total[..., 1] += self.ambient * (0.4 * math.pi * 0.49)
        return total

    def turned(self, room_to_head: Tensor) -> Tensor:
        """``(B, L, 3)`` directions in the head's frame."""
        return torch.einsum("bij,lj->bli", room_to_head, self.directions)

    def to(self, device: torch.device | str) -> Lights:
        """The same lights on another device."""
        return Lights(self.directions.to(device), self.colors.to(device), self.ambient.to(device), self.exposure)


def draw_lights(rng: np.random.Generator, exposure: float) -> Lights:
    """A key light, a weaker fill from the other side, sometimes a rim light, and a grey-blue ambient."""
    warm = rng.uniform(-0.12, 0.15)
    key = np.array([rng.uniform(-1, 1), rng.uniform(0.1, 0.9), rng.uniform(0.55, 1.2)])
    directions = [key, np.array([-key[0], 0.1, 0.8])]
    colors = [
        np.array([1 + warm, 1.0, 1 - warm]) * rng.uniform(2.2, 3.3),
        np.array([1 - warm, 1.0, 1 + warm]) * rng.uniform(0.3, 0.95),
    ]
    if rng.random() < 0.5:
        directions.append(np.array([rng.uniform(-1, 1), 0.4, -1.0]))
        colors.append(np.ones(3) * rng.uniform(0.5, 1.6))
    ambient = np.ones(3) * rng.uniform(0.18, 0.34) + np.array([0.0, 0.01, 0.03])
    unit = np.stack([d / np.linalg.norm(d) for d in directions])
    return Lights(
        torch.tensor(unit, dtype=torch.float32),
        torch.tensor(np.stack(colors), dtype=torch.float32),
        torch.tensor(ambient, dtype=torch.float32),
        exposure,
    )


def harmonics9(direction: Tensor) -> Tensor:
    """``(..., 9)`` real spherical harmonics up to order 2 of ``(..., 3)`` unit vectors."""
    x, y, z = direction.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.2820948),
            0.4886025 * y,
            0.4886025 * z,
            0.4886025 * x,
            1.0925484 * x * y,
            1.0925484 * y * z,
            0.3153916 * (3 * z * z - 1),
            1.0925484 * x * z,
            0.5462742 * (x * x - y * y),
        ],
        -1,
    )


def irradiance(normal: Tensor, harmonics: Tensor) -> Tensor:
    """Unshadowed irradiance ``(..., N, 3)`` of ``(..., N, 3)`` normals under ``(..., 3, 9)`` harmonics."""
    return (harmonics9(normal) * normal.new_tensor(COSINE_LOBE)) @ harmonics.transpose(-1, -2)


def irradiance_matrix(harmonics: Tensor) -> Tensor:
    """``(B, 4, 4, 3)`` quadratic forms M with irradiance_c(n) = (n, 1)^T M_c (n, 1); cheaper per pixel than 9 harmonics."""
    h = harmonics * harmonics.new_tensor(COSINE_LOBE)  # (B, 3, 9)
    m = h.new_zeros(h.shape[0], 4, 4, 3)
    m[:, 3, 3] = 0.2820948 * h[..., 0] - 0.3153916 * h[..., 6]
    m[:, 3, 1] = 0.4886025 * h[..., 1]
    m[:, 3, 2] = 0.4886025 * h[..., 2]
    m[:, 3, 0] = 0.4886025 * h[..., 3]
    m[:, 0, 1] = 1.0925484 * h[..., 4]
    m[:, 1, 2] = 1.0925484 * h[..., 5]
    m[:, 2, 2] = 3 * 0.3153916 * h[..., 6]
    m[:, 0, 2] = 1.0925484 * h[..., 7]
    m[:, 0, 0] = 0.5462742 * h[..., 8]
    m[:, 1, 1] = -0.5462742 * h[..., 8]
    return m


def sphere_directions(count: int) -> Tensor:
    """``(count, 3)`` evenly spread unit vectors (Fibonacci spiral)."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    polar = torch.acos(1 - 2 * index / count)
    azimuth = math.pi * (1 + 5**0.5) * index
    spread = [azimuth.cos() * polar.sin(), polar.cos(), azimuth.sin() * polar.sin()]
    return torch.stack(spread, 1).float()


def highlights(
    normal: Tensor, view: Tensor, light: HeadLight, image: Tensor, *, lobes: tuple[float, ...], f0: float
) -> list[Tensor]:
    """Blinn-Phong highlights with Schlick's Fresnel.

    Args:
        normal, view: ``(N, 3)`` unit.
        light: Of B images, or one for all.
        image: ``(N,)`` image of each point.
        lobes: Exponents.
        f0: Reflectance at normal incidence.

    Returns:
        For each exponent, ``(N, 3)``.
    """
    totals = [torch.zeros_like(normal) for _ in lobes]
    directions = light.directions
    for k in range(len(light.colors)):
        toward = directions[0, k].expand_as(normal) if directions.shape[0] == 1 else directions[image, k]
        half = F.normalize(view + toward, dim=1)
        facing = (normal * toward).sum(1).clamp(min=0)
        near = (normal * half).sum(1).clamp(min=1e-4).log()
        grazing = 1.0 - (view * half).sum(1).clamp(0, 1)
        squared = grazing * grazing
        fresnel = (f0 + (1 - f0) * squared * squared * grazing) * facing
        for lobe, total in zip(lobes, totals, strict=True):
            total.addcmul_(((near * lobe).exp() * fresnel * ((lobe + 2) / 8))[:, None], light.colors[k][None])
    return totals


def quadratic_irradiance(normal: Tensor, matrix: Tensor, image: Tensor) -> Tensor:
    """``(N, 3)`` irradiance of unit normals from the ``(B, 4, 4, 3)`` forms of :func:`irradiance_matrix`."""
    ones = torch.ones_like(normal[:, :1])
    n = torch.cat([normal, ones], 1)
    if matrix.shape[0] == 1:
        rows = (n @ matrix[0].reshape(4, 12)).reshape(-1, 4, 3)
    else:
        rows = torch.bmm(n[:, None], matrix.reshape(-1, 4, 12)[image]).reshape(-1, 4, 3)
    return (rows * n[..., None]).sum(1)


def shadow_transfer(
    vertices: Tensor, normals: Tensor, occluders: Tensor, triangles: Tensor, *, num_directions: int, map_size: int
) -> Tensor:
    """Transfer of the 9 harmonics to each vertex, with soft shadows from depth maps in many directions.

    Args:
        vertices: ``(V, 3)`` cm, the points that receive light.
        normals: ``(V, 3)`` unit.
        occluders: ``(W, 3)`` cm, vertices of what casts shadow.
        triangles: ``(F, 3)`` int64 into `occluders`.
        num_directions: Depth maps; 32 is coarse, 56 is smooth.
        map_size: Pixels of a side of a depth map, which spans 58 cm.

    Returns:
        ``(V, 9)``; the product with light harmonics is irradiance / pi for an unshadowed lambertian surface.
    """
    device = vertices.device
    directions = sphere_directions(num_directions).to(device)
    basis = harmonics9(directions)  # (D, 9)
    right = F.normalize(
        torch.linalg.cross(directions, directions.new_tensor([0.31, 0.9, 0.2]).expand_as(directions)), dim=1
    )
    up = torch.linalg.cross(directions, right)
    frame = torch.stack([right, up, directions], 1)  # (D, 3, 3)
    center = vertices.new_tensor(_MAP_CENTER_CM)
    scale = map_size / _MAP_EXTENT_CM
    total = torch.zeros(vertices.shape[0], 9, device=device)
    step = 8 if device.type == "cpu" else num_directions
    taps = vertices.new_tensor([[-0.6, -0.6], [0.6, -0.6], [-0.6, 0.6], [0.6, 0.6]])
    for begin in range(0, num_directions, step):
        turn = frame[begin : begin + step]
        caster = torch.einsum("dij,vj->dvi", turn, occluders - center)
        maps = depth_maps(caster[..., :2] * scale + map_size / 2, 500.0 - caster[..., 2], triangles, map_size)
        receiver = torch.einsum("dij,vj->dvi", turn, vertices - center)
        place = receiver[..., :2] * scale + map_size / 2
        depth = 500.0 - receiver[..., 2]
        row = torch.arange(turn.shape[0], device=device)[:, None] * (map_size * map_size)
        visible = torch.zeros_like(depth)
        for tap in taps:
            pixel = (place + tap).long().clamp_(0, map_size - 1)
            seen = maps.reshape(-1)[row + pixel[..., 1] * map_size + pixel[..., 0]]
            visible += smoothstep(0.8, 0.3, depth - seen)
        lit = (normals @ directions[begin : begin + step].T).clamp_(min=0).T * (visible / len(taps))
        total += lit.T @ basis[begin : begin + step]
    return total * (4.0 / num_directions)
