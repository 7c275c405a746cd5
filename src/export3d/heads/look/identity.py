"""One synthetic person: shape (Eq. 11), look, hair, clothes, light and background, prepared once and rendered often."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.checks import check_shape
from export3d.heads.hair.volume import HairPatch, build_hair
from export3d.heads.look.appearance import AppearanceOptions, Traits, draw_alpha, draw_resting, draw_traits
from export3d.heads.look.atlas import ALBEDO, canvas
from export3d.heads.look.beard import Beard, build_beard
from export3d.heads.look.eyes import blink_scale, eye_uv, gaze_rotation, paint_eye
from export3d.heads.look.props import Props, build_props
from export3d.heads.look.scene import Clothes, build_background, build_clothes, cloth_triangles
from export3d.heads.look.skin import paint, paint_scalp
from export3d.heads.look.transfer import light_transfer
from export3d.heads.raster.fields import face_gather
from export3d.heads.raster.light import Lights, draw_lights
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead

RESTING_SQUINT = 0.15
"""Weight of eyeSquint in every resting face; without it and a little eyeBlink people stare (design/heads.md)."""

_EXPOSURE = 0.40
_SKIN_PARTS, _EYES = ("face", "head_neck"), ("sclera_left", "sclera_right")


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity:
    """Everything about a person that does not change from frame to frame. Made by :meth:`create`.

    Attributes:
        alpha: ``(80,)`` identity coefficients of Eq. 11.
        residual: ``(11,)`` coefficients of identity modes 81-91.
        resting_weights: ``(53,)`` resting expression; motion adds it, the weights given to the renderer are totals.
        rest: ``(V, 3)`` cm, the head at zero weights, resting lids included.
        blink_scale: ``(2,)`` factor on eyeBlink_L and _R with which weight 1 just closes the lids of `rest`.
        eye_centers: ``(2, 3)`` cm, left first.
        atlas: ``(size, 2 size, 10)`` skin atlas.
        eye_texture: ``(n, n, 3)`` linear albedo of an eyeball around its axis, +-1.3 rad.
        eye_uv: ``(V, 2)`` place of each eyeball vertex in `eye_texture`.
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
        blink, squint = (traits.resting_blink, RESTING_SQUINT) if options.resting_lids else (0.0, 0.0)
        lids = head.weights(eyeBlink=blink, eyeSquint=squint)
        neutral = head.shape(torch.cat([alpha, residual])[None], torch.zeros_like(lids)[None])[0]
        rest = neutral + torch.tensordot(lids, head.expression_basis, 1)
        moved = neutral - head.vertices
        eye_centers = head.eye_centers + torch.stack([moved[head.vertices_of(eye)].mean(0) for eye in _EYES])
        hair = build_hair(head, rest, traits, options)
        clothes = build_clothes(head, rest, seed)
        transfer, hair_transfer = light_transfer(head, rest, clothes, hair, options)
        atlas = paint_scalp(head, paint(head, traits, options.atlas_size), traits)
        return Identity(
            head=head,
            seed=seed,
            options=options,
            traits=traits,
            alpha=alpha,
            residual=residual,
            resting_weights=draw_resting(head, seed, options).to(device),
            rest=rest,
            blink_scale=blink_scale(head, rest) if options.resting_lids else torch.ones(2, device=device),
            eye_centers=eye_centers,
            atlas=atlas,
            eye_texture=paint_eye(traits, device),
            eye_uv=eye_uv(head, neutral, eye_centers),
            hair=hair,
            beard=build_beard(head, atlas, traits),
            props=build_props(head, rest, eye_centers, traits),
            clothes=clothes,
            lights=draw_lights(np.random.default_rng([seed, 8]), _EXPOSURE).to(device),
            transfer=transfer,
            hair_transfer=hair_transfer,
            background_linear=build_background(seed).to(device),
            **_drawn(head, rest, clothes),
        )

    @functools.cached_property
    def surface(self) -> tuple[Tensor, Tensor]:
        """All triangles of head and garment, and the operator that gathers them around vertices, for normals."""
        triangles = torch.cat([self.head.triangles, self.clothes.triangles + self.rest.shape[0]])
        return triangles, _face_gather(self.head, len(self.clothes.vertices))

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
        for eye, part in enumerate(_EYES):
            index = head.vertices_of(part).nonzero()[:, 0]
            toe_in = -0.075 if eye == 0 else 0.075  # the neutral axes of the eyes diverge; people converge
            turn = gaze_rotation(gaze[:, 0] + toe_in, -gaze[:, 1])
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
def _face_gather(head: ParametricHead, num_cloth_vertices: int) -> Tensor:
    """The normals' operator for head and garment; every garment has the same grid, so one per head is enough."""
    start, cloth = head.vertices.shape[0], cloth_triangles(head.vertices.device)
    return face_gather(torch.cat([head.triangles, cloth + start]), start + num_cloth_vertices)


def _drawn(head: ParametricHead, rest: Tensor, clothes: Clothes) -> dict[str, Tensor]:
    """The opaque triangles of head and garment, their parts, texture indices, and which are one-sided."""
    corner = rest[head.triangles]
    skin = head.triangles_of(*_SKIN_PARTS)
    highest = corner[..., 1].amax(1)
    hidden = skin & (highest < clothes.collar_y - 3.0)
    hidden |= skin & (corner[..., 0].abs().amin(1) > clothes.collar_x) & (highest < -9.0)
    keep = ~hidden & ~head.triangles_of("lashes_left", "lashes_right")
    num_cloth = clothes.triangles.shape[0]
    cloth_part = head.triangle_part.new_full((num_cloth,), len(head.part_names))
    one_sided = head.triangles_of(*_SKIN_PARTS, "teeth", *_EYES)[keep]
    return {
        "triangles": torch.cat([head.triangles[keep], clothes.triangles + rest.shape[0]]),
        "triangle_part": torch.cat([head.triangle_part[keep], cloth_part]),
        "triangle_uv": torch.cat([head.triangle_uv[keep], clothes.triangles + head.uv.shape[0]]),
        "uv": torch.cat([head.uv, clothes.uv]),
        "culled": torch.cat([one_sided, one_sided.new_zeros(num_cloth)]),
    }
