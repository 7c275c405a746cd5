"""The shells of hair as a ray sees them: lit strands, and the walk down through them (no paper section)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.hair.volume import HairPatch
from export3d.heads.raster.fields import sample_bilinear, smoothstep
from export3d.heads.raster.light import HeadLight, irradiance

HAIR_ATTRIBUTES = 15
"""Columns of :func:`light_hair`: diffuse 3, white highlights 2, tinted highlights 2, texture place 2, slide of the
texture place per thickness 2, cosine to the view 1, thickness 1, bend 1, distance 1."""


def light_hair(patch: HairPatch, outer: Tensor, transfer: Tensor, light: HeadLight, eye: Tensor) -> Tensor:
    """Light the vertices of a patch (Kajiya-Kay) and find how the view slides over the shells below.

    Args:
        outer: ``(B, G, 3)`` cm, its surface in each frame.
        transfer: ``(G, 9)`` shadowed transfer.
        light: In the frame of each head, or one for all B.
        eye: ``(B, 3)`` camera position, cm.

    Returns:
        ``(B * G, 15)`` attributes, see :data:`HAIR_ATTRIBUTES`.
    """
    batch = len(outer)
    harmonics, directions = light.harmonics.expand(batch, -1, -1), light.directions.expand(batch, -1, -1)
    offset = eye[:, None] - outer
    distance = offset.norm(dim=-1, keepdim=True)
    view = offset / distance  # (B, G, 3)
    normal, tangent = patch.normal, patch.tangent
    facing = (patch.round * view).sum(-1, keepdim=True)
    open_light = irradiance(F.normalize(normal * 0.8 + view * 0.2, dim=-1), harmonics).clamp(min=0.02)
    shadowed = (transfer @ harmonics.transpose(1, 2)).clamp(min=0.0)
    diffuse = (0.45 * open_light + 0.55 * shadowed) * 0.85
    open_sky = (transfer[:, 0] / 0.2821).clamp(0, 1)
    white = torch.zeros(batch, outer.shape[1], 2, device=outer.device)
    tinted = torch.zeros_like(white)
    along_view = (tangent * view).sum(-1)
    across_view = (1 - along_view**2).clamp(min=0).sqrt()
    for k in range(len(light.colors)):
        toward = directions[:, k, None]  # (B, 1, 3)
        along = (tangent * toward).sum(-1)
        across = (1 - along**2).clamp(min=0).sqrt()
        wrap = ((normal * toward).sum(-1) * 0.6 + 0.4).clamp(min=0) * light.colors[k].mean() * (0.35 + 0.65 * open_sky)
        for side, shift in enumerate((-0.07, 0.07)):  # strands shift the highlight; the texture's tone picks between
            cosine = (across * across_view - (along + shift) * along_view).clamp(1e-3, 1).log()
            white[..., side] += wrap * (60 * cosine).exp()
            tinted[..., side] += wrap * (14 * cosine).exp()
    sideways = (facing * patch.round - view) / facing.abs().clamp(min=0.3)
    slide = torch.einsum("gkx,bgx->bgk", patch.uv_per_cm, sideways) * patch.thickness[:, None]
    fixed = torch.stack([patch.thickness, patch.bend], -1).expand(batch, -1, -1)
    place = patch.uv.expand(batch, -1, -1)
    parts = [diffuse, white, tinted, place, slide, facing, fixed, distance]
    return torch.cat(parts, -1).reshape(-1, HAIR_ATTRIBUTES)


def shade_hair(patch: HairPatch, a: Tensor, room: Tensor, color: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Walk down through the shells below each visible surface point.

    Args:
        a: ``(N, 15)`` interpolated from :func:`light_hair`; points seen from outside.
        room: ``(N,)`` cm along the ray from the surface to what lies behind the hair.

    Returns:
        ``(N, 3)`` linear colour premultiplied by opacity, ``(N,)`` opacity, ``(N,)`` depth of the hair below the
        surface along the ray, cm.
    """
    facing, thickness, bend = a[:, 11].clamp(min=0.02), a[:, 12], a[:, 13]
    slant = 1.0 / facing.clamp(min=0.3)
    left = torch.ones_like(facing)
    base, shine, depth = torch.zeros_like(facing), torch.zeros_like(facing), torch.zeros_like(facing)
    heights = [float(h) for h in patch.height]
    bottom = 2 * heights[0] - heights[1] if len(heights) > 1 else 0.0
    for layer in range(len(heights) - 1, -1, -1):
        height = heights[layer]
        below = (heights[-1] - height) / (heights[-1] - bottom)  # share of the patch's thickness
        texel = _hair_texel(patch, a[:, 7:9] + below * a[:, 9:11])
        strand, tone = texel[:, layer % 2], texel[:, 2]
        opacity = _shell_opacity(patch, strand, texel[:, 3], height, facing)
        sunk = (1.0 - below * bend).clamp(min=0.0)
        rim = (1.0 - sunk * sunk).clamp(min=0.0).sqrt()  # a flatter ray passes above this shell
        opacity = opacity * smoothstep(0.0, 0.25, facing - rim + 0.03)
        if below > 0.0:
            opacity = opacity * (below * thickness * slant < room + 0.3)
        weight = left * opacity
        lit = weight * (0.30 + 0.70 * height)  # inner shells are shadowed by outer ones
        base = base + lit * (0.42 + 0.80 * strand + 0.5 * (tone - 0.5)).clamp(min=0.1)
        shine = shine + lit * strand * torch.lerp(a[:, 3], a[:, 4], tone)
        depth = depth + weight * below
        left = left - weight
    opacity = 1.0 - left
    gloss = 1.0 - 0.75 * patch.curl
    shine = shine * smoothstep(0.0, 0.5, facing)
    tinted = 0.5 * (a[:, 5] + a[:, 6]) * 0.26 * gloss
    shade = color * base[:, None] * (a[:, :3] + tinted[:, None]) + (0.022 * gloss * shine)[:, None]
    return shade, opacity, depth / opacity.clamp(min=1e-3) * thickness * slant


