"""Opaque surfaces of a frame: skin with its wrinkles, eyeballs, the inside of the mouth, the garment."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.look.atlas import ALBEDO, BUMP, GLOSS, LIP
from export3d.heads.look.passes import FramePass
from export3d.heads.look.wrinkles import wrinkle_depth, wrinkle_fields
from export3d.heads.raster.fields import sample_bilinear, smoothstep, vertex_normals
from export3d.heads.raster.light import highlights, irradiance_matrix, quadratic_irradiance
from export3d.heads.raster.rasterize import Fragments

_BUMP = 0.10
_FOLD = 3.2  # slope of a full wrinkle, in units of _BUMP
_CREASE = 0.22  # how much darker the bottom of a full wrinkle is
_MOUTH = {"teeth": (0.86, 0.80, 0.70), "gums_tongue": (0.45, 0.13, 0.12), "mouth_socket": (0.32, 0.08, 0.07)}
_MOUTH_REACH_CM = {"teeth": 1.7, "gums_tongue": 1.3, "mouth_socket": 1.3}
_SOCKET = (0.20, 0.09, 0.08)


@dataclass(frozen=True)
class _Points:
    """N visible points of opaque surfaces."""

    fragments: Fragments
    part: Tensor  # (N,) id
    position: Tensor  # (N, 3) cm
    normal: Tensor  # (N, 3) unit
    view: Tensor  # (N, 3) unit, towards the camera
    light: Tensor  # (N, 3) irradiance
    eye_uv: Tensor  # (N, 2) place in the eye texture
    open_sky: Tensor  # (N,) share of the sky that is seen from here

    def __getitem__(self, index: Tensor) -> _Points:
        return _Points(*(getattr(self, f.name)[index] for f in fields(self)))

    def uv(self, p: FramePass) -> Tensor:
        """``(N, 2)`` place in the texture of head or garment."""
        return self.fragments.interpolate(p.identity.uv, p.identity.triangle_uv[self.fragments.triangle])

    def highlights(self, p: FramePass, lobe: float, f0: float) -> Tensor:
        """``(N, 3)``."""
        return highlights(self.normal, self.view, p.light, self.fragments.image, lobes=(lobe,), f0=f0)[0]


def draw_surfaces(p: FramePass) -> None:
    """Draw all opaque surfaces; sets the pass's normals and irradiance."""
    identity, head = p.identity, p.identity.head
    f = p.visible(p.projected, identity.triangles, identity.culled)
    num_vertices = p.vertices.shape[1]
    transfer = identity.transfer  # (V, 3, 9)
    light = torch.einsum("vck,bck->bvc", transfer, p.light.harmonics).clamp(min=0).expand(p.batch, -1, -1)
    p.irradiance = light * _mouth_depth(p)
    p.normals = vertex_normals(p.vertices, *identity.surface)
    eye_uv = F.pad(identity.eye_uv, (0, 0, 0, num_vertices - len(identity.eye_uv)))
    open_sky = (transfer[:, 2, 0] / 0.2821).clamp(0, 1)[:, None]
    fixed = torch.cat([eye_uv, open_sky], 1).expand(p.batch, -1, -1)
    attributes = torch.cat([p.vertices, p.normals, p.irradiance, fixed], -1).reshape(-1, 12)
    a = f.interpolate(attributes, f.corners(identity.triangles, num_vertices))
    position, normal = a[:, :3], F.normalize(a[:, 3:6], dim=1)
    offset = p.eye[f.image] - position
    distance = offset.norm(dim=1, keepdim=True)
    part = identity.triangle_part[f.triangle]
    points = _Points(f, part, position, normal, offset / distance, a[:, 6:9], a[:, 9:11], a[:, 11])
    color = torch.empty_like(points.light)
    plain = ((part > 1) & (part < identity.cloth_part)).nonzero()[:, 0]
    color[plain] = _inside(p, points[plain])
    cloth = (part == identity.cloth_part).nonzero()[:, 0]
    if len(cloth):
        color[cloth] = _cloth(p, points[cloth])
    skin = (part < 2).nonzero()[:, 0]
    color[skin] = _skin(p, points[skin])
    for eye, name in enumerate(("sclera_left", "sclera_right")):
        seen = (part == head.part(name)).nonzero()[:, 0]
        if len(seen):
            color[seen] = _eyeball(p, eye, points[seen])
    p.color[f.pixel] = color
    p.alpha[f.pixel] = 1.0
    p.depth_cm[f.pixel] = distance[:, 0]
    p.parts[f.pixel] = part


