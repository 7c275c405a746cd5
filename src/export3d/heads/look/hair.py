"""Hair: a lofted volume over the skull, cut into shells, with strand noise baked to a texture (no paper section).

The volume is a grid of (polar angle from the crown, azimuth) on the identity's own skull, ears left out; long styles go on
below the ears as a curtain. One texture holds the strands, the tone and the distance from the hair's border, so that
drawing a pixel of hair is one texture lookup.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.look.appearance import AppearanceOptions, Traits
from export3d.heads.look.hair_colour import (
    DEG,
    SKULL_CENTER_CM,
    STYLES,
    HairStyle,
    hairline,
    parting,
    parting_side,
    recession_of,
)
from export3d.heads.raster.fields import (
    grid_triangles,
    shared_noise,
    smoothstep,
    vertex_normals,
)
from export3d.heads.shape.parametric import ParametricHead

_ROWS, _COLUMNS = 40, 96
_MAX_POLAR = 2.5
_CURTAIN_POLAR = 1.62  # polar angle, just below the ears' tops, where long hair leaves the skull
_CURTAIN_ROWS = 22


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
        traits: Its look.
        options: Layers and texture size.

    Returns:
        No patch for a bald head, one for hair, two for hair with a bun.
    """
    style = STYLES[traits.style]
    if style is None:
        return ()
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
    cu, su, along, tangent = _strand_field(out, (forwards, style.crown[1] + rng.uniform(-8, 8)), mirror)
    line = _border(pp, style, traits, offset, mirror)
    slope = torch.gradient(line, dim=1)[0] / (2 * math.pi / _COLUMNS)
    edge = (line - tt) / (1 + 0.35 * slope**2).sqrt()
    noise = shared_noise(31)
    lump = noise((out * 2.2 + offset).reshape(-1, 3)).reshape(pp.shape)
    lock = noise(torch.stack([cu * 5.0, su * 5.0, along * 0.9], -1).reshape(-1, 3) + offset).reshape(pp.shape)
    top = smoothstep(1.25, 0.3, tt) * smoothstep(-0.6, 0.8, out[..., 2]) * style.top
    thick = style.thickness * (style.sides + (1 - style.sides) * smoothstep(1.55, 0.75, tt)) + top
    if style.curl:  # round at the border, so that the volume closes on the skull
        thick = thick * (0.04 + 0.96 * (edge / 0.55).clamp(0, 1).sqrt())
    else:
        thick = thick * (style.taper + (1 - style.taper) * smoothstep(-0.05, 0.5, edge))
    thick = thick * (1 + 0.16 * lump + style.locks * lock)
    num_layers = options.hair_layers
    if traits.style == "buzz":
        num_layers = min(num_layers, 3)
    ends = torch.tensor([0.2, 1.0], device=vertices.device)
    layers = center + out * (radius + thick * ends[:, None, None] + 0.08)[..., None]  # (2, R, C, 3) near roots, outer
    if style.curtain is not None:
        layers, edge, cu, su, along, tangent = _curtain(layers, edge, cu, su, along, tangent, tt, pp, style, offset)
    texture = _bake(torch.stack([cu, su, along, edge], -1), layers[-1], style, options, offset)
    # Parallax holds for volumes much thinner than the head, so thick hair is cut into nested volumes.
    num_volumes = 3 if style.thickness > 4.0 else 2 if style.thickness > 2.4 else 1
    roots, tips = layers[0] - 0.25 * (layers[1] - layers[0]), layers[1]
    patches = []
    for volume in range(num_volumes):
        low, high = volume / num_volumes, (volume + 1) / num_volumes
        surfaces = torch.stack([torch.lerp(roots, tips, low), torch.lerp(roots, tips, high)])
        patches.append(
            _patch(
                surfaces,
                edge,
                tangent,
                texture,
                low + (high - low) * torch.arange(1, num_layers + 1, device=vertices.device) / num_layers,
                center,
                curl=style.curl,
                short=style.thickness < 0.5,
                sway=style.curtain is not None,
            )
        )
        num_layers = max(2, num_layers - 1)
    return (*patches, _bun(vertices, options, offset)) if style.bun else tuple(patches)


