"""Layers over the opaque surfaces of a frame: lashes, beard, glasses and earrings, hair."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from export3d.heads.hair.shells import light_hair, shade_hair, shade_hair_inside
from export3d.heads.look.beard import shade_beard
from export3d.heads.look.eyes import lash_reach
from export3d.heads.look.passes import FramePass
from export3d.heads.look.torso import torso_lag
from export3d.heads.raster.fields import sample_bilinear, smoothstep
from export3d.heads.raster.light import highlights, irradiance_matrix, quadratic_irradiance


def draw_lashes(p: FramePass) -> None:
    """Lashes fade towards their tips."""
    identity, head = p.identity, p.identity.head
    lashes = head.triangles_of("lashes_left", "lashes_right")
    triangles = head.triangles[lashes]
    f = p.visible(p.projected, triangles)
    position = f.interpolate(p.vertices.reshape(-1, 3), f.corners(triangles, p.vertices.shape[1]))
    distance = (p.eye[f.image] - position).norm(dim=1)
    seen = (distance < p.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
    reach = f[seen].interpolate(lash_reach(head)[:, None], triangles[f.triangle[seen]])[:, 0]
    strength = 0.55 if identity.traits.is_feminine else 0.34
    opacity = strength * smoothstep(0.75, 0.05, reach)
    color = position.new_tensor([0.012, 0.009, 0.008]) * opacity[:, None]
    p.over(f.pixel[seen], color, opacity, distance[seen], head.part("lashes_left"))


def draw_beard(p: FramePass) -> None:
    """Shells lifted off the moving face."""
    identity, beard = p.identity, p.identity.beard
    if beard is None:
        return
    count = len(beard.length)
    lifted = p.vertices[:, :count] + p.normals[:, :count] * beard.length[:, None]
    f = p.visible(p.project(lifted), beard.triangles, one_sided=True)
    attributes = torch.cat([lifted, p.normals[:, :count], p.irradiance[:, :count]], -1).reshape(-1, 9)
    a = f.interpolate(attributes, f.corners(beard.triangles, count))
    offset = p.eye[f.image] - a[:, :3]
    distance = offset.norm(dim=1)
    seen = (distance < p.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
    f, a, distance = f[seen], a[seen], distance[seen]
    uv = f.interpolate(identity.head.uv, beard.triangle_uv[f.triangle])
    size = identity.atlas.shape[0]
    texel = sample_bilinear(identity.atlas, uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5)
    facing = (F.normalize(a[:, 3:6], dim=1) * offset[seen]).sum(1) / distance
    color = a.new_tensor(identity.traits.hair_color)
    shade, opacity = shade_beard(texel, a[:, 6:9], facing.clamp(0, 1), color, identity.traits.beard)
    p.over(f.pixel, shade, opacity, distance, identity.hair_part)


def draw_props(p: FramePass) -> None:
    """Glasses and earrings: plain, shiny."""
    identity, props = p.identity, p.identity.props
    if props is None:
        return
    f = p.visible(p.project(props.vertices.expand(p.batch, -1, -1)), props.triangles)
    fixed = torch.cat([props.vertices, props.normals, props.colors, props.shine[:, None]], 1)
    a = f.interpolate(fixed, props.triangles[f.triangle])
    offset = p.eye[f.image] - a[:, :3]
    distance = offset.norm(dim=1)
    seen = (distance < p.depth_cm[f.pixel]).nonzero()[:, 0]
    a, view, image = a[seen], offset[seen] / distance[seen, None], f.image[seen]
    normal = F.normalize(a[:, 3:6], dim=1)
    normal = torch.where((normal * view).sum(1, keepdim=True) < 0, -normal, normal)
    light = quadratic_irradiance(normal, irradiance_matrix(p.light.harmonics), image).clamp(min=0.05)
    shine = highlights(normal, view, p.light, image, lobes=(60.0,), f0=0.06)[0]
    color = a[:, 6:9] * light * 0.8 + shine * a[:, 9:]
    p.over(f.pixel[seen], color, torch.ones_like(distance[seen]), distance[seen], identity.prop_part)


def draw_hair(p: FramePass, index: int) -> None:
    """One patch of hair; where it sways, the inside of its far half first."""
    identity, patch = p.identity, p.identity.hair[index]
    outer = patch.outer.expand(p.batch, -1, -1)
    if patch.sway and not p.static:
        outer = torso_lag(outer, smoothstep(-4.5, -16.0, patch.outer[:, 1]), p.head_rotation)
    projected = p.project(outer)
    attributes = light_hair(patch, outer, identity.hair_transfer[index], p.light, p.eye)
    color = outer.new_tensor(identity.traits.hair_color)
    if patch.sway:
        inside = patch.triangles.flip(1)
        f = p.visible(projected, inside, one_sided=True)
        a = f.interpolate(attributes, f.corners(inside, outer.shape[1]))
        seen = (a[:, 14] < p.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
        shade, opacity = shade_hair_inside(patch, a[seen], color)
        p.over(f.pixel[seen], shade, opacity, a[seen, 14], identity.hair_part)
    f = p.visible(projected, patch.triangles, one_sided=True)
    a = f.interpolate(attributes, f.corners(patch.triangles, outer.shape[1]))
    room = p.depth_cm[f.pixel] - a[:, 14]
    seen = (room > -0.02).nonzero()[:, 0]
    a, room, pixel = a[seen], room[seen], f.pixel[seen]
    shade, opacity, depth = shade_hair(patch, a, room, color)
    p.over(pixel, shade, opacity, a[:, 14] + depth, identity.hair_part)
