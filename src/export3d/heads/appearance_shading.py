"""Shading of visible points: texture lookups, skin and eye highlights, lit strands of hair (no paper section)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.appearance_fields import smoothstep
from export3d.heads.hair import HairPatch
from export3d.heads.light import harmonics9, irradiance

HAIR_ATTRIBUTES = 12
"""Columns of :func:`light_hair`: diffuse 3, white highlights 2, tinted highlights 2, texture place 2, facing 1, tone 2."""


def sample_bilinear(texture: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear lookup with clamped borders.

    Args:
        texture: ``(H, W, C)``.
        column: ``(N,)`` position in texels; 0 is the centre of the first column.
        row: ``(N,)`` position in texels.

    Returns:
        ``(N, C)``.
    """
    height, width, _ = texture.shape
    flat = texture.reshape(height * width, -1)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    left, top = column.floor().clamp(max=width - 2), row.floor().clamp(max=height - 2)
    fx, fy = (column - left)[:, None], (row - top)[:, None]
    first = top.long() * width + left.long()
    upper = torch.lerp(flat.index_select(0, first), flat.index_select(0, first + 1), fx)
    lower = torch.lerp(flat.index_select(0, first + width), flat.index_select(0, first + width + 1), fx)
    return torch.lerp(upper, lower, fy)


def highlights(
    normal: Tensor, view: Tensor, directions: Tensor, colors: Tensor, image: Tensor, lobes: tuple[float, ...], f0: float
) -> list[Tensor]:
    """Blinn-Phong highlights with Schlick's Fresnel.

    Args:
        normal, view: ``(N, 3)`` unit.
        directions: ``(B, L, 3)`` towards the lights.
        colors: ``(L, 3)``.
        image: ``(N,)`` image of each point.
        lobes: Exponents.
        f0: Reflectance at normal incidence.

    Returns:
        For each exponent, ``(N, 3)``.
    """
    totals = [torch.zeros_like(normal) for _ in lobes]
    for k in range(colors.shape[0]):
        toward = directions[0, k].expand_as(normal) if directions.shape[0] == 1 else directions[image, k]
        half = F.normalize(view + toward, dim=1)
        facing = (normal * toward).sum(1).clamp(min=0)
        near = (normal * half).sum(1).clamp(min=1e-4).log()
        grazing = 1.0 - (view * half).sum(1).clamp(0, 1)
        squared = grazing * grazing
        fresnel = (f0 + (1 - f0) * squared * squared * grazing) * facing
        for lobe, total in zip(lobes, totals, strict=True):
            total.addcmul_(((near * lobe).exp() * fresnel * ((lobe + 2) / 8))[:, None], colors[k][None])
    return totals


def quadratic_irradiance(normal: Tensor, matrix: Tensor, image: Tensor) -> Tensor:
    """``(N, 3)`` irradiance of unit normals from the ``(B, 4, 4, 3)`` forms of `light.irradiance_matrix`."""
    ones = torch.ones_like(normal[:, :1])
    n = torch.cat([normal, ones], 1)
    if matrix.shape[0] == 1:
        rows = (n @ matrix[0].reshape(4, 12)).reshape(-1, 4, 3)
    else:
        rows = torch.bmm(n[:, None], matrix.reshape(-1, 4, 12)[image]).reshape(-1, 4, 3)
    return (rows * n[..., None]).sum(1)