def _patch(
    layers: Tensor,
    edge: Tensor,
    tangent: Tensor,
    texture: Tensor,
    height: Tensor,
    center: Tensor,
    *,
    curl: float,
    short: bool,
    sway: bool,
) -> HairPatch:
    """A patch from its inner and outer surface ``(2, R, C, 3)`` and the heights of its shells."""
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
    per_cm = torch.stack(
        [
            step_u / (step_u**2).sum(-1, keepdim=True).clamp(min=25.0),
            step_v / (step_v**2).sum(-1, keepdim=True).clamp(min=25.0),
        ],
        -2,
    )
    return HairPatch(
        outer=outer.reshape(-1, 3),
        thickness=thickness.reshape(-1),
        bend=(thickness / curvature).reshape(-1).clamp(0, 0.9) * 0.5,
        height=height,
        triangles=triangles[(edge.reshape(-1)[triangles] > -0.14).any(1)],
        uv=torch.stack([across, down], -1).reshape(-1, 2),
        uv_per_cm=per_cm.reshape(-1, 2, 3),
        tangent=F.normalize(tangent.reshape(-1, 3) + 1e-6, dim=1),
        normal=normal.reshape(-1, 3),
        round=F.normalize(smooth.reshape(-1, 3), dim=1),
        texture=texture,
        curl=curl,
        short=short,
        sway=sway,
    )


def _strand_field(out: Tensor, crown: tuple[float, float], mirror: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates across the strands (two, periodic), along them, and their direction, around a tilted crown."""
    a, b = crown[0] * DEG, crown[1] * DEG * mirror
    axis = F.normalize(out.new_tensor([math.sin(b) * math.cos(a), math.cos(b) * math.cos(a), math.sin(a)]), dim=0)
    first = F.normalize(torch.linalg.cross(axis, out.new_tensor([1.0, 0.0, 0.0])), dim=0)
    second = torch.linalg.cross(axis, first)
    cosine = (out @ axis).clamp(-1, 1)
    cu, su = out @ first, out @ second
    sine = torch.hypot(cu, su).clamp(min=0.05)
    tangent = (cosine[..., None] * out - axis) / sine[..., None]
    return cu / sine, su / sine, torch.acos(cosine), tangent


def _border(pp: Tensor, style: HairStyle, traits: Traits, offset: Tensor, mirror: float) -> Tensor:
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


def _curtain(
    layers: Tensor,
    edge: Tensor,
    cu: Tensor,
    su: Tensor,
    along: Tensor,
    tangent: Tensor,
    tt: Tensor,
    pp: Tensor,
    style: HairStyle,
    offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Replace the grid below the ears' tops by a curtain that falls to the style's length, open at the face."""
    assert style.curtain is not None
    end, flare = style.curtain
    noise = shared_noise(33)
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
    edge = torch.cat([upper, lower])
    along = torch.cat([along[: start + 1], along[start] + drop[-1] / 9.0])
    cu = torch.cat([cu[: start + 1], cu[start].expand(_CURTAIN_ROWS, -1)])
    su = torch.cat([su[: start + 1], su[start].expand(_CURTAIN_ROWS, -1)])
    path = torch.gradient(layers[-1], dim=0)[0]
    settle = smoothstep(0.75, _CURTAIN_POLAR - 0.15, tt[: start + 1])[..., None]  # no kink where the curtain starts
    skull = (1 - settle) * tangent[: start + 1] + settle * F.normalize(path[: start + 1], dim=-1)
    tangent = torch.cat([skull, F.normalize(path[start + 1 :], dim=-1)])
    return layers, edge, cu, su, along, tangent


def _bake(fields: Tensor, surface: Tensor, style: HairStyle, options: AppearanceOptions, offset: Tensor) -> Tensor:
    """Strand texture from ``(R, C, 4)`` fields (two across, along, border distance) -> ``(rows, columns, 4)``."""
    rows, columns = (176, 704) if options.quality == "fast" else (320, 1280)
    grid = torch.cat([fields, surface], -1).permute(2, 0, 1)[None]
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
    tangent = torch.stack([-out[..., 1], out[..., 0], out[..., 2] * 0.2], -1)
    fields = torch.stack([out[..., 2], uu.cos() * 0.3, torch.atan2(out[..., 1], out[..., 0]).abs(), uu * 0 + 1], -1)
    texture = _bake(fields, layers[-1], HairStyle(thickness=1.0), options, offset)
    edge, heights = torch.ones_like(uu), torch.tensor([0.25, 0.5, 0.75, 1.0], device=vertices.device)
    return _patch(layers, edge, tangent, texture, heights, center, curl=0.0, short=False, sway=False)
