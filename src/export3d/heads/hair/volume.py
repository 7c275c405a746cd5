"""Hair: a lofted volume over the skull, cut into shells, with strand noise baked to a texture (no paper section).

The volume is a grid of (polar angle from the crown, azimuth) on the identity's own skull, ears left out; long styles go on
below the ears as a curtain. One texture holds the strands, the tone and the distance from the hair's border, so that
drawing a pixel of hair is one texture lookup.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.hair.curtain import with_curtain
from export3d.heads.hair.strands import HairGrid, bake, border, strand_field
from export3d.heads.hair.styles import SKULL_CENTER_CM, STYLES, HairStyle, parting_side
from export3d.heads.look.appearance import AppearanceOptions, Traits
from export3d.heads.raster.fields import grid_triangles, shared_noise, smoothstep, vertex_normals
from export3d.heads.shape.parametric import ParametricHead

_ROWS, _COLUMNS = 40, 96
_MAX_POLAR = 2.5


@dataclass(frozen=True, kw_only=True)
class HairPatch:
    """A volume of hair below one surface, cut into L shells.

    Only the outer surface is rasterised. The shells below it are found by parallax: a ray that meets the surface at
    texture place p meets the shell at depth d near p + d * slide, unless it grazes by and never gets that deep.

    Attributes:
        outer: ``(G, 3)`` cm, the outer surface.
        thickness: ``(G,)`` cm, depth of the innermost root below `outer`.
        bend: ``(G,)`` thickness relative to the radius of curvature; says which shells a grazing ray can reach.
        height: ``(L,)`` height of each shell relative to the whole hair, in (0, 1], innermost first; the last one is
            `outer`.
        triangles: ``(F, 3)``; those without hair are dropped. Counter-clockwise from outside.
        uv: ``(G, 2)`` place in the texture, [0, 1].
        uv_per_cm: ``(G, 2, 3)`` change of uv for a step along the surface.
        tangent: ``(G, 3)`` unit direction of the strands, away from the root.
        normal: ``(G, 3)`` unit, outwards; one field through skull and curtain, or the seam would show.
        round: ``(G, 3)`` normal without locks and waves; says how flat a ray passes.
        texture: ``(rows, columns, 4)`` strands of even shells, of odd shells, tone, distance to the border (radians).
        curl: 0 straight .. 1 tight curls.
        short: Whether the hair is too short to be see-through between strands.
        sway: Whether the patch follows the neck and its inside can be seen (long hair).
    """

    outer: Tensor
    thickness: Tensor
    bend: Tensor
    height: Tensor
    triangles: Tensor
    uv: Tensor
    uv_per_cm: Tensor
    tangent: Tensor
    normal: Tensor
    round: Tensor
    texture: Tensor
    curl: float
    short: bool
    sway: bool


@functools.lru_cache(maxsize=4)
def _skull_grid(head: ParametricHead) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Polar angle and azimuth ``(R, C)`` of the grid, and the vertices and weights that carry each grid point."""
    device = head.vertices.device
    chosen = head.vertices_of("face", "head_neck")
    v = head.vertices
    ear = (v[:, 0].abs() > 6.75) & (v[:, 1] < 6.5) & (v[:, 1] > -4.5) & (v[:, 2] < 3.5) & (v[:, 2] > -5)
    index = (chosen & ~ear & (v[:, 1] > -9.0)).nonzero()[:, 0]
    direction = F.normalize(v[index] - v.new_tensor(SKULL_CENTER_CM), dim=1)
    polar = torch.linspace(0.001, _MAX_POLAR, _ROWS, device=device)
    azimuth = torch.linspace(-math.pi, math.pi, _COLUMNS + 1, device=device)
    tt, pp = torch.meshgrid(polar, azimuth, indexing="ij")
    grid = torch.stack([tt.sin() * pp.sin(), tt.cos(), tt.sin() * pp.cos()], -1).reshape(-1, 3)
    closeness, nearest = (grid @ direction.T).topk(24, dim=1)
    weights = torch.softmax((closeness - 1.0) / 0.004, 1)
    return tt, pp, index[nearest], weights