def light_hair(
    patch: HairPatch,
    transfer: Tensor,
    harmonics: Tensor,
    directions: Tensor,
    colors: Tensor,
    eye: Tensor,
    color: Tensor,
) -> Tensor:
    """Light the vertices of a patch once for all its layers (Kajiya-Kay).

    Args:
        patch: The hair.
        transfer: ``(G, 9)`` shadowed transfer.
        harmonics: ``(B, 3, 9)``.
        directions: ``(B, L, 3)`` towards the lights.
        colors: ``(L, 3)``.
        eye: ``(B, 3)`` camera position, cm.
        color: ``(3,)`` hair colour.

    Returns:
        ``(B * G, 12)`` attributes, see :data:`HAIR_ATTRIBUTES`.
    """
    batch = harmonics.shape[0]
    position = patch.layers[-1]
    view = F.normalize(eye[:, None] - position, dim=-1)  # (B, G, 3)
    normal, tangent = patch.normal, patch.tangent
    open_light = irradiance(F.normalize(normal * 0.8 + view * 0.2, dim=-1), harmonics).clamp(min=0.02)
    shadowed = (transfer @ harmonics.transpose(1, 2)).clamp(min=0.0)
    diffuse = (0.45 * open_light + 0.55 * shadowed) * 0.85
    lit = ((harmonics9(normal)[:, :1] * 0 + transfer[:, :1]) / 0.2821).clamp(0, 1)  # share of the sky that is open
    white = torch.zeros(batch, position.shape[0], 2, device=position.device)
    tinted = torch.zeros_like(white)
    along_view = (tangent * view).sum(-1)
    across_view = (1 - along_view**2).clamp(min=0).sqrt()
    for k in range(colors.shape[0]):
        toward = directions[:, k, None]  # (B, 1, 3)
        along = (tangent * toward).sum(-1)
        across = (1 - along**2).clamp(min=0).sqrt()
        wrap = ((normal * toward).sum(-1) * 0.6 + 0.4).clamp(min=0) * colors[k].mean() * (0.35 + 0.65 * lit[:, 0])
        for side, shift in enumerate((-0.07, 0.07)):  # strands shift the highlight; the texture's tone picks between
            cosine = (across * across_view - (along + shift) * along_view).clamp(1e-3, 1)
            white[..., side] += wrap * cosine**60
            tinted[..., side] += wrap * cosine**14
    facing = (normal * view).sum(-1, keepdim=True)
    place = patch.uv[None].expand(batch, -1, -1)
    filler = torch.zeros(batch, position.shape[0], 2, device=position.device)
    del color
    return torch.cat([diffuse, white, tinted, place, facing, filler], -1).reshape(-1, HAIR_ATTRIBUTES)


def shade_hair(patch: HairPatch, attributes: Tensor, layer: Tensor, color: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and opacity of visible shell points.

    Args:
        patch: The hair.
        attributes: ``(N, 12)`` interpolated from :func:`light_hair`.
        layer: ``(N,)`` index of the shell.
        color: ``(3,)`` linear hair colour.

    Returns:
        ``(N, 3)`` linear colour and ``(N,)`` opacity.
    """
    rows, columns, _ = patch.texture.shape
    texel = sample_bilinear(patch.texture, attributes[:, 7] * (columns - 1), attributes[:, 8] * (rows - 1))
    strand = torch.where(layer % 2 == 0, texel[:, 0], texel[:, 1])
    tone, height = texel[:, 2], patch.height[layer]
    edge = texel[:, 3] - 0.07 * height * (0.0 if patch.curl > 0.8 else 1.0)
    if patch.short:
        threshold = 0.35 + 0.3 * height + 0.5 * smoothstep(0.16, 0.0, edge)
        soft = 0.14
    elif patch.curl > 0.3:
        threshold = 0.28 + 0.30 * height + 0.4 * smoothstep(0.22, 0.0, edge)
        soft = 0.2
    else:
        threshold = 0.06 + 0.50 * height**1.5 + 0.6 * smoothstep(0.22, -0.02, edge)
        soft = 0.12
    opacity = smoothstep(-1.0, 1.0, (strand - threshold) / soft) * smoothstep(-0.02, 0.035, edge)
    if not patch.short:
        root = smoothstep(0.0, 0.16, edge + 0.12 * (strand - 0.5)) * (height <= 0.36)
        opacity = torch.maximum(opacity, root)
    base = color * (0.42 + 0.80 * strand + 0.5 * (tone - 0.5))[:, None].clamp(min=0.1)
    buried = 0.30 + 0.70 * height  # inner shells are shadowed by outer ones
    buried = buried * torch.where(attributes[:, 9] < 0, 0.45, 1.0)  # the inside of a curtain
    white = torch.lerp(attributes[:, 3], attributes[:, 4], tone)
    tinted = torch.lerp(attributes[:, 5], attributes[:, 6], tone)
    gloss = 1.0 - 0.75 * patch.curl
    shine = 0.024 * white * strand * 1.4 * gloss
    lit = base * (attributes[:, :3] + (0.36 * gloss * tinted * strand * 1.2)[:, None]) + shine[:, None]
    return lit * buried[:, None], opacity
