"""One synthetic person: shape (Eq. 11), look, hair, clothes, light and background, prepared once and rendered often."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.checks import check_shape
from export3d.heads.appearance import (
    AppearanceOptions,
    Traits,
    draw_alpha,
    draw_resting,
    draw_traits,
)
from export3d.heads.appearance_atlas import ALBEDO, canvas, paint
from export3d.heads.appearance_beard import Beard, build_beard
from export3d.heads.appearance_fields import csr_matrix, face_gather, shared_noise, smoothstep, vertex_normals
from export3d.heads.appearance_props import Props, build_props
from export3d.heads.appearance_scene import Clothes, build_background, build_clothes, cloth_triangles
from export3d.heads.hair import STYLES, HairPatch, build_hair, hairline, parting, parting_side, recession_of, spherical
from export3d.heads.light import COSINE_LOBE, Lights, draw_lights, harmonics9, shadow_transfer
from export3d.heads.parametric import WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead

RESTING_SQUINT = 0.15
"""Weight of eyeSquint in every resting face; without it and a little eyeBlink people stare (design/heads.md)."""

EYE_EXTENT_RAD = 1.3
_EXPOSURE = 0.40
_IRIS_RAD, _PUPIL_RAD = 0.46, 0.185
_INNER_PARTS = ("teeth", "gums_tongue", "mouth_socket")
_SKIN_PARTS = ("face", "head_neck")


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity:
    """Everything about a person that does not change from frame to frame. Made by :meth:`create`.

    Attributes:
        head: The parametric head.
        seed: What it was drawn from.
        traits: Its look in plain numbers.
        alpha: ``(80,)`` identity coefficients of Eq. 11.
        residual: ``(11,)`` coefficients of identity modes 81-91.
        resting_weights: ``(53,)`` resting expression; motion adds it, the weights given to the renderer are totals.
        rest: ``(V, 3)`` cm, the head at zero weights, resting lids included.
        blink_scale: ``(2,)`` factor on eyeBlink_L and _R with which weight 1 just closes the lids of `rest`.
        eye_centers: ``(2, 3)`` cm, left first.
        atlas: ``(size, 2 size, 10)`` skin atlas.
        eye_texture: ``(n, n, 3)`` linear albedo of an eyeball around its axis, +-1.3 rad.
        eye_uv: ``(V, 2)`` place of each eyeball vertex in `eye_texture`.
        hair: Patches of hair.
        beard: Shells of a full beard.
        props: Glasses, earrings.
        clothes: The garment.
        lights: In the frame of the room.
        transfer: ``(V + C, 3, 9)`` light transfer of head and garment, one set for each colour (light scatters in skin).
        hair_transfer: ``(G, 9)`` for each patch.
        background_linear: ``(3, n, n)`` linear colour.
        triangles: ``(F, 3)`` into [head | garment] vertices: all that is drawn opaque.
        triangle_part: ``(F,)`` part id; the garment has id `len(head.part_names)`, hair one more.
        triangle_uv: ``(F, 3)`` into `uv`.
        uv: ``(M + C, 2)`` texture positions of the head, then of the garment.
        culled: ``(F,)`` bool, drawn only from outside.
    """

    head: ParametricHead
    seed: int
    options: AppearanceOptions
    traits: Traits
    alpha: Tensor
    residual: Tensor
    resting_weights: Tensor
    rest: Tensor
    blink_scale: Tensor
    eye_centers: Tensor
    atlas: Tensor
    eye_texture: Tensor
    eye_uv: Tensor
    hair: tuple[HairPatch, ...]
    beard: Beard | None
    props: Props | None
    clothes: Clothes
    lights: Lights
    transfer: Tensor
    hair_transfer: tuple[Tensor, ...]
    background_linear: Tensor
    triangles: Tensor
    triangle_part: Tensor
    triangle_uv: Tensor
    uv: Tensor
    culled: Tensor

    @staticmethod
    def create(
        head: ParametricHead,
        seed: int,
        options: AppearanceOptions | None = None,
        *,
        alpha: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Identity:
        """Draw and prepare a person.

        Args:
            head: Any parametric head; its device is used for everything.
            seed: The same seed gives the same person, byte for byte.
            options: How to draw; see :class:`AppearanceOptions`.
            alpha: ``(80,)`` coefficients to use instead of the drawn ones.
            residual: ``(11,)`` coefficients to use instead of the drawn ones.
        """
        options = options or AppearanceOptions()
        device = head.vertices.device
        traits = draw_traits(seed, options)
        drawn_alpha, drawn_residual = draw_alpha(head, seed, traits.femininity)
        alpha = (drawn_alpha if alpha is None else alpha).to(device)
        residual = (drawn_residual if residual is None else residual).to(device)
        check_shape("alpha", alpha, drawn_alpha.shape[0])
        check_shape("residual", residual, drawn_residual.shape[0])
        blink = traits.resting_blink if options.resting_lids else 0.0
        squint = RESTING_SQUINT if options.resting_lids else 0.0
        lids = head.weights(eyeBlink=blink, eyeSquint=squint)
        neutral = head.shape(torch.cat([alpha, residual])[None], torch.zeros_like(lids)[None])[0]
        rest = neutral + torch.tensordot(lids, head.expression_basis, 1)
        eyes = [head.vertices_of("sclera_left"), head.vertices_of("sclera_right")]
        shift = torch.stack([(neutral - head.vertices)[eye].mean(0) for eye in eyes])
        eye_centers = head.eye_centers + shift
        hair = build_hair(head, rest, traits, options)
        clothes = build_clothes(head, rest, seed)
        rng = np.random.default_rng([seed, 8])
        lights = draw_lights(rng, _EXPOSURE).to(device)
        transfer, hair_transfer = _light_transfer(head, rest, clothes, hair, options)
        atlas = paint(head, traits, options.atlas_size)
        atlas = _paint_scalp(head, atlas, traits, options)
        triangles, part, triangle_uv, uv, culled = _drawn(head, rest, clothes)
        return Identity(
            head=head,
            seed=seed,
            options=options,
            traits=traits,
            alpha=alpha,
            residual=residual,
            resting_weights=draw_resting(head, seed, options).to(device),
            rest=rest,
            blink_scale=_blink_scale(head, rest) if options.resting_lids else torch.ones(2, device=device),
            eye_centers=eye_centers,
            atlas=atlas,
            eye_texture=_paint_eye(traits, device),
            eye_uv=_eye_uv(head, neutral, eye_centers),
            hair=hair,
            beard=build_beard(head, atlas, traits),
            props=build_props(head, rest, eye_centers, traits),
            clothes=clothes,
            lights=lights,
            transfer=transfer,
            hair_transfer=hair_transfer,
            background_linear=build_background(seed).to(device),
            triangles=triangles,
            triangle_part=part,
            triangle_uv=triangle_uv,
            uv=uv,
            culled=culled,
        )

    @functools.cached_property
    def surface(self) -> tuple[Tensor, Tensor]:
        """All triangles of head and garment, and the operator that gathers them around vertices, for normals."""
        triangles = torch.cat([self.head.triangles, self.clothes.triangles + self.rest.shape[0]])
        return triangles, _face_gather(self.head, len(self.clothes.vertices), len(self.clothes.triangles))

    @functools.cached_property
    def lid_color(self) -> Tensor:
        """``(3,)`` linear albedo of the skin, for what is seen between shut lids."""
        return self.mean_skin()

    @property
    def style(self) -> str:
        """Name of the hair style."""
        return self.traits.style

    @property
    def cloth_part(self) -> int:
        """Part id of the garment in :class:`HeadFrames`."""
        return len(self.head.part_names)

    @property
    def hair_part(self) -> int:
        """Part id of hair in :class:`HeadFrames`."""
        return len(self.head.part_names) + 1

    @property
    def prop_part(self) -> int:
        """Part id of glasses and earrings in :class:`HeadFrames`."""
        return len(self.head.part_names) + 2

    def effective_weights(self, weights: Tensor) -> Tensor:
        """``(T, 53)`` weights with the blink scaled so that resting lids plus a full blink just close."""
        weights = weights.clone()
        for eye, name in enumerate(("eyeBlink_L", "eyeBlink_R")):
            weights[:, self.head.expression_index[name]] *= self.blink_scale[eye]
        return weights

    def vertices(self, weights: Tensor, gaze: Tensor | None = None) -> Tensor:
        """``(T, V, 3)`` cm for ``(T, 53)`` total weights and ``(T, 2)`` gaze (yaw, pitch in radians; + is right, up)."""
        head = self.head
        check_shape("weights", weights, None, len(head.expression_names))
        moved = self.rest + torch.tensordot(self.effective_weights(weights), head.expression_basis, 1)
        if gaze is None:
            return moved
        check_shape("gaze", gaze, weights.shape[0], 2)
        for eye, part in enumerate(("sclera_left", "sclera_right")):
            index = head.vertices_of(part).nonzero()[:, 0]
            toe_in = -0.075 if eye == 0 else 0.075  # the neutral axes of the eyes diverge; people converge
            turn = _gaze_rotation(gaze[:, 0] + toe_in, -gaze[:, 1])
            center = self.eye_centers[eye]
            moved[:, index] = (self.rest[index] - center) @ turn.transpose(1, 2) + center
        return moved

    def landmarks_world(self, weights: Tensor) -> Tensor:
        """``(T, 68, 3)`` landmarks in scene units (the head frame) for ``(T, 53)`` total weights."""
        index = self.head.landmark_vertices
        moved = torch.tensordot(self.effective_weights(weights), self.head.expression_basis[:, index], 1)
        return to_world(self.rest[index] + moved)

    def background(self, size: int, supersample: int = 2) -> Tensor:
        """``(3, size, size)`` sRGB in [0, 1]: exactly what a frame shows where its alpha is 0."""
        full = F.interpolate(self.background_linear[None], size=size * supersample, mode="bilinear")
        return F.avg_pool2d(develop(full, self.lights.exposure), supersample)[0]

    def mean_skin(self) -> Tensor:
        """``(3,)`` mean linear albedo of the cheeks, for reports on the spread of skin tones."""
        c = canvas(self.head, self.options.atlas_size)
        x, y, z = c.position.unbind(1)
        cheeks = (x.abs() > 2.5) & (x.abs() < 5.5) & (y > -0.5) & (y < 2.0) & (z > 5)
        return self.atlas.reshape(-1, self.atlas.shape[2])[c.texel[cheeks], ALBEDO].mean(0)


def to_world(points_cm: Tensor) -> Tensor:
    """Head centimetres -> scene units."""
    return (points_cm - points_cm.new_tensor(WORLD_ORIGIN_CM)) * WORLD_SCALE


def develop(linear: Tensor, exposure: float) -> Tensor:
    """Linear light -> sRGB in [0, 1]: exposure, a filmic curve that keeps fair skin below clipping, the sRGB curve."""
    x = linear * exposure
    x = ((x * (2.51 * x + 0.35)) / (x * (2.43 * x + 0.75) + 0.14)).clamp(0, 1)
    return torch.where(x < 0.0031308, 12.92 * x, 1.055 * x.clamp(min=1e-5) ** (1 / 2.4) - 0.055).clamp(0, 1)


@functools.lru_cache(maxsize=4)
def lash_reach(head: ParametricHead) -> Tensor:
    """``(V,)`` cm from the lashes' vertices to the lids; 0 elsewhere."""
    reach = torch.zeros(head.vertices.shape[0], device=head.vertices.device)
    lashes = head.vertices_of("lashes_left", "lashes_right")
    near = head.vertices_of("face") & (head.vertices[:, 1] > 1.0) & (head.vertices[:, 1] < 6.5)
    if bool(lashes.any()):
        reach[lashes] = torch.cdist(head.vertices[lashes], head.vertices[near]).amin(1)
    return reach