def build_hair(
    head: ParametricHead, vertices: Tensor, traits: Traits, options: AppearanceOptions
) -> tuple[HairPatch, ...]:
    """Shells of an identity.

    Args:
        vertices: ``(V, 3)`` the identity's resting head in cm.

    Returns:
        No patch for a bald head, one for hair, two for hair with a bun.
    """
    style = STYLES[traits.style]
    if style is None:
        return ()
    hair, offset = _grown(head, vertices, traits, style)
    texture = bake(hair, style, options, offset)
    num_layers = min(options.hair_layers, 3) if traits.style == "buzz" else options.hair_layers
    # Parallax holds for volumes much thinner than the head, so thick hair is cut into nested volumes.
    num_volumes = 3 if style.thickness > 4.0 else 2 if style.thickness > 2.4 else 1
    roots, tips = hair.layers[0] - 0.25 * (hair.layers[1] - hair.layers[0]), hair.layers[1]
    patches = []
    for volume in range(num_volumes):
        low, high = volume / num_volumes, (volume + 1) / num_volumes
        surfaces = torch.stack([torch.lerp(roots, tips, low), torch.lerp(roots, tips, high)])
        height = low + (high - low) * torch.arange(1, num_layers + 1, device=vertices.device) / num_layers
        center = vertices.new_tensor(SKULL_CENTER_CM)
        patches.append(_patch(replace(hair, layers=surfaces), texture, height, center, style))
        num_layers = max(2, num_layers - 1)
    return (*patches, _bun(vertices, options, offset)) if style.bun else tuple(patches)


def _grown(head: ParametricHead, vertices: Tensor, traits: Traits, style: HairStyle) -> tuple[HairGrid, Tensor]:
    """The hair over the identity's skull, and ``(3,)`` where this identity looks its noise up."""
    rng = np.random.default_rng([traits.seed, 5])
    offset = vertices.new_tensor(rng.uniform(0, 30, 3))
    mirror = parting_side(traits.seed)
    tt, pp, index, weights = _skull_grid(head)
    center = vertices.new_tensor(SKULL_CENTER_CM)
    base = (vertices[index] * weights[..., None]).sum(1).reshape(*tt.shape, 3)
    radius = (base - center).norm(dim=-1)
    out = torch.stack([tt.sin() * pp.sin(), tt.cos(), tt.sin() * pp.cos()], -1)
    forwards = style.crown[0] + rng.uniform(-8, 8)
    if traits.style == "short" and rng.random() < 0.5:
        forwards = 58.0  # brushed up instead of forwards
    across, along, tangent = strand_field(out, (forwards, style.crown[1] + rng.uniform(-8, 8)), mirror)
    line = border(pp, style, traits, offset, mirror)
    slope = torch.gradient(line, dim=1)[0] / (2 * math.pi / _COLUMNS)
    edge = (line - tt) / (1 + 0.35 * slope**2).sqrt()
    noise = shared_noise(31)
    lump = noise((out * 2.2 + offset).reshape(-1, 3)).reshape(pp.shape)
    place = torch.cat([across * 5.0, along[..., None] * 0.9], -1)
    lock = noise(place.reshape(-1, 3) + offset).reshape(pp.shape)
    top = smoothstep(1.25, 0.3, tt) * smoothstep(-0.6, 0.8, out[..., 2]) * style.top
    thick = style.thickness * (style.sides + (1 - style.sides) * smoothstep(1.55, 0.75, tt)) + top
    if style.curl:  # round at the border, so that the volume closes on the skull
        thick = thick * (0.04 + 0.96 * (edge / 0.55).clamp(0, 1).sqrt())
    else:
        thick = thick * (style.taper + (1 - style.taper) * smoothstep(-0.05, 0.5, edge))
    thick = thick * (1 + 0.16 * lump + style.locks * lock)
    ends = torch.tensor([0.2, 1.0], device=vertices.device)
    layers = center + out * (radius + thick * ends[:, None, None] + 0.08)[..., None]
    hair = HairGrid(layers=layers, edge=edge, across=across, along=along, tangent=tangent)
    return hair if style.curtain is None else with_curtain(hair, tt, pp, style, offset), offset


