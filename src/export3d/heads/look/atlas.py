"""The skin atlas: masks as functions of the neutral position and the landmarks, painted per identity (no paper section).

Everything that depends on the head alone (positions, distances to lips, lids and brows, noise) is computed once per
process in :func:`canvas`; an identity is then a few weighted sums over the texels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.look.appearance import Traits
from export3d.heads.raster.fields import (
    along_curve,
    curve,
    shared_noise,
    signed_distance,
    smoothstep,
    vertex_normals,
)
from export3d.heads.raster.rasterize import rasterize
from export3d.heads.shape.parametric import ParametricHead

ALBEDO = slice(0, 3)
GLOSS = 3
BUMP = slice(4, 7)
LIP = 7
BEARD = 8
STRAND = 9
CHANNELS = 10
_FAR = 9.0
_BANK = 3


@dataclass(frozen=True)
class Canvas:
    """Fields over the N covered texels of the atlas of one head.

    Attributes:
        size: Side of a tile; the atlas has `size` rows and `2 size` columns (face tile, head tile).
        texel: ``(N,)`` place in the flat atlas; `fill_to` takes the value of texel `fill_from` (gutter around charts).
        position, normal: ``(N, 3)`` neutral position in cm and unit normal.
        lip: ``(N,)`` signed distance to the outer lip line, cm, negative inside.
        lid: ``(N,)`` signed distance to the nearer lid line; `lid_upper` is 1 above the eye's middle.
        brow_along, brow_across: ``(N,)`` position along the brow (0 at the nose) and signed distance from it, cm.
        broad, middle, fine: ``(N, 3)`` three independent noises of each scale; identities mix them.
        bump: ``(N, 3, 3)`` three independent vector noises.
        strands: ``(N, 2)`` hair-like noise for beards and for brows.
    """

    size: int
    texel: Tensor
    fill_to: Tensor
    fill_from: Tensor
    position: Tensor
    normal: Tensor
    lip: Tensor
    lid: Tensor
    lid_upper: Tensor
    brow_along: Tensor
    brow_across: Tensor
    broad: Tensor
    middle: Tensor
    fine: Tensor
    bump: Tensor
    strands: Tensor

    def assemble(self, values: Tensor) -> Tensor:
        """``(N, C)`` texel values -> ``(size, 2 size, C)`` atlas with filled gutters."""
        flat = values.mean(0).expand(2 * self.size * self.size, -1).contiguous()
        flat[self.texel] = values
        flat[self.fill_to] = values[self.fill_from]
        return flat.reshape(self.size, 2 * self.size, -1)


@functools.lru_cache(maxsize=4)
def canvas(head: ParametricHead, size: int) -> Canvas:
    """The canvas of a head; kept for the process."""
    device = head.vertices.device
    skin = head.triangles_of("face", "head_neck")
    triangles, uv_triangles = head.triangles[skin], head.triangle_uv[skin]
    place = torch.stack([head.uv[:, 0] * size, (1.0 - head.uv[:, 1]) * size], 1)
    fragments = rasterize(place[None], torch.ones(1, len(place), device=device), uv_triangles, size, 2 * size)
    corners = triangles[fragments.triangle]
    normals = vertex_normals(head.vertices[None], triangles)[0]
    position = fragments.interpolate(head.vertices, corners)
    normal = F.normalize(fragments.interpolate(normals, corners), dim=1)
    fill_to, fill_from = _gutter(fragments.pixel, size)
    landmarks = head.vertices[head.landmark_vertices]
    xy, front = position[:, :2], position[:, 2] > 4.0
    lip = _near(
        (xy[:, 0].abs() < 5) & (xy[:, 1] < 0.5) & (xy[:, 1] > -8) & front,
        lambda k: signed_distance(curve(landmarks[48:60, :2], 60, closed=True), xy[k]),
        position,
    )
    lid = torch.full_like(lip, _FAR)
    lid_upper = torch.zeros_like(lip)
    brow_along, brow_across = torch.full_like(lip, 2.0), torch.full_like(lip, _FAR)
    for eye, brow, side in ((slice(42, 48), slice(22, 27), 1), (slice(36, 42), slice(17, 22), -1)):
        near = ((xy[:, 0] * side > 0.4) & (xy[:, 0] * side < 7) & (xy[:, 1] > 1) & (xy[:, 1] < 6.5) & front).nonzero()[
            :, 0
        ]
        lid[near] = signed_distance(curve(landmarks[eye, :2], 48, closed=True), xy[near])
        lid_upper[near] = smoothstep(-0.1, 0.3, xy[near, 1] - landmarks[eye, 1].mean())
        points = landmarks[brow, :2]
        points = points if side > 0 else points.flip(0)
        near = ((xy[:, 0] * side > -0.5) & (xy[:, 1] > 3.2) & (xy[:, 1] < 9.5) & (position[:, 2] > 3)).nonzero()[:, 0]
        near = near[xy[near, 0] * side > 0]
        brow_along[near], across = along_curve(curve(points, 32), xy[near])
        brow_across[near] = across * side  # positive above the brow on both sides
    along, across = brow_along, brow_across
    brow_strands = shared_noise(11)(
        torch.stack([along * 60 - across * (12 - 18 * along), across * 4, along * 0 + 3], 1)
    )
    hair_grain = position.new_tensor([11.0, 3.6, 7.0])
    beard_strands = 0.6 * shared_noise(12)(position * hair_grain + 31) + 0.4 * shared_noise(12)(
        position * 1.7 * hair_grain
    )
    bump = torch.stack(
        [
            shared_noise(20 + k, 3)(position * 7.0) * 0.55
            + shared_noise(20 + k, 3)(position * 13.0 + 5) * 0.45
            + shared_noise(20 + k, 3)(position * 2.2) * 0.35
            for k in range(_BANK)
        ],
        1,
    )
    return Canvas(
        size=size,
        texel=fragments.pixel,
        fill_to=fill_to,
        fill_from=fill_from,
        position=position,
        normal=normal,
        lip=lip,
        lid=lid,
        lid_upper=lid_upper,
        brow_along=along,
        brow_across=across,
        broad=shared_noise(13, _BANK).octaves(position * 0.35, 3),
        middle=shared_noise(14, _BANK).octaves(position * 1.3 + 9, 4),
        fine=shared_noise(15, _BANK).octaves(position * 6.0 + 3, 3, 0.7),
        bump=bump,
        strands=torch.cat([beard_strands, brow_strands], 1),
    )


def paint(head: ParametricHead, traits: Traits, size: int) -> Tensor:
    """Paint the atlas of an identity -> ``(size, 2 size, 10)``: albedo, gloss, bump (3), lip mask,
    beard density, beard strands."""
    c = canvas(head, size)
    rng = np.random.default_rng([traits.seed, 4])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def mixed(bank: Tensor) -> Tensor:
        weights = rng.normal(size=_BANK)
        return _mix(bank, weights)

    x, y, z = c.position.unbind(1)
    ax = x.abs()
    front = smoothstep(0.0, 0.35, c.normal[:, 2])
    age = float(np.clip((traits.age - 25.0) / 50.0, 0.0, 1.0))
    feminine = traits.is_feminine

    def spot(cx: float, cy: float, sx: float, sy: float) -> Tensor:
        return torch.exp(-(((ax - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * front

    broad, middle, fine = mixed(c.broad), mixed(c.middle), mixed(c.fine)
    bump = mixed(c.bump)
    # Pigments: melanin and haemoglobin, then what each leaves of white light.
    melanin = (traits.melanin + 0.10) * (1 + 0.08 * broad) + 0.02
    melanin = melanin + min(traits.melanin, 0.45) * (0.12 * middle + 0.15 * fine) * (1.0 + 0.6 * age)
    blood = traits.haemoglobin * 1.25 * (1 + 0.2 * broad + 0.3 * middle + 0.3 * fine)
    blood = blood + traits.haemoglobin * (
        uniform(0.3, 0.8) * spot(4.3, -0.4, 2.2, 1.8)
        + uniform(0.2, 0.6) * spot(0.0, 0.2, 1.2, 1.2)
        + 0.3 * spot(3.2, 3.4, 2.2, 1.2)
        + 0.15 * spot(0.0, -6.3, 2.0, 1.2)
        + 0.5 * smoothstep(6.8, 8.5, ax) * (y > -3)
    )
    under_eye = spot(3.1, 2.5, 1.7, 0.55)
    melanin = melanin + uniform(0.02, 0.16 + 0.12 * age) * under_eye
    if rng.random() < 0.35 and traits.melanin < 0.6:
        freckle = shared_noise(16)(c.position * 3.1 + uniform(0, 30))[:, 0] * shared_noise(17)(c.position * 2.3)[:, 0]
        zone = smoothstep(-5, -1, y) * (1 - smoothstep(6, 8, y)) * front
        melanin = melanin + uniform(0.15, 0.4) * smoothstep(0.2, 0.42, freckle) * zone
    for _ in range(int(rng.integers(0, 4))):
        melanin = melanin + 0.8 * smoothstep(0.16, 0.05, torch.hypot(x - uniform(-6, 6), y - uniform(-6, 8))) * front
    albedo = _skin(melanin, blood)
    beard = _beard_mask(c, rng) * (1.0 if not feminine else 0.0)
    hair = albedo.new_tensor(traits.hair_color)
    # Stubble takes the skin towards the hair, but never to full grey: light hair is thin at this length.
    stubble_color = torch.minimum(hair * 0.8 + 0.01, albedo.mean(0) * 0.75)
    density = beard * (0.13 + 0.62 * traits.beard) * (0.85 + 0.25 * c.strands[:, 0] + 0.1 * fine)
    density = (density.clamp(0, 0.9) if not feminine else density * 0)[:, None]
    albedo = albedo * (1 - density) + density * stubble_color
    lip_mask = smoothstep(0.14, -0.22, c.lip + 0.04 * middle) * smoothstep(6, 8, z)
    albedo = _paint_lips(albedo, c, traits, rng, lip_mask, middle, age)
    albedo = _paint_brows(albedo, c, traits, rng)
    albedo = _paint_lids(albedo, c, feminine)
    gloss = 0.35 + 0.35 * spot(0, 1.5, 1.3, 3.0) + 0.25 * spot(0, 9, 5, 2) + 0.2 * spot(3.5, 1, 2, 1.5)
    gloss = gloss + 0.55 * lip_mask + 0.2 * middle.clamp(-1, 1)
    values = torch.cat(
        [
            albedo.clamp(0.003, 0.95),
            gloss.clamp(min=0)[:, None],
            bump * (0.85 + 0.5 * age),
            lip_mask[:, None],
            (beard * (traits.beard >= 0.5))[:, None],
            c.strands[:, :1],
        ],
        1,
    )
    return c.assemble(values)


def _mix(bank: Tensor, weights: np.ndarray) -> Tensor:
    """One noise out of the bank of independent ones, of the same strength."""
    return torch.einsum("nk...,k->n...", bank, bank.new_tensor(weights / np.linalg.norm(weights)))


def _skin(melanin: Tensor, blood: Tensor) -> Tensor:
    """Pigment amounts -> ``(N, 3)`` albedo. Dark skin absorbs more evenly, or it would turn orange."""
    fair, dark = melanin.new_tensor([0.70, 1.25, 1.95]), melanin.new_tensor([0.98, 1.30, 1.62])
    melanin_absorption = torch.lerp(fair, dark, (melanin - 0.35).clamp(0, 1)[:, None])
    absorption = melanin[:, None] * melanin_absorption + blood[:, None] * melanin.new_tensor([0.10, 0.66, 0.52])
    return melanin.new_tensor([0.90, 0.86, 0.82]) * torch.exp(-absorption)


def _beard_mask(c: Canvas, rng: np.random.Generator) -> Tensor:
    """``(N,)`` where a beard grows, with a soft, uneven border."""
    x, y, z = c.position.unbind(1)
    ax = x.abs()
    weights = rng.normal(size=_BANK)
    wander = _mix(c.middle, weights)
    rim = 0.55 * wander + 0.25 * c.strands[:, 0]  # cm by which the border wanders
    jaw = smoothstep(-0.6, -2.9, y - 0.75 * (ax - 3.0).clamp(min=0) + rim)
    jaw = jaw * smoothstep(-9.0, -7.0, y + rim) * smoothstep(1.5, 4.8, z + rim)
    side = smoothstep(3.0, 5.6, ax + rim) * smoothstep(4.2, -0.8, y + rim) * smoothstep(0.4, 3.2, z)
    side = side * smoothstep(-8.0, -5.8, y + rim) * smoothstep(7.5, 6.7, ax) * smoothstep(7.4, 4.3, z + rim)
    moustache = (
        torch.exp(-(((y + 2.0 + 0.12 * ax) / 0.75) ** 2)) * smoothstep(3.7, 2.4, ax + 0.5 * rim) * smoothstep(6, 8, z)
    )
    mask = torch.maximum(torch.maximum(jaw, side), moustache) * smoothstep(0.0, 0.4, c.lip)
    corner = torch.exp(-(((ax - 1.6) / 1.2) ** 2) - ((y + 3.5) / 0.9) ** 2)
    return mask * (1 - 0.7 * corner)


def _paint_lips(
    albedo: Tensor, c: Canvas, traits: Traits, rng: np.random.Generator, mask: Tensor, middle: Tensor, age: float
) -> Tensor:
    strength = float(rng.uniform(0.5, 1.0)) * (1.0 - 0.45 * age)
    # Lips absorb relative to the skin, so a dark lip stays brown and does not turn mauve.
    tint = albedo.new_tensor([0.90, 0.60, 0.60]) ** (0.6 + 0.6 * strength)
    dark = min(max(traits.melanin - 0.5, 0.0), 1.0)
    tint = tint * (1 - dark * 0.5) + albedo.new_tensor([0.82, 0.72, 0.74]) * dark * 0.5
    lips = albedo * tint * (1 + 0.05 * middle[:, None])
    if traits.lipstick is not None:
        amount = traits.lipstick_strength * (1 - 0.35 * dark)
        shade = albedo.new_tensor(traits.lipstick) * (1 - 0.5 * min(traits.melanin, 1.2))
        lips = (1 - amount) * lips + amount * shade
    creases = shared_noise(18)(c.position * c.position.new_tensor([7.0, 1.5, 3.0]))[:, :1]
    inner = smoothstep(-0.25, -0.75, c.lip)[:, None]
    lips = lips * (1 + (0.08 + 0.08 * age) * creases) * (1 - 0.18 * inner)
    opacity = (mask * 0.88)[:, None]
    return albedo * (1 - opacity) + opacity * lips


def _paint_brows(albedo: Tensor, c: Canvas, traits: Traits, rng: np.random.Generator) -> Tensor:
    width = float(rng.uniform(0.36, 0.50)) * (0.78 if traits.is_feminine else 1.08)
    arch, lift, strength = float(rng.uniform(-0.1, 0.25)), float(rng.uniform(-0.08, 0.08)), float(rng.uniform(0.8, 1.0))
    near = (c.brow_across.abs() < 2.0).nonzero()[:, 0]
    u, strand = c.brow_along[near], c.strands[near, 1] * 0.5 + 0.5
    d = c.brow_across[near] - lift - arch * torch.sin(u * 3.1) * 0.8
    half = width * (0.75 + 0.45 * torch.sin(u * 3.1)) * smoothstep(1.02, 0.75, u) * smoothstep(-0.02, 0.10, u) + 0.02
    opacity = (
        smoothstep(1.5, 0.2, d.abs() / half + 0.25 * (strand - 0.5)) * smoothstep(0, 0.03, u) * smoothstep(1, 0.92, u)
    )
    opacity = (opacity * (0.72 + 0.28 * smoothstep(0.2, 0.7, strand)) * strength).clamp(0, 0.93)[:, None]
    color = torch.minimum(albedo.new_tensor(traits.hair_color) * 0.45 + 0.004, albedo[near] * 0.55)
    albedo = albedo.clone()
    albedo[near] = albedo[near] * (1 - opacity) + opacity * color
    return albedo


def _paint_lids(albedo: Tensor, c: Canvas, feminine: bool) -> Tensor:
    line = torch.exp(-(((c.lid - 0.05) / 0.16) ** 2)) * (0.30 + 0.5 * c.lid_upper * (1.0 if feminine else 0.6))
    shade = torch.exp(-(((c.lid - 0.6) / 0.5) ** 2)) * c.lid_upper * (0.35 if feminine else 0.15)
    albedo = albedo * (1 - line)[:, None] + line[:, None] * 0.02
    return albedo * (1 - 0.6 * shade[:, None] * albedo.new_tensor([0.5, 0.8, 0.7]))


def _near(mask: Tensor, field: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Evaluate a costly field where `mask` holds; far elsewhere."""
    out = torch.full_like(like[:, 0], _FAR)
    index = mask.nonzero()[:, 0]
    out[index] = field(index)
    return out


def _gutter(texel: Tensor, size: int, width: int = 6) -> tuple[Tensor, Tensor]:
    """Texels around the charts and the covered texel that each copies, so that bilinear lookups never see a gap."""
    source = torch.full((1, 1, size, 2 * size), -1.0, dtype=torch.float64, device=texel.device)
    source.view(-1)[texel] = torch.arange(len(texel), dtype=torch.float64, device=texel.device)
    first = source.clone()
    for _ in range(width):
        grown = F.max_pool2d(source, 3, 1, 1)
        source = torch.where(source < 0, grown, source)
    new = ((first < 0) & (source >= 0)).view(-1).nonzero()[:, 0]
    return new, source.view(-1)[new].long()