def shade_hair_inside(patch: HairPatch, a: Tensor, color: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (premultiplied) and opacity of the inside of a curtain: dark, without shells."""
    texel = _hair_texel(patch, a[:, 7:9])
    sunk = 1.0 - 0.7 * a[:, 13]
    rim = (1.0 - sunk * sunk).clamp(min=0.0).sqrt()  # a grazing ray sees single strands, not a dark wall
    opacity = smoothstep(0.0, 0.10, texel[:, 3]) * smoothstep(-0.05, 0.2, -a[:, 11] - rim)
    tone = 0.20 * (0.42 + 0.80 * texel[:, 1])
    return color * a[:, :3] * (tone * opacity)[:, None], opacity


def _hair_texel(patch: HairPatch, uv: Tensor) -> Tensor:
    rows, columns, _ = patch.texture.shape
    u = uv[:, 0] - uv[:, 0].floor()  # the azimuth closes
    return sample_bilinear(patch.texture, u * (columns - 1), uv[:, 1] * (rows - 1))


def _shell_opacity(patch: HairPatch, strand: Tensor, edge: Tensor, height: float, facing: Tensor) -> Tensor:
    """Opacity of a shell from its strands and the distance to the hair's border."""
    edge = edge - 0.07 * height * (0.0 if patch.curl > 0.8 else 1.0)  # outer shells end earlier
    if patch.short:
        threshold, soft = 0.26 + 0.26 * height + 0.35 * smoothstep(0.20, 0.0, edge), 0.2
    elif patch.curl > 0.3:
        threshold, soft = 0.20 + 0.32 * height + 0.35 * smoothstep(0.22, 0.0, edge), 0.2
    else:
        threshold, soft = 0.06 + 0.50 * height**1.5 + 0.45 * smoothstep(0.18, -0.02, edge), 0.12
    threshold = threshold - (0.25 + 0.25 * patch.curl) * (1 - facing) ** 2  # a grazing ray passes more strands
    border = 0.13 if patch.short else 0.035  # cropped hair fades out, longer hair ends in tips
    opacity = smoothstep(-1.0, 1.0, (strand - threshold) / soft) * smoothstep(-0.02, border, edge)
    if height <= 0.36 and not patch.short:
        opacity = torch.maximum(opacity, smoothstep(0.0, 0.12, edge + 0.12 * (strand - 0.5)))
    return opacity