@functools.lru_cache(maxsize=4)
def _smoothing(head: ParametricHead) -> Tensor:
    """Sparse ``(V, V)`` operator: 0.4 of a vertex and 0.6 of the mean of its neighbours."""
    t = head.triangles
    pairs = torch.cat([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1)]), dim=0)
    count = head.vertices.shape[0]
    degree = torch.bincount(pairs[:, 0], minlength=count).clamp(min=1)
    diagonal = torch.arange(count, device=t.device)
    lonely = torch.bincount(pairs[:, 0], minlength=count) == 0
    value = torch.cat([0.6 / degree[pairs[:, 0]].float(), torch.where(lonely, 1.0, 0.4)])
    row, column = torch.cat([pairs[:, 0], diagonal]), torch.cat([pairs[:, 1], diagonal])
    order = row.argsort(stable=True)
    starts = F.pad(torch.bincount(row, minlength=count).cumsum(0), (1, 0))
    return csr_matrix(starts, column[order], value[order], (count, count))


@functools.lru_cache(maxsize=4)
def _face_gather(head: ParametricHead, num_cloth_vertices: int, num_cloth_triangles: int) -> Tensor:
    """The normals' operator for head and garment; every garment has the same grid, so one per head is enough."""
    start = head.vertices.shape[0]
    cloth = cloth_triangles(head.vertices.device)
    assert len(cloth) == num_cloth_triangles
    return face_gather(torch.cat([head.triangles, cloth + start]), start + num_cloth_vertices)