def _inside(p: FramePass, points: _Points) -> Tensor:
    """Inside of the mouth, eye sockets: one colour each; teeth and tongue are wet."""
    head, light = p.identity.head, points.light
    table = torch.tensor(_SOCKET, device=light.device).repeat(len(head.part_names) + 1, 1)
    for name, value in _MOUTH.items():
        table[head.part(name)] = light.new_tensor(value)
    color = table[points.part] * light
    wet = ((points.part == head.part("teeth")) | (points.part == head.part("gums_tongue"))).nonzero()[:, 0]
    if len(wet):
        color[wet] += 0.4 * points[wet].highlights(p, 60.0, 0.04) * light[wet].mean(1, keepdim=True).clamp(max=1)
    return color


def _cloth(p: FramePass, points: _Points) -> Tensor:
    uv, texture = points.uv(p), p.identity.clothes.texture
    rows, columns, _ = texture.shape
    return sample_bilinear(texture, uv[:, 0] * (columns - 1), uv[:, 1] * (rows - 1)) * points.light


def _mouth_depth(p: FramePass) -> Tensor:
    """``(B, V + C, 1)`` less light deeper inside the mouth, a little more when the jaw is open."""
    identity, head = p.identity, p.identity.head
    lips = identity.rest[head.landmark_vertices[[62, 66]], 2].mean()
    opened = (p.weights[:, head.expression_index["jawOpen"]] * 1.5).clamp(0, 1)[:, None, None]
    factor = torch.ones(p.batch, p.vertices.shape[1], 1, device=lips.device)
    for name, reach in _MOUTH_REACH_CM.items():
        index = head.vertices_of(name).nonzero()[:, 0]
        behind = (lips - identity.rest[index, 2]).clamp(min=0)
        factor[:, index] = torch.exp(-behind / reach)[:, None] * (0.80 + 0.2 * opened)
    return factor


def _skin(p: FramePass, points: _Points) -> Tensor:
    identity, normal, image = p.identity, points.normal, points.fragments.image
    uv = points.uv(p)
    size = identity.atlas.shape[0]
    column, row = uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5
    texel = sample_bilinear(identity.atlas, column, row)
    bump, albedo = texel[:, BUMP], texel[:, ALBEDO]
    face = (uv[:, 0] < 1.0).nonzero()[:, 0]
    folds = _wrinkles(p, column[face], row[face], image[face])
    bump = bump.index_add(0, face, folds[:, :3])
    albedo = albedo * (1 - torch.zeros_like(row).index_add(0, face, folds[:, 3]))[:, None]
    bumped = normal + _BUMP * (bump - (bump * normal).sum(1, keepdim=True) * normal)
    bumped = F.normalize(bumped, dim=1)
    matrix = irradiance_matrix(p.light.harmonics)
    smooth = quadratic_irradiance(normal, matrix, image).clamp(min=0.05)
    light = points.light * (quadratic_irradiance(bumped, matrix, image) / smooth).clamp(0.6, 1.5)
    broad, sharp = highlights(bumped, points.view, p.light, image, lobes=(26.0, 90.0), f0=0.028)
    gloss = (texel[:, GLOSS] * points.open_sky**1.5)[:, None]
    shine = broad * 0.55 + sharp * (0.12 + 0.5 * texel[:, LIP, None])
    return albedo * light + shine * gloss


def _wrinkles(p: FramePass, column: Tensor, row: Tensor, image: Tensor) -> Tensor:
    """``(N, 4)`` bump and darkening of the expression's wrinkles at points of the face tile."""
    identity = p.identity
    size = identity.atlas.shape[0]
    depth = wrinkle_depth(identity.head, p.weights, identity.traits.age)  # (B, 4)
    scale = depth.new_tensor([_FOLD, _FOLD, _FOLD, _CREASE])
    fields = wrinkle_fields(identity.head, size)
    blended = torch.einsum("bg,yxgc->byxc", depth, fields) * scale
    row = row.clamp(0, size - 1) + image * size
    return sample_bilinear(blended.reshape(-1, size, 4), column, row)


def _eyeball(p: FramePass, eye: int, points: _Points) -> Tensor:
    identity = p.identity
    place = points.eye_uv * (identity.eye_texture.shape[0] - 1)
    albedo = sample_bilinear(identity.eye_texture, place[:, 0], place[:, 1])
    height = points.position[:, 1] - identity.eye_centers[eye, 1]
    shade = 0.8 * (1 - 0.45 * smoothstep(0.15, 0.75, height))  # the upper lid's shadow
    blink = p.weights[:, identity.head.expression_index["eyeBlink_L" if eye == 0 else "eyeBlink_R"]]
    shut = smoothstep(0.86, 0.99, blink)[points.fragments.image]  # what is left of a shut eye is lash line, not white
    color = albedo * points.light * shade[:, None] + 0.30 * points.highlights(p, 700.0, 0.03)
    lid = 0.35 * identity.lid_color * points.light
    return torch.lerp(color, lid, shut[:, None]) + 0.002
