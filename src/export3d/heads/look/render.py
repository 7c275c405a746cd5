"""Render frames of an identity: colour, alpha, depth and parts from weights, gaze and cameras (the data of Sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.heads.look.atlas import ALBEDO, BUMP, GLOSS, LIP
from export3d.heads.look.beard import Beard, shade_beard
from export3d.heads.look.eyes import lash_reach
from export3d.heads.look.identity import Identity, develop
from export3d.heads.look.props import Props
from export3d.heads.look.shading import (
    highlights,
    light_hair,
    quadratic_irradiance,
    sample_bilinear,
    shade_hair,
    shade_hair_inside,
)
from export3d.heads.look.wrinkles import wrinkle_depth, wrinkle_fields
from export3d.heads.raster.fields import smoothstep, vertex_normals
from export3d.heads.raster.light import irradiance_matrix
from export3d.heads.raster.rasterize import Fragments, rasterize
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE

_FLIP = (1.0, -1.0, -1.0)
_PIVOT_CM = (0.0, -6.0, -1.5)
_FOLLOW = 0.45  # share of the head's turn that the torso follows when the scene is not static
_BUMP = 0.10
_FOLD = 3.2  # slope of a full wrinkle, in units of _BUMP
_CREASE = 0.22  # how much darker the bottom of a full wrinkle is
_MOUTH = {"teeth": (0.86, 0.80, 0.70), "gums_tongue": (0.45, 0.13, 0.12), "mouth_socket": (0.32, 0.08, 0.07)}
_MOUTH_REACH_CM = {"teeth": 1.7, "gums_tongue": 1.3, "mouth_socket": 1.3}
_SOCKET = (0.20, 0.09, 0.08)


@dataclass(frozen=True)
class HeadFrames:
    """Rendered frames.

    Attributes:
        color: ``(T, 3, H, W)`` sRGB in [0, 1]; over the background, or premultiplied by alpha over black.
        alpha: ``(T, H, W)`` opacity of the person in [0, 1].
        depth: ``(T, H, W)`` distance along the ray to the nearest surface in scene units, 0 where alpha is 0.
        parts: ``(T, H, W)`` int64 part id, -1 for background; garment, hair, and things worn follow the
            head's parts.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    parts: Tensor


