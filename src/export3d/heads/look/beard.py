"""Full beards: short shells over the face that move with it, with a soft and uneven border (no paper section)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from export3d.heads.look.appearance import Traits
from export3d.heads.look.atlas import BEARD, STRAND
from export3d.heads.raster.fields import sample_bilinear, smoothstep
from export3d.heads.shape.parametric import ParametricHead

_SHELLS = 4


@dataclass(frozen=True, kw_only=True)
class Beard:
    """Attributes:
    triangles: ``(F, 3)`` into the head's vertices: where the beard grows.
    triangle_uv: ``(F, 3)`` their texture corners.
    length: ``(V,)`` cm by which each vertex is lifted along its normal.
    """

    triangles: Tensor
    triangle_uv: Tensor
    length: Tensor


def build_beard(head: ParametricHead, atlas: Tensor, traits: Traits) -> Beard | None:
    """The shells of a beard from the atlas; None for shaved faces and stubble."""
    if traits.beard < 0.5:
        return None
    size = atlas.shape[0]
    face = head.triangles_of("face", "head_neck")
    triangles, triangle_uv = head.triangles[face], head.triangle_uv[face]
    uv = head.uv[triangle_uv.reshape(-1)]
    density = sample_bilinear(atlas[..., BEARD : BEARD + 1], uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5)[:, 0]
    grown = torch.zeros(head.vertices.shape[0], device=uv.device)
    grown.scatter_reduce_(0, triangles.reshape(-1), density, "amax")
    keep = (grown[triangles] > 0.03).any(1)
    longest = 0.12 + 0.42 * traits.beard
    return Beard(triangles=triangles[keep], triangle_uv=triangle_uv[keep], length=longest * smoothstep(0.1, 0.9, grown))


def shade_beard(texel: Tensor, light: Tensor, facing: Tensor, color: Tensor, amount: float) -> tuple[Tensor, Tensor]:
    """Walk down the shells of visible beard points.

    Args:
        texel: ``(N, C)`` atlas values.
        light: ``(N, 3)`` irradiance.
        facing: ``(N,)`` cosine between normal and view.
        color: ``(3,)`` linear hair colour.
        amount: Length of the beard, 0.5 .. 1.

    Returns:
        ``(N, 3)`` linear colour premultiplied by opacity, and ``(N,)`` opacity.
    """
    density, strand = texel[:, BEARD], texel[:, STRAND] * 0.5 + 0.5
    thin = smoothstep(0.0, 0.75, density) * 0.9  # the border fades out, hair by hair
    left, tone = torch.ones_like(density), torch.zeros_like(density)
    for shell in range(_SHELLS, 0, -1):
        height = shell / _SHELLS
        threshold = 0.30 + 0.34 * height - 0.16 * amount + 0.40 * (1 - density)
        threshold = threshold - 0.10 * (1 - facing)  # strands stand close at the silhouette
        opacity = smoothstep(-0.17, 0.17, strand - threshold) * thin
        tone = tone + left * opacity * (0.35 + 0.65 * height) * (0.6 + 0.95 * strand)
        left = left * (1 - opacity)
    return color * tone[:, None] * light, 1 - left