def _light_transfer(
    head: ParametricHead, rest: Tensor, clothes: Clothes, hair: tuple[HairPatch, ...], options: AppearanceOptions
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Soft-shadowed transfer of head, garment and hair, scattered under the skin (more for red than for green)."""
    num_head = rest.shape[0]
    head_normals = vertex_normals(rest[None], head.triangles)[0]
    cloth_normals = vertex_normals(clothes.vertices[None], clothes.triangles)[0]
    casters = [rest, clothes.vertices]
    skin = head.triangles_of(*_SKIN_PARTS)
    caster_triangles = [head.triangles[skin], clothes.triangles + num_head]
    receivers, normals = [rest, clothes.vertices], [head_normals, cloth_normals]
    start = num_head + len(clothes.vertices)
    for patch in hair:
        layer = patch.outer - 0.33 * patch.thickness[:, None] * patch.normal
        casters.append(layer)
        border = _texture_at(patch.texture, patch.uv)[:, 3]
        caster_triangles.append(patch.triangles[(border[patch.triangles] > 0.05).all(1)] + start)
        start += len(layer)
        receivers.append(patch.outer)
        normals.append(patch.normal)
    total = shadow_transfer(
        torch.cat(receivers),
        torch.cat(normals),
        torch.cat(casters),
        torch.cat(caster_triangles),
        options.shadow_directions,
        options.shadow_map_size,
    )
    blur = _smoothing(head)
    sharp = blur @ total[:num_head]
    lobe = sharp.new_tensor(COSINE_LOBE)
    inner = head.vertices_of(*_INNER_PARTS)
    sharp = torch.where(inner[:, None], harmonics9(head_normals) * lobe * 0.75, sharp)
    steps = [sharp]
    for _ in range(10):
        steps.append(blur @ steps[-1])
    eyes = head.vertices_of("sclera_left", "sclera_right")
    sharp = torch.where(eyes[:, None], steps[8], sharp)
    scattered = torch.stack([0.75 * steps[10] + 0.25 * sharp, 0.8 * steps[3] + 0.2 * sharp, sharp], 1)
    plain = (inner | eyes)[:, None, None]
    scattered = torch.where(plain, sharp[:, None].expand(-1, 3, -1), scattered)
    garment = total[num_head : num_head + len(clothes.vertices), None].expand(-1, 3, -1)
    rest_of = total[num_head + len(clothes.vertices) :]
    return torch.cat([scattered, garment]), rest_of.split([len(patch.outer) for patch in hair])


def _texture_at(texture: Tensor, uv: Tensor) -> Tensor:
    """Nearest texels of a ``(rows, columns, C)`` texture."""
    row = (uv[:, 1] * (texture.shape[0] - 1)).round().long()
    column = (uv[:, 0] * (texture.shape[1] - 1)).round().long()
    return texture[row, column]


def _paint_scalp(head: ParametricHead, atlas: Tensor, traits: Traits, options: AppearanceOptions) -> Tensor:
    """Darken the scalp under the hair, fading out over the hairline."""
    style = STYLES[traits.style]
    if style is None:
        return atlas
    c = canvas(head, options.atlas_size)
    x, y, _ = c.position.unbind(1)
    azimuth, polar = spherical(c.position)
    recession = 0.0 if style.curtain is not None or style.fringe > 0.2 else recession_of(traits)
    line = hairline(azimuth, traits.femininity, recession) + 0.5 * style.shift
    line = line + parting(azimuth, style, parting_side(traits.seed))
    cropped = traits.style == "buzz"
    amount = smoothstep(0.10, -0.10, polar - line + 0.06 * c.middle[:, 0] + 0.04 * c.strands[:, 1])
    ear = (x.abs() > 7.4) & (y < 6.5) & (y > -3)
    amount = amount * (0.72 if cropped else 0.9) * (~ear) * (0.85 + 0.15 * c.fine[:, 0].clamp(-1, 1))
    flat = atlas.reshape(-1, atlas.shape[2]).clone()
    under = flat[c.texel]
    k = amount.clamp(0, 0.95)[:, None]
    under[:, ALBEDO] = under[:, ALBEDO] * (1 - k) + k * (under.new_tensor(traits.hair_color) * 0.8 + 0.008)
    under[:, 3] = under[:, 3] * (1 - k[:, 0])
    flat[c.texel] = under
    flat[c.fill_to] = under[c.fill_from]
    return flat.reshape(atlas.shape)


def _paint_eye(traits: Traits, device: torch.device, size: int = 128) -> Tensor:
    """``(size, size, 3)`` eyeball around its axis: pupil, iris with fibres and rim, sclera with veins."""
    line = torch.linspace(-EYE_EXTENT_RAD, EYE_EXTENT_RAD, size, device=device)
    yy, xx = torch.meshgrid(line, line, indexing="ij")
    angle, turn = torch.hypot(xx, yy).reshape(-1), torch.atan2(yy, xx).reshape(-1)
    noise = shared_noise(51)
    salt = float(traits.seed % 97)

    def fibres(frequency: float, run: float) -> Tensor:
        ring = torch.stack([turn.cos() * frequency, turn.sin() * frequency, angle * run + salt], 1)
        return noise(ring)[:, 0] * 0.5 + 0.5

    color = torch.tensor(traits.iris, device=device)
    iris = (
        color * (0.55 + 0.54 * fibres(7, 4) + 0.3 * fibres(16, 9))[:, None] * (1.25 - 0.5 * angle / _IRIS_RAD)[:, None]
    )
    ring = smoothstep(0.14, 0.0, (angle - _PUPIL_RAD - 0.05).abs())[:, None]
    iris = iris * (1 + 0.5 * ring * torch.tensor([1.0, 0.8, 0.5], device=device))
    iris = iris * (1 - 0.7 * smoothstep(_IRIS_RAD - 0.10, _IRIS_RAD - 0.005, angle))[:, None]
    iris = iris * smoothstep(_PUPIL_RAD - 0.015, _PUPIL_RAD + 0.02, angle)[:, None] + 0.004
    place = torch.stack([xx.reshape(-1), yy.reshape(-1), torch.zeros_like(angle)], 1) * 3.3
    veins = noise.octaves(place + salt, 3)
    sclera = torch.tensor([0.72, 0.68, 0.66], device=device) * (1 - 0.06 * veins)
    sclera = sclera * (1 - smoothstep(0.5, 1.15, angle)[:, None] * torch.tensor([0.05, 0.30, 0.30], device=device))
    mask = smoothstep(_IRIS_RAD + 0.03, _IRIS_RAD - 0.02, angle)[:, None]
    return (sclera * (1 - mask) + iris * mask).reshape(size, size, 3)


def _eye_uv(head: ParametricHead, neutral: Tensor, centers: Tensor) -> Tensor:
    """Place of the eyeballs' vertices in the eye texture."""
    uv = torch.zeros(neutral.shape[0], 2, device=neutral.device)
    for eye, part in enumerate(("sclera_left", "sclera_right")):
        index = head.vertices_of(part).nonzero()[:, 0]
        axis = F.normalize(head.eye_axes[eye], dim=0)
        right = F.normalize(torch.linalg.cross(axis.new_tensor([0.0, 1.0, 0.0]), axis), dim=0)
        up = torch.linalg.cross(axis, right)
        direction = F.normalize(neutral[index] - centers[eye], dim=1)
        angle = torch.acos((direction @ axis).clamp(-1, 1))
        flat = F.normalize(torch.stack([direction @ right, direction @ up], 1), dim=1)
        uv[index] = (flat * angle[:, None] / EYE_EXTENT_RAD).clamp(-1, 1) * 0.5 + 0.5
    return uv


def _drawn(head: ParametricHead, rest: Tensor, clothes: Clothes) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The opaque triangles of head and garment, their parts, texture indices, and which are one-sided."""
    corner = rest[head.triangles]
    skin = head.triangles_of(*_SKIN_PARTS)
    highest = corner[..., 1].amax(1)
    hidden = skin & (highest < clothes.collar_y - 3.0)
    hidden |= skin & (corner[..., 0].abs().amax(1) > clothes.collar_x) & (highest < -9.0)
    keep = ~hidden & ~head.triangles_of("lashes_left", "lashes_right")
    num_cloth = clothes.triangles.shape[0]
    triangles = torch.cat([head.triangles[keep], clothes.triangles + rest.shape[0]])
    cloth_part = head.triangle_part.new_full((num_cloth,), len(head.part_names))
    part = torch.cat([head.triangle_part[keep], cloth_part])
    triangle_uv = torch.cat([head.triangle_uv[keep], clothes.triangles + head.uv.shape[0]])
    one_sided = head.triangles_of(*_SKIN_PARTS, "teeth", "sclera_left", "sclera_right")[keep]
    culled = torch.cat([one_sided, one_sided.new_zeros(num_cloth)])
    return triangles, part, triangle_uv, torch.cat([head.uv, clothes.uv]), culled


def _blink_scale(head: ParametricHead, rest: Tensor) -> Tensor:
    """``(2,)`` how much of eyeBlink closes each eye of the resting head: lid gap / gap closed by weight 1."""
    scales = []
    for name, upper, lower in (("eyeBlink_L", (43, 44), (47, 46)), ("eyeBlink_R", (37, 38), (41, 40))):
        mode = head.expression_basis[head.expression_index[name], :, 1]
        up, low = head.landmark_vertices[list(upper)], head.landmark_vertices[list(lower)]
        gap = (rest[up, 1] - rest[low, 1]).mean()
        closing = (mode[low] - mode[up]).mean().clamp(min=1e-3)
        scales.append((gap / closing).clamp(0.5, 1.15))
    return torch.stack(scales)


def _gaze_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """``(T, 3, 3)`` Ry(yaw) Rx(pitch)."""
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(yaw)
    rows = [cy, sy * sp, sy * cp, zero, cp, -sp, -sy, cy * sp, cy * cp]
    return torch.stack(rows, -1).reshape(-1, 3, 3)