def render_frames(
    identity: Identity,
    weights: Tensor,
    gaze: Tensor,
    camera: Camera,
    *,
    size: int,
    supersample: int = 2,
    static_scene: bool = True,
    transparent_background: bool = False,
    frames_per_pass: int | None = None,
) -> HeadFrames:
    """Render an identity.

    Args:
        identity: Who.
        weights: ``(T, 53)`` total expression weights in [0, 1].
        gaze: ``(T, 2)`` yaw and pitch of the eyes in radians, relative to the head; + is image right and up.
        camera: T cameras; the world is the head's frame.
        size: Side of the square frames in pixels.
        supersample: Samples per pixel along each side.
        static_scene: Light and torso are fixed to the head, so that frames differ by expression and camera alone. If
            not, lights stay in the room and the torso follows the head only partly, as in real videos.
        transparent_background: Premultiplied colour over black instead of the identity's background.
        frames_per_pass: Frames held in memory at once; None chooses by device and size.

    Returns:
        :class:`HeadFrames` on the identity's device.
    """
    count = len(camera)
    check_shape("weights", weights, count, len(identity.head.expression_names))
    check_shape("gaze", gaze, count, 2)
    device = identity.rest.device
    weights, gaze, camera = weights.to(device), gaze.to(device), camera.to(device)
    if frames_per_pass is None:
        budget = 140_000 if device.type == "cpu" else 6_000_000
        frames_per_pass = max(1, budget // (size * supersample) ** 2)
    passes = []
    for begin in range(0, count, frames_per_pass):
        chosen = slice(begin, begin + frames_per_pass)
        frame = _Pass(identity, weights[chosen], gaze[chosen], camera[chosen], size * supersample, static_scene)
        passes.append(frame.finish(supersample, transparent_background))
    return HeadFrames(
        torch.cat([p.color for p in passes]),
        torch.cat([p.alpha for p in passes]),
        torch.cat([p.depth for p in passes]),
        torch.cat([p.parts for p in passes]),
    )


class _Pass:
    """A few frames at sample resolution: geometry, opaque surfaces, then lashes and hair on top."""

    def __init__(
        self, identity: Identity, weights: Tensor, gaze: Tensor, camera: Camera, side: int, static_scene: bool
    ) -> None:
        self.identity, self.weights, self.camera = identity, weights, camera
        self.side, self.batch = side, len(camera)
        self.static = static_scene
        rest = identity.rest
        self.rotation = camera.cam_to_world[:, :3, :3]
        self.eye = camera.cam_to_world[:, :3, 3] / WORLD_SCALE + rest.new_tensor(WORLD_ORIGIN_CM)  # (B, 3) cm
        self.head_rotation = (self.rotation * rest.new_tensor(_FLIP)).transpose(1, 2)
        room_to_head = torch.eye(3, device=rest.device)[None]
        if not static_scene:
            room_to_head = self.head_rotation.transpose(1, 2)
        self.harmonics = identity.lights.harmonics(room_to_head)  # (B or 1, 3, 9)
        self.light_directions = identity.lights.turned(room_to_head)
        moved = identity.vertices(weights, gaze)
        clothes = identity.clothes.vertices.expand(self.batch, -1, -1)
        self.vertices = torch.cat([moved, clothes], 1)  # (B, V + C, 3)
        if not static_scene:
            self.vertices = torso_lag(self.vertices, _neck_weight(identity), self.head_rotation)
        samples = self.batch * side * side
        self.depth_cm = torch.full((samples,), torch.inf, device=rest.device)
        self.parts = torch.full((samples,), -1, dtype=torch.int64, device=rest.device)
        self.color = torch.zeros(samples, 3, device=rest.device)
        self.alpha = torch.zeros(samples, device=rest.device)
        self._opaque()
        if identity.beard is not None:
            self._beard(identity.beard)
        self._lashes()
        if identity.props is not None:
            self._props(identity.props)
        for patch_index in range(len(identity.hair)):
            self._hair(patch_index)

    def finish(self, supersample: int, transparent: bool) -> HeadFrames:
        """Put the background in, develop, and average the samples of each pixel."""
        identity, side = self.identity, self.side
        shape = (self.batch, side, side)
        color = self.color.reshape(*shape, 3).permute(0, 3, 1, 2)
        alpha = self.alpha.reshape(self.batch, 1, side, side)
        if transparent:
            # Un-premultiply, develop, premultiply again: the curve must see the colour of the surface.
            surface = develop(color / alpha.clamp(min=1e-4), identity.lights.exposure)
            image = surface * alpha
        else:
            back = F.interpolate(identity.background_linear[None], size=(side, side), mode="bilinear")
            image = develop(color + (1 - alpha) * back, identity.lights.exposure)
        depth = self.depth_cm.reshape(self.batch, side, side)
        parts = self.parts.reshape(self.batch, side, side)
        if supersample > 1:
            image, alpha = F.avg_pool2d(image, supersample), F.avg_pool2d(alpha, supersample)
            small = side // supersample
            blocks = depth.reshape(self.batch, small, supersample, small, supersample).transpose(2, 3).flatten(3)
            depth, nearest = blocks.min(-1)
            part_blocks = parts.reshape(self.batch, small, supersample, small, supersample).transpose(2, 3).flatten(3)
            parts = part_blocks.gather(-1, nearest[..., None])[..., 0]
        found = torch.isfinite(depth)
        depth = torch.where(found, depth * WORLD_SCALE, torch.zeros_like(depth))
        parts = torch.where(found, parts, torch.full_like(parts, -1))
        return HeadFrames(image, alpha[:, 0], depth, parts)

    def _project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, P, 3)`` cm -> ``(B, P, 2)`` sample positions and z-depth in cm."""
        local = (points - self.eye[:, None]) @ self.rotation
        depth = local[..., 2]
        intrinsics = self.camera.intrinsics
        x = local[..., 0] / depth * intrinsics[:, None, 0, 0] + intrinsics[:, None, 0, 2]
        y = local[..., 1] / depth * intrinsics[:, None, 1, 1] + intrinsics[:, None, 1, 2]
        return torch.stack([x, y], -1) * self.side, depth

    def _opaque(self) -> None:
        identity, head = self.identity, self.identity.head
        self.points_px, self.z = self._project(self.vertices)
        f = rasterize(self.points_px, self.z, identity.triangles, self.side, self.side, identity.culled)
        num_vertices = self.vertices.shape[1]
        corners = f.corners(identity.triangles, num_vertices)
        transfer = identity.transfer  # (V, 3, 9)
        light = torch.einsum("vck,bck->bvc", transfer, self.harmonics).clamp(min=0).expand(self.batch, -1, -1)
        light = light * self._mouth_depth()
        normals = vertex_normals(self.vertices, *identity.surface)
        eye_uv = F.pad(identity.eye_uv, (0, 0, 0, num_vertices - len(identity.eye_uv)))
        open_sky = (transfer[:, 2, 0] / 0.2821).clamp(0, 1)[:, None]
        fixed = torch.cat([eye_uv, open_sky], 1).expand(self.batch, -1, -1)
        self.normals, self.light = normals, light
        attributes = torch.cat([self.vertices, normals, light, fixed], -1).reshape(-1, 12)
        a = f.interpolate(attributes, corners)
        position, normal, light = a[:, :3], F.normalize(a[:, 3:6], dim=1), a[:, 6:9]
        part = identity.triangle_part[f.triangle]
        offset = self.eye[f.image] - position
        distance = offset.norm(dim=1, keepdim=True)
        view = offset / distance
        color = torch.empty_like(light)
        # Inside of the mouth, eye sockets: one colour each.
        table = torch.tensor(_SOCKET, device=light.device).repeat(len(head.part_names) + 1, 1)
        for name, value in _MOUTH.items():
            table[head.part(name)] = light.new_tensor(value)
        plain = ((part > 1) & (part < identity.cloth_part)).nonzero()[:, 0]
        color[plain] = table[part[plain]] * light[plain]
        teeth = plain[(part[plain] == head.part("teeth")) | (part[plain] == head.part("gums_tongue"))]
        if len(teeth):
            wet = highlights(
                normal[teeth], view[teeth], self.light_directions, identity.lights.colors, f.image[teeth], (60.0,), 0.04
            )[0]
            color[teeth] += 0.4 * wet * light[teeth].mean(1, keepdim=True).clamp(max=1)
        cloth = (part == identity.cloth_part).nonzero()[:, 0]
        if len(cloth):
            uv = self._uv(f, cloth)
            rows, columns, _ = identity.clothes.texture.shape
            albedo = sample_bilinear(identity.clothes.texture, uv[:, 0] * (columns - 1), uv[:, 1] * (rows - 1))
            color[cloth] = albedo * light[cloth]
        skin = (part < 2).nonzero()[:, 0]
        color[skin] = self._skin(f, skin, normal[skin], view[skin], light[skin], a[skin, 11])
        for eye, name in enumerate(("sclera_left", "sclera_right")):
            seen = (part == head.part(name)).nonzero()[:, 0]
            if len(seen):
                color[seen] = self._eyeball(eye, f.image[seen], position[seen], normal[seen], view[seen], a[seen, 6:11])
        self.color[f.pixel] = color
        self.alpha[f.pixel] = 1.0
        self.depth_cm[f.pixel] = distance[:, 0]
        self.parts[f.pixel] = part

    def _uv(self, f: Fragments, chosen: Tensor) -> Tensor:
        return f[chosen].interpolate(self.identity.uv, self.identity.triangle_uv[f.triangle[chosen]])

    def _mouth_depth(self) -> Tensor:
        """``(B, V + C, 1)`` less light deeper inside the mouth, a little more when the jaw is open."""
        identity, head = self.identity, self.identity.head
        lips = identity.rest[head.landmark_vertices[[62, 66]], 2].mean()
        opened = (self.weights[:, head.expression_index["jawOpen"]] * 1.5).clamp(0, 1)[:, None, None]
        factor = torch.ones(self.batch, self.vertices.shape[1], 1, device=lips.device)
        for name, reach in _MOUTH_REACH_CM.items():
            index = head.vertices_of(name).nonzero()[:, 0]
            behind = (lips - identity.rest[index, 2]).clamp(min=0)
            factor[:, index] = torch.exp(-behind / reach)[:, None] * (0.80 + 0.2 * opened)
        return factor

    def _skin(
        self, f: Fragments, chosen: Tensor, normal: Tensor, view: Tensor, light: Tensor, open_sky: Tensor
    ) -> Tensor:
        identity = self.identity
        uv = self._uv(f, chosen)
        size = identity.atlas.shape[0]
        column, row = uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5
        texel = sample_bilinear(identity.atlas, column, row)
        bump, albedo = texel[:, BUMP], texel[:, ALBEDO]
        face = (uv[:, 0] < 1.0).nonzero()[:, 0]
        folds = self._wrinkles(column[face], row[face], f.image[chosen[face]])
        bump = bump.index_add(0, face, folds[:, :3])
        albedo = albedo * (1 - torch.zeros_like(row).index_add(0, face, folds[:, 3]))[:, None]
        bumped = normal + _BUMP * (bump - (bump * normal).sum(1, keepdim=True) * normal)
        bumped = F.normalize(bumped, dim=1)
        matrix, image = irradiance_matrix(self.harmonics), f.image[chosen]
        smooth = quadratic_irradiance(normal, matrix, image).clamp(min=0.05)
        light = light * (quadratic_irradiance(bumped, matrix, image) / smooth).clamp(0.6, 1.5)
        broad, sharp = highlights(
            bumped, view, self.light_directions, identity.lights.colors, image, (26.0, 90.0), 0.028
        )
        gloss = (texel[:, GLOSS] * open_sky**1.5)[:, None]
        shine = broad * 0.55 + sharp * (0.12 + 0.5 * texel[:, LIP, None])
        return albedo * light + shine * gloss

    def _wrinkles(self, column: Tensor, row: Tensor, image: Tensor) -> Tensor:
        """``(N, 4)`` bump and darkening of the expression's wrinkles at points of the face tile."""
        identity = self.identity
        size = identity.atlas.shape[0]
        depth = wrinkle_depth(identity.head, self.weights, identity.traits.age)  # (B, 4)
        scale = depth.new_tensor([_FOLD, _FOLD, _FOLD, _CREASE])
        fields = wrinkle_fields(identity.head, size)
        blended = torch.einsum("bg,yxgc->byxc", depth, fields) * scale
        row = row.clamp(0, size - 1) + image * size
        return sample_bilinear(blended.reshape(-1, size, 4), column, row)

    def _eyeball(
        self, eye: int, image: Tensor, position: Tensor, normal: Tensor, view: Tensor, light_uv: Tensor
    ) -> Tensor:
        identity = self.identity
        side = identity.eye_texture.shape[0]
        place = light_uv[:, 3:5] * (side - 1)
        albedo = sample_bilinear(identity.eye_texture, place[:, 0], place[:, 1])
        height = position[:, 1] - identity.eye_centers[eye, 1]
        shade = 0.8 * (1 - 0.45 * smoothstep(0.15, 0.75, height))  # the upper lid's shadow
        blink = self.weights[:, self.identity.head.expression_index["eyeBlink_L" if eye == 0 else "eyeBlink_R"]]
        shut = smoothstep(0.86, 0.99, blink)[image]  # what is left of a shut eye is lash line, not white
        glint = highlights(normal, view, self.light_directions, identity.lights.colors, image, (700.0,), 0.03)[0]
        color = albedo * light_uv[:, :3] * shade[:, None] + 0.30 * glint
        lid = 0.35 * identity.lid_color * light_uv[:, :3]
        return torch.lerp(color, lid, shut[:, None]) + 0.002

    def _over(self, pixel: Tensor, color: Tensor, opacity: Tensor, distance: Tensor, part: int) -> None:
        """Composite one layer of premultiplied colour; `pixel` must not repeat."""
        keep = 1 - opacity
        self.color[pixel] = self.color[pixel] * keep[:, None] + color
        before = self.alpha[pixel]
        self.alpha[pixel] = before * keep + opacity
        solid = (opacity > 0.5) | ((before == 0) & (opacity > 0))
        pixel = pixel[solid]
        self.depth_cm[pixel] = torch.minimum(self.depth_cm[pixel], distance[solid])
        self.parts[pixel] = part

    def _lashes(self) -> None:
        identity, head = self.identity, self.identity.head
        lashes = head.triangles_of("lashes_left", "lashes_right")
        triangles = head.triangles[lashes]
        f = rasterize(self.points_px, self.z, triangles, self.side, self.side)
        num_vertices = self.vertices.shape[1]
        position = f.interpolate(self.vertices.reshape(-1, 3), f.corners(triangles, num_vertices))
        distance = (self.eye[f.image] - position).norm(dim=1)
        seen = (distance < self.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
        reach = f[seen].interpolate(lash_reach(head)[:, None], triangles[f.triangle[seen]])[:, 0]
        strength = 0.55 if identity.traits.is_feminine else 0.34
        opacity = strength * smoothstep(0.75, 0.05, reach)
        color = position.new_tensor([0.012, 0.009, 0.008]) * opacity[:, None]
        self._over(f.pixel[seen], color, opacity, distance[seen], head.part("lashes_left"))

    def _beard(self, beard: Beard) -> None:
        """Shells lifted off the moving face."""
        identity = self.identity
        count = len(beard.length)
        lifted = self.vertices[:, :count] + self.normals[:, :count] * beard.length[:, None]
        points_px, z = self._project(lifted)
        one_sided = torch.ones(len(beard.triangles), dtype=torch.bool, device=z.device)
        f = rasterize(points_px, z, beard.triangles, self.side, self.side, one_sided)
        attributes = torch.cat([lifted, self.normals[:, :count], self.light[:, :count]], -1).reshape(-1, 9)
        a = f.interpolate(attributes, f.corners(beard.triangles, count))
        offset = self.eye[f.image] - a[:, :3]
        distance = offset.norm(dim=1)
        seen = (distance < self.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
        f, a, distance = f[seen], a[seen], distance[seen]
        uv = f.interpolate(identity.head.uv, beard.triangle_uv[f.triangle])
        size = identity.atlas.shape[0]
        texel = sample_bilinear(identity.atlas, uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5)
        facing = (F.normalize(a[:, 3:6], dim=1) * offset[seen]).sum(1) / distance
        color = a.new_tensor(identity.traits.hair_color)
        shade, opacity = shade_beard(texel, a[:, 6:9], facing.clamp(0, 1), color, identity.traits.beard)
        self._over(f.pixel, shade, opacity, distance, identity.hair_part)

    def _props(self, props: Props) -> None:
        """Glasses and earrings: plain, shiny."""
        identity = self.identity
        vertices = props.vertices.expand(self.batch, -1, -1)
        points_px, z = self._project(vertices)
        f = rasterize(points_px, z, props.triangles, self.side, self.side)
        fixed = torch.cat([props.vertices, props.normals, props.colors, props.shine[:, None]], 1)
        a = f.interpolate(fixed, props.triangles[f.triangle])
        offset = self.eye[f.image] - a[:, :3]
        distance = offset.norm(dim=1)
        seen = (distance < self.depth_cm[f.pixel]).nonzero()[:, 0]
        a, view, image = a[seen], offset[seen] / distance[seen, None], f.image[seen]
        normal = F.normalize(a[:, 3:6], dim=1)
        normal = torch.where((normal * view).sum(1, keepdim=True) < 0, -normal, normal)
        light = quadratic_irradiance(normal, irradiance_matrix(self.harmonics), image).clamp(min=0.05)
        shine = highlights(normal, view, self.light_directions, identity.lights.colors, image, (60.0,), 0.06)[0]
        color = a[:, 6:9] * light * 0.8 + shine * a[:, 9:]
        self._over(f.pixel[seen], color, torch.ones_like(distance[seen]), distance[seen], identity.prop_part)

    def _hair(self, index: int) -> None:
        identity, patch = self.identity, self.identity.hair[index]
        outer = patch.outer.expand(self.batch, -1, -1)
        if patch.sway and not self.static:
            outer = torso_lag(outer, smoothstep(-4.5, -16.0, patch.outer[:, 1]), self.head_rotation)
        points_px, z = self._project(outer)
        attributes = light_hair(
            patch,
            outer,
            identity.hair_transfer[index],
            self.harmonics.expand(self.batch, -1, -1),
            self.light_directions.expand(self.batch, -1, -1),
            identity.lights.colors,
            self.eye,
        )
        color = outer.new_tensor(identity.traits.hair_color)
        one_sided = torch.ones(len(patch.triangles), dtype=torch.bool, device=outer.device)
        if patch.sway:
            inside = patch.triangles.flip(1)
            f = rasterize(points_px, z, inside, self.side, self.side, one_sided)
            a = f.interpolate(attributes, f.corners(inside, outer.shape[1]))
            seen = (a[:, 14] < self.depth_cm[f.pixel] + 0.02).nonzero()[:, 0]
            shade, opacity = shade_hair_inside(patch, a[seen], color)
            self._over(f.pixel[seen], shade, opacity, a[seen, 14], identity.hair_part)
        f = rasterize(points_px, z, patch.triangles, self.side, self.side, one_sided)
        a = f.interpolate(attributes, f.corners(patch.triangles, outer.shape[1]))
        room = self.depth_cm[f.pixel] - a[:, 14]
        seen = (room > -0.02).nonzero()[:, 0]
        a, room, pixel = a[seen], room[seen], f.pixel[seen]
        shade, opacity, depth = shade_hair(patch, a, room, color)
        self._over(pixel, shade, opacity, a[:, 14] + depth, identity.hair_part)


def torso_lag(points: Tensor, weight: Tensor, head_rotation: Tensor) -> Tensor:
    """Turn the torso back towards the camera: it follows the head only by `_FOLLOW`.

    Args:
        points: ``(B, P, 3)`` cm, in the head's frame.
        weight: ``(P,)`` share of the torso in each point.
        head_rotation: ``(B, 3, 3)`` of the head in the camera's frame (x right, y up, z towards the camera).

    Returns:
        ``(B, P, 3)`` cm, in the head's frame.
    """
    r = head_rotation
    angle = torch.acos(((r.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
    axis = torch.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], -1)
    axis = axis / (2 * angle.sin()).clamp(min=1e-6)[:, None]
    turn = (-angle * (1 - _FOLLOW))[:, None] * weight  # (B, P)
    pivot = points.new_tensor(_PIVOT_CM)
    q = points - pivot
    first = torch.linalg.cross(axis[:, None].expand_as(q), q)
    second = torch.linalg.cross(axis[:, None].expand_as(q), first)
    return q + turn.sin()[..., None] * first + (1 - turn.cos())[..., None] * second + pivot


def neck_weight(height: Tensor) -> Tensor:
    """Share of the torso's lag in skin at these heights (cm) of the resting head: 0 above the chin, 1 below the neck."""
    return smoothstep(-8.5, -14.0, height)


def _neck_weight(identity: Identity) -> Tensor:
    """``(V + C,)`` share of the torso's lag: 0 above the chin, 1 for the garment."""
    head = identity.head
    skin = head.vertices_of("face", "head_neck")
    weight = neck_weight(identity.rest[:, 1]) * skin
    return torch.cat([weight, weight.new_ones(len(identity.clothes.vertices))])
