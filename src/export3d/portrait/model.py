"""The model that ships, top to bottom: read the portrait, drive it, render it, put it before its own background.

The paper's network with four things that the paper does not have, all always there: a source lookup (detail comes from the
portrait itself), a source depth, a neck, and a background of its own; and more cues of the face than beta'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.expression.lebs import LeBS, build_expression
from export3d.face_state import FaceState
from export3d.model.decoder import RadianceDecoder
from export3d.model.result import Render, as_images
from export3d.model.triplane import RunningMeanPlanes
from export3d.portrait.background import SourceMatte, background_window
from export3d.portrait.compose import Pass, compose_photo, compose_small, head_at
from export3d.portrait.config import PortraitConfig
from export3d.portrait.cues import ExpressionCues
from export3d.portrait.depth import SourceDepth
from export3d.portrait.field import FieldParts, PortraitField
from export3d.portrait.generator import PortraitGenerator
from export3d.portrait.layers import LayeredSuperResolution
from export3d.portrait.lookup import GUIDE_CHANNELS, SourceLookup
from export3d.portrait.march import march_portrait, paint_portrait, read_portrait, reads_fused
from export3d.portrait.neck import Neck
from export3d.portrait.reader import PortraitReader
from export3d.portrait.state import DrivenPlanes, PhotoMaps, PortraitCode
from export3d.rendering.fast import FastConfig
from export3d.rendering.rays import Window, cast_rays, met_at
from export3d.rendering.renderer import activate_density, render_rays


class PortraitModel(nn.Module):
    """A portrait, the state of a driver's face and a camera -> the driven portrait."""

    def __init__(self, config: PortraitConfig) -> None:
        super().__init__()
        self.config = config
        channels, dim, hidden = config.triplane.channels, config.expression.dim, config.decoder.hidden
        self.expression = build_expression(config.expression)  # f_e, Sec. 3.1
        self.cues = ExpressionCues(dim)  # not in the paper
        self.generator = PortraitGenerator(config.generator, channels, dim)  # G, Sec. 3.2
        self.mean_planes = RunningMeanPlanes(config.triplane)  # Eq. 12
        self.decoder = RadianceDecoder(config.decoder, channels)  # Eq. 8
        self.lookup = SourceLookup(config.source_lookup, hidden)  # not in the paper
        self.reader = PortraitReader(SourceMatte(config.background), SourceDepth(config.source_depth, hidden))
        self.neck = Neck(config.neck)
        seen = config.decoder.colour_channels + config.source_lookup.channels
        self.superres = LayeredSuperResolution(config.superres, seen, layers=2, clues=4)  # Sec. 3.3
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, source: Tensor, source_camera: Camera, source_state: FaceState, driving: FaceState, camera: Camera
    ) -> Render:
        """``source`` (B, 3, H, W) in [-1, 1], its camera and face; B driving faces and cameras -> Render. No side effects."""
        code = self.encode(source, source_camera, source_state)
        return self.render(self.drive(code, driving), camera)

    def encode(
        self,
        source: Tensor,
        camera: Camera,
        state: FaceState,
        true_mask: Tensor | None = None,
        *,
        photo: Tensor | None = None,
    ) -> PortraitCode:
        """Once per portrait (Sec. 3.2).

        Args:
            source: ``(B, 3, H, W)`` in [-1, 1].
            camera: B cameras of the portrait.
            state: the portrait's own faces.
            true_mask: ``(B, 1, H, W)`` foreground in [0, 1]; in training it replaces the model's matte.
            photo: ``(B, 3, S, S)`` in [-1, 1], the same crop at its own size (even): `render` then makes pictures of that
                size, with the photograph's own detail.
        """
        if photo is not None:
            check_shape("photo", photo, len(source), 3, photo.shape[-1], photo.shape[-1])
            if photo.shape[-1] % 2:
                raise ValueError(f"photo: expected an even side; got {photo.shape[-1]}")
        return PortraitCode(
            tokens=self.generator.encode(source),
            detail=self.generator.detail(source),
            maps=self.reader(source, self.lookup, true_mask, photo),
            camera=camera,
            state=state,
        )

    def drive(self, code: PortraitCode, driving: FaceState, coefficients: Tensor | None = None) -> DrivenPlanes:
        """Once per expression (Eqs. 3, 5, 6); `coefficients` (B, n) stand in for lambda of `driving` (Figs. 9, 13)."""
        check_shape("beta", driving.beta, code.tokens.shape[0], None)
        own = self.expression(code.state.beta)
        if coefficients is None:
            beta_prime = self.expression(driving.beta)
        else:
            assert isinstance(self.expression, LeBS)  # nobody else has coefficients
            beta_prime = self.expression.combine(coefficients)
        condition = self.cues(beta_prime, own, driving, code.state)
        planes = self.generator.drive(code.tokens, code.detail, condition)
        return DrivenPlanes(planes=planes, turn=driving.turn, code=code)

    def drive_several(self, code: PortraitCode, states: Sequence[FaceState]) -> list[DrivenPlanes]:
        """`drive` of one portrait (B = 1) in each state (B = 1), in one pass where all know the same of a face."""
        if len({(s.weights is None, s.gaze is None, s.turn is None) for s in states}) > 1:
            return [self.drive(code, state) for state in states]
        count = len(states)
        tokens, detail = (x.expand(count, *x.shape[1:]) for x in (code.tokens, code.detail))
        several = replace(code, tokens=tokens, detail=detail, state=FaceState.cat([code.state] * count))
        driven = self.drive(several, FaceState.cat(states))
        turns = [None] * count if driven.turn is None else driven.turn.split(1)
        return [DrivenPlanes(planes=x, turn=y, code=code) for x, y in zip(driven.planes.split(1), turns, strict=True)]

    def render(
        self,
        driven: DrivenPlanes,
        camera: Camera,
        *,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        raw_size: int | None = None,
        fast: FastConfig | None = None,
        size: int | None = None,
    ) -> Render:
        """Once per camera (Eqs. 7-10, 12, Sec. 3.3).

        Args:
            driven: what `drive` returned.
            camera: B driving cameras.
            window: render only a square of the image: (top (B,), left (B,), side) in rays.
            jitter: random depths, for training; None is deterministic.
            raw_size: another number of rays along each side; then only the raw image is made (`image` is None).
            fast: leave out what does not show; for one whole picture without jitter and without gradients. None is exact.
            size: side of the whole final image, even; None is the photograph's own where `encode` was given one, else the
                model's. Another than the model's needs a photograph.

        Raises:
            ValueError: `fast` together with something it cannot do; `size` without a photograph, or odd; a window that is no
                whole number of pixels at that size.
        """
        if fast is not None and (window is not None or jitter is not None or torch.is_grad_enabled()):
            raise ValueError(
                "render: `fast` is for whole pictures without jitter and without gradients (inference_mode)"
            )
        rays = raw_size or self.config.renderer.raw_size
        met, guide = self.march(driven, camera, window=window, jitter=jitter, rays=rays, fast=fast)
        features, depth, opacity = met
        behind = background_window(driven.code.maps.background, rays, window)
        raw = features[:, :3] + (1.0 - opacity) * (1.0 + behind)
        if raw_size is not None:
            return Render(None, raw, depth, opacity, driven.planes)
        share = 1.0 if window is None else window[2] / rays
        left = self.look(features, guide, opacity, driven, share=share, fast=fast)
        image, image_opacity = self.compose(left, driven.code, size=size, window=window, fast=fast)
        return Render(image, raw, depth, opacity, driven.planes, image_opacity, guide)

    @torch.no_grad()
    def trace(self, driven: DrivenPlanes, camera: Camera, fast: FastConfig | None = None) -> Pass:
        """What `render` has of the whole picture before it is composed."""
        met, guide = self.march(driven, camera, fast=fast)
        return self.look(met[0], guide, met[2], driven, fast=fast).trusting()

    def compose(
        self,
        left: Pass,
        code: PortraitCode,
        *,
        size: int | None = None,
        window: Window | None = None,
        fast: FastConfig | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The final image ``(B, 3, s, s)`` and the head's opacity in it ``(B, 1, s, s)`` (`compose.py`); `size`, `window` and
        `fast` as of `render`."""
        photo, rays = code.maps.photo, self.config.renderer.raw_size
        if photo is not None:
            left = left.trusting()
            read = partial(self.head_at, photo=photo, camera=code.camera, turn=code.state.turn)
            paint = partial(paint_portrait, code=code, neck=self.neck.config)
            paint = paint if reads_fused(fast, left.opacity) else None
            return compose_photo(left, photo, read, rays=rays, size=size, window=window, paint=paint)
        if size not in (None, self.config.image_size):
            raise ValueError(f"render: size {size} needs a photograph; give encode(photo=...), or leave size out")
        return compose_small(left, code.maps, rays, window)

    def head_at(
        self, left: Pass, size: tuple[int, int], *, photo: PhotoMaps, camera: Camera, turn: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `compose.head_at`; `camera` and `turn` (B, 3) are the portrait's."""
        pose = self.neck.posed(turn)
        return head_at(left, size, photo=photo, camera=camera, pose=pose, lookup=self.lookup)

    def march(
        self,
        driven: DrivenPlanes,
        camera: Camera,
        *,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        rays: int | None = None,
        fast: FastConfig | None = None,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Features in [-1, 1], depth and opacity of the rays, and the guide, each ``(B, .., r, r)``."""
        rays = rays or self.config.renderer.raw_size
        origins, directions = cast_rays(camera, rays, window)
        with torch.autocast(
            driven.planes.device.type, enabled=False
        ):  # rays stay float32: rounded, they miss by a pixel
            if fast is None:
                met = render_rays(self.field(driven), origins, directions, self.config.renderer, jitter)
            else:
                met = march_portrait(self.parts, driven, (origins, directions), self.config.renderer, fast)
        features, depth, opacity = as_images(met, rays if window is None else window[2])
        features, guide = features.tensor_split([-GUIDE_CHANNELS], dim=1)
        if driven.bend is not None:
            guide = driven.bend(guide, opacity, met_at((origins, directions), depth))
        return (features * 2.0 - 1.0, depth, opacity), guide  # an empty ray is black (EG3D)

    def look(
        self,
        features: Tensor,
        guide: Tensor,
        opacity: Tensor,
        driven: DrivenPlanes,
        *,
        share: float = 1.0,
        fast: FastConfig | None = None,
    ) -> Pass:
        """The portrait looked up at the model's size, and how it is to be mixed there."""
        code, side = driven.code, opacity.shape[-1] * self.config.image_size // self.config.renderer.raw_size
        pose = self.neck.posed(code.state.turn)
        found = self.lookup.features(guide, opacity, code.maps, code.camera, pose)
        if reads_fused(fast, opacity):
            layers = read_portrait(guide, opacity, side, code=code, neck=self.neck.config)
        else:
            size = {"size": (side, side), "camera": code.camera, "pose": pose}
            layers = self.lookup.layers(guide, opacity, code.maps.picture, **size)
        features = torch.cat([features, found], dim=1).contiguous(memory_format=torch.channels_last)
        # Colours are mixed as the surface has them; what the head does not cover is put behind afterwards.
        rgb = ((features[:, :3] + 1.0) / opacity.clamp_min(0.05) - 1.0).clamp(-1.0, 1.0)
        return Pass(guide, opacity, self.superres.choose(features, rgb, layers, share), layers)

    def field(self, driven: DrivenPlanes) -> PortraitField:
        """The radiance field of a driven portrait."""
        return PortraitField(self.parts, driven)

    @property
    def parts(self) -> FieldParts:
        """What a point in space meets."""
        return FieldParts(
            triplane=self.config.triplane,
            mean_planes=self.mean_planes,
            decoder=self.decoder,
            lookup=self.lookup,
            depth=self.reader.depth,
            neck=self.neck,
        )

    def guide(self, driven: DrivenPlanes, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points ``(B, P, 3)`` of the driven head lay in the portrait (for the training of the source lookup): places
        ``(B, P, 3)`` and gate logits ``(B, P, 2)``, see `SourceLookup.guide_of`."""
        field = self.field(driven)
        state, moved = field.density(points)[1].tensor_split([-3], dim=-1)
        places, logits = self.lookup.guide_of(state, moved)
        return field.pose(places), logits

    def sigma(self, driven: DrivenPlanes, points: Tensor) -> Tensor:
        """Density >= 0 (1 / scene unit) of world points ``(B, P, 3)`` -> (B, P)."""
        return activate_density(self.field(driven).density(points)[0], self.config.renderer)