def _patch(hair: HairGrid, texture: Tensor, height: Tensor, center: Tensor, style: HairStyle) -> HairPatch:
    """A patch from its inner and outer surface and the heights ``(L,)`` of its shells."""
    layers, sway = hair.layers, style.curtain is not None
    outer = layers[1]
    rows, columns = outer.shape[:2]
    device = outer.device
    triangles = grid_triangles(rows, columns, device)
    normal = vertex_normals(outer.reshape(1, -1, 3), triangles)[0].reshape(rows, columns, 3)
    normal[:, 0] = normal[:, -1] = F.normalize(normal[:, 0] + normal[:, -1], dim=-1)  # the azimuth's closing column
    away = (outer - center) * outer.new_tensor([1.0, 0.35, 1.0])
    if float((normal * away).sum()) < 0:
        normal, triangles = -normal, triangles.flip(1)
    smooth = outer - center
    if sway:
        smooth = torch.stack([smooth[..., 0], smooth[..., 1].clamp(min=0), smooth[..., 2]], -1)
    thickness = (layers[1] - layers[0]).norm(dim=-1)
    curvature = (outer - center).mul(outer.new_tensor([1.0, 0.5, 1.0])).norm(dim=-1).clamp(min=6.0)
    down = torch.linspace(0, 1, rows, device=device)[:, None].expand(rows, columns)
    across = torch.linspace(0, 1, columns, device=device)[None].expand(rows, columns)
    step_u = torch.gradient(outer, dim=1)[0] * (columns - 1)  # cm for a step of 1 in u
    step_v = torch.gradient(outer, dim=0)[0] * (rows - 1)
    per_cm = torch.stack([step / (step**2).sum(-1, keepdim=True).clamp(min=25.0) for step in (step_u, step_v)], -2)
    return HairPatch(
        outer=outer.reshape(-1, 3),
        thickness=thickness.reshape(-1),
        bend=(thickness / curvature).reshape(-1).clamp(0, 0.9) * 0.5,
        height=height,
        triangles=triangles[(hair.edge.reshape(-1)[triangles] > -0.14).any(1)],
        uv=torch.stack([across, down], -1).reshape(-1, 2),
        uv_per_cm=per_cm.reshape(-1, 2, 3),
        tangent=F.normalize(hair.tangent.reshape(-1, 3) + 1e-6, dim=1),
        normal=normal.reshape(-1, 3),
        round=F.normalize(smooth.reshape(-1, 3), dim=1),
        texture=texture,
        curl=style.curl,
        short=style.thickness < 0.5,
        sway=sway,
    )


def _bun(vertices: Tensor, options: AppearanceOptions, offset: Tensor) -> HairPatch:
    """A knot at the back of the crown."""
    polar = torch.linspace(0, math.pi, 16, device=vertices.device)
    azimuth = torch.linspace(-math.pi, math.pi, 33, device=vertices.device)
    uu, vv = torch.meshgrid(polar, azimuth, indexing="ij")
    out = torch.stack([uu.sin() * vv.cos(), uu.cos(), uu.sin() * vv.sin()], -1)
    top = vertices[:, 1].amax()
    center = torch.stack([top.new_tensor(0.0), top - 1.4, top.new_tensor(-6.8)])
    knot = out * out.new_tensor([3.0, 2.6, 2.6])
    layers = torch.stack([center + 0.8 * knot, center + knot])
    hair = HairGrid(
        layers=layers,
        edge=torch.ones_like(uu),
        across=torch.stack([out[..., 2], uu.cos() * 0.3], -1),
        along=torch.atan2(out[..., 1], out[..., 0]).abs(),
        tangent=torch.stack([-out[..., 1], out[..., 0], out[..., 2] * 0.2], -1),
    )
    style = HairStyle(thickness=1.0)
    heights = torch.tensor([0.25, 0.5, 0.75, 1.0], device=vertices.device)
    return _patch(hair, bake(hair, style, options, offset), heights, center, style)
