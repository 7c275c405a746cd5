"""One forward pass, top to bottom (Fig. 1): source -> encode -> planes(expression) -> render(camera) -> image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.expression.lebs import LeBS, build_expression
from export3d.model.background import SourceMatte, background_window, fill_background
from export3d.model.code import Render, SourceCode
from export3d.model.config import ModelConfig
from export3d.model.decoder import RadianceDecoder
from export3d.model.face_shapes import LOWER_FACE, LOWER_GAIN, UPPER_FACE, UPPER_GAIN, FaceShapes
from export3d.model.fast_field import FoldedField
from export3d.model.field import PortraitField
from export3d.model.generator import TriPlaneGenerator
from export3d.model.neck import Neck
from export3d.model.pixel_aligned import PixelAligned
from export3d.model.source_depth import SourceDepth
from export3d.model.source_lookup import GUIDE_CHANNELS, SourceLookup
from export3d.model.superres import SuperResolution, upsample2
from export3d.model.triplane import RunningMeanPlanes
from export3d.rendering.fast import FastConfig, render_square
from export3d.rendering.rays import Window, cast_rays
from export3d.rendering.renderer import activate_density, render_rays


class Export3D(nn.Module):
    """Source portrait, driving expression and driving camera -> driven portrait."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        plane_channels = config.triplane.channels
        self.expression = build_expression(config.expression)  # f_e, Sec. 3.1
        self.generator = TriPlaneGenerator(config.generator, plane_channels, config.expression.dim)  # G, Sec. 3.2
        self.mean_planes = RunningMeanPlanes(config.triplane)  # T_EMA, Eq. 12
        self.pixel_aligned = (
            PixelAligned(config.pixel_aligned, plane_channels) if config.pixel_aligned.enabled else None
        )
        self.source_lookup = (
            SourceLookup(config.source_lookup, config.decoder.hidden) if config.source_lookup.enabled else None
        )
        self.source_depth = (
            SourceDepth(config.source_depth, config.decoder.hidden) if config.source_depth.enabled else None
        )
        self.matte = SourceMatte(config.background) if config.background.mode == "apart" else None
        self.source_expression = nn.Linear(config.expression.dim, config.expression.dim) if config.source_beta else None
        self.gaze = nn.Linear(5, config.expression.dim) if config.gaze else None
        dim = config.expression.dim
        self.upper_face = FaceShapes(UPPER_FACE, UPPER_GAIN, dim) if config.upper_face else None
        self.lower_face = FaceShapes(LOWER_FACE, LOWER_GAIN, dim) if config.lower_face else None
        self.neck = Neck(config.neck, dim) if config.neck.enabled else None
        extra = self.pixel_aligned.out_channels if self.pixel_aligned is not None else 0
        self.decoder = RadianceDecoder(config.decoder, plane_channels + extra)  # Eq. 8
        looked_up = config.source_lookup.channels if self.source_lookup is not None else 0
        layers, clues = (2, 4) if self.source_lookup is not None else (0, 0)
        self.superres = SuperResolution(
            config.superres, config.decoder.colour_channels + looked_up, layers, clues
        )  # Sec. 3.3
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, source: Tensor, source_camera: Camera, beta: Tensor, camera: Camera, source_beta: Tensor | None = None
    ) -> Render:
        """``source`` (B, 3, H, W) in [-1, 1], ``beta`` (B, 64), driving cameras -> Render. No side effects."""
        code = self.encode(source, source_camera, source_beta=source_beta)
        return self.render(self.planes(code, beta), camera, code)

    def encode(
        self,
        source: Tensor,
        source_camera: Camera,
        source_mask: Tensor | None = None,
        source_beta: Tensor | None = None,
        source_gaze: Tensor | None = None,
        source_turn: Tensor | None = None,
    ) -> SourceCode:
        """The portrait's part of the work (Sec. 3.2).

        Args:
            source: ``(B, 3, H, W)`` in [-1, 1].
            source_camera: B cameras of the portrait.
            source_mask: ``(B, 1, H, W)`` true foreground in [0, 1]; given in training, where it replaces the model's own
                matte in filling the background.
            source_beta: ``(B, 64)`` the portrait's own expression; needed by a model with `source_beta`, `upper_face`
                or `lower_face`.
            source_gaze: ``(B, 2)`` the portrait's gaze, yaw and pitch in radians; read by a model with `gaze` only.
            source_turn: ``(B, 3)`` the portrait's turn of the head against torso and room, a rotation vector in radians
                (`Camera.head_turn`, where the torso faces the camera); read by a model with a neck only. None: no turn.

        Raises:
            ValueError: The model needs `source_beta` and got none.
        """
        tokens, highres = self.generator.encode(source)
        pixels = None if self.pixel_aligned is None else self.pixel_aligned.encode(source)
        background = picture = condition = None
        matte_logits, depth = self.read_portrait(source)
        if matte_logits is not None:
            mask = source_mask
            if mask is None:
                mask = upsample2(torch.sigmoid(matte_logits.detach()))
            background = fill_background(source.float(), mask)
        if self.source_lookup is not None:
            pixels = self.source_lookup.encode(source)
            foreground = torch.ones_like(source[:, :1])
            if matte_logits is not None:
                foreground = upsample2(torch.sigmoid(matte_logits.detach()))
            picture = torch.cat([self.source_lookup.sharpened(source.float()), foreground.float()], dim=1)
        shapes = None
        if source_beta is not None:
            if self.source_expression is not None:
                condition = self.source_expression(self._expression_code(source_beta))
            shapes = self.read_shapes(source_beta)
        elif self.source_expression is not None or self.face_shapes:
            raise ValueError("this model needs the portrait's own expression: encode(..., source_beta=...)")
        return SourceCode(
            *(tokens, highres, pixels, source_camera, background, matte_logits, picture, condition, source_gaze),
            *(depth, shapes, source_turn),
        )

    def read_portrait(self, source: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What is read off the portrait (B, 3, H, W) alone: matte logits (B, 1, H/2, W/2) and the maps of
        `SourceDepth.maps`; None for what the model does not have."""
        matte_logits = None if self.matte is None else self.matte(source)
        if self.source_depth is None:
            return matte_logits, None
        head = None if matte_logits is None else torch.sigmoid(matte_logits.detach())
        return matte_logits, self.source_depth.maps(source, head)

    @property
    def can_be_fast(self) -> bool:
        """Whether `render` can take the fast path; not with the pixel-aligned branch, whose lookup does not fold."""
        return self.pixel_aligned is None

    def planes(self, code: SourceCode, beta: Tensor, gaze: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        """The expression's part (Eqs. 3, 5, 6): ``beta`` (B, 64) -> residual planes (B, 3, C, P, P).

        `gaze` (B, 2) in radians is read by a model with `gaze`; None or NaN leaves the eyes as the portrait has them.
        `turn` (B, 3) of the head against torso and room is read by a model with a neck; None leaves it as the portrait
        has it.
        """
        check_shape("beta", beta, code.tokens.shape[0], None)
        return self.planes_from_code(code, self._expression_code(beta), gaze, self.read_shapes(beta), turn)

    @property
    def face_shapes(self) -> list[FaceShapes]:
        """The maps that read expression weights off beta: upper face, lower face, both or none."""
        return [part for part in (self.upper_face, self.lower_face) if part is not None]

    def read_shapes(self, beta: Tensor) -> Tensor | None:
        """beta (B, 64) -> the weights (B, S) that the maps read, side by side; None for a model without any."""
        read = [part.read(beta) for part in self.face_shapes]
        return torch.cat(read, dim=1) if read else None

    def _expression_code(self, beta: Tensor) -> Tensor:
        """beta' (B, d), or for cross-attention the scaled basis (B, n, d)."""
        if self.config.generator.conditioning == "cross_attention":
            assert isinstance(self.expression, LeBS)  # ModelConfig refuses the other combination
            return self.expression.scaled_basis(beta)
        return self.expression(beta)

    def coefficients(self, beta: Tensor) -> Tensor:
        """lambda (Eq. 3): ``beta`` (B, 64) -> (B, n). ValueError for a model without a basis."""
        return self._with_basis().coefficients(beta)

    def code_of_coefficients(self, coefficients: Tensor) -> Tensor:
        """Coefficients (B, n) -> what `planes_from_code` takes: beta' (B, d), or the scaled basis (B, n, d)."""
        basis = self._with_basis().basis
        if self.config.generator.conditioning == "cross_attention":
            return coefficients[:, :, None] * basis.T[None]
        return coefficients @ basis.T

    def shapes_of_coefficients(self, coefficients: Tensor, beta: Tensor) -> Tensor | None:
        """Coefficients (B, n) -> what `planes_from_code` takes as shapes: those of the nearest expression to `beta` (B, 64)
        that has the coefficients; None for a model that reads none. ValueError for a model without a basis."""
        encoder = self._with_basis()
        return self.read_shapes(encoder.nearest_beta(coefficients, beta)) if self.face_shapes else None

    def _with_basis(self) -> LeBS:
        """The expression encoder, of a model that has a basis; ValueError otherwise."""
        if not isinstance(self.expression, LeBS):
            raise ValueError(f"expression.kind must be 'lebs' for coefficients; got '{self.config.expression.kind}'")
        return self.expression

    def planes_from_code(
        self,
        code: SourceCode,
        beta_prime: Tensor,
        gaze: Tensor | None = None,
        shapes: Tensor | None = None,
        turn: Tensor | None = None,
    ) -> Tensor:
        """As `planes`, for a given beta' (B, d): what a sweep along the basis changes (Figs. 9, 13).

        A model with cross-attention takes the scaled basis lambda_i v_i (B, n, d) instead. `shapes` (B, S) is what
        `read_shapes` gave; None leaves them as the portrait has them.
        """
        condition = beta_prime
        if code.condition is not None:
            condition = _joined(condition, code.condition)
        if self.gaze is not None:
            eyes = self.gaze(_gaze_input(gaze, code.gaze, beta_prime.shape[0]).to(beta_prime.device))
            condition = _joined(condition, eyes)
        if self.face_shapes:
            assert code.shapes is not None
            own = code.shapes.expand(beta_prime.shape[0], -1)
            sizes = [len(part.names) for part in self.face_shapes]
            read = own if shapes is None else shapes
            for part, driving, source in zip(self.face_shapes, read.split(sizes, 1), own.split(sizes, 1), strict=True):
                condition = _joined(condition, part(driving, source))
        if self.neck is not None:
            still = beta_prime.new_zeros(beta_prime.shape[0], 3)
            source = still if code.turn is None else code.turn.expand_as(still)
            condition = _joined(condition, self.neck(source if turn is None else turn.to(still), source))
        return self.generator(code.tokens, code.highres, condition)

    def guide(
        self, planes: Tensor, code: SourceCode, points: Tensor, turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Where points of the driven head lay in the portrait (for the training of the source lookup).

        Args:
            planes: what `planes` returned.
            code: what `encode` returned.
            points: ``(B, P, 3)`` world positions.
            turn: ``(B, 3)`` as `planes` was given it.

        Returns:
            places ``(B, P, 3)`` and gate logits ``(B, P, 2)``; see `SourceLookup.guide_of`.
        """
        assert self.source_lookup is not None
        field = self._field(planes, code, turn)
        state = field.density(points)[1]
        places, logits = self.source_lookup.guide_of(state[..., :-3], state[..., -3:])
        return (places if field.pose is None else field.pose(places)), logits

    def sigma(self, planes: Tensor, code: SourceCode, points: Tensor, turn: Tensor | None = None) -> Tensor:
        """Density >= 0 (1 / scene unit) of world points ``(B, P, 3)`` -> (B, P); `turn` as `planes` was given it."""
        return activate_density(self._field(planes, code, turn).density(points)[0], self.config.renderer)

    def _field(self, planes: Tensor, code: SourceCode, turn: Tensor | None) -> PortraitField:
        return PortraitField(
            *(self.mean_planes(planes), self.decoder, self.config.triplane),
            *(self.pixel_aligned, self.source_lookup, self.source_depth, code),
            *(self._pose(code), self._unposed(code, turn)),
        )

    def render(
        self,
        planes: Tensor,
        camera: Camera,
        code: SourceCode,
        *,
        turn: Tensor | None = None,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        raw_size: int | None = None,
        fast: FastConfig | None = None,
    ) -> Render:
        """The camera's part (Eqs. 7-10, 12 and super-resolution).

        Args:
            planes: what `planes` returned.
            camera: B driving cameras.
            code: what `encode` returned (background and pixel-aligned features come from it).
            turn: ``(B, 3)`` as `planes` was given it.
            window: render only a square of the image: (top (B,), left (B,), side) in rays.
            jitter: random depths, for training; None is deterministic.
            raw_size: another number of rays along each side; then only the raw image is made (`image` is None).
            fast: leave out what does not show (for use, see `can_be_fast`); None is exact. For one whole picture without
                jitter and without gradients.

        Raises:
            ValueError: `fast` together with something it cannot do.
        """
        size = raw_size or self.config.renderer.raw_size
        origins, directions = cast_rays(camera, size, window)  # (B, R, 3)
        with torch.autocast(
            planes.device.type, enabled=False
        ):  # the renderer stays float32 (bfloat16 rounds a ray by about a pixel)
            if fast is None:
                result = render_rays(self._field(planes, code, turn), origins, directions, self.config.renderer, jitter)
            else:
                if not self.can_be_fast or window is not None or jitter is not None or torch.is_grad_enabled():
                    raise ValueError(
                        "render: `fast` is for whole pictures without jitter, without gradients (torch.inference_mode) "
                        "and without the pixel-aligned branch"
                    )
                clues = None
                if self.source_depth is not None and code.depth is not None:
                    clues = partial(self.source_depth.clues, code.depth, code.camera, pose=self._pose(code))
                folded = FoldedField(
                    *(self.mean_planes(planes), self.decoder, self.config.triplane),
                    *(self.source_lookup, clues, self._unposed(code, turn)),
                )
                result = render_square(folded, origins, directions, self.config.renderer, fast)
        side = size if window is None else window[2]
        features, depth, opacity = (
            x.transpose(1, 2).reshape(x.shape[0], -1, side, side)
            for x in (result.features, result.depth[..., None], result.opacity[..., None])
        )
        guide = None
        if self.source_lookup is not None:
            features, guide = features.split([features.shape[1] - GUIDE_CHANNELS, GUIDE_CHANNELS], dim=1)
        features = features * 2.0 - 1.0  # an empty ray is black (EG3D)
        raw = features[:, :3]
        if code.background is not None:
            raw = raw + (1.0 - opacity) * (1.0 + background_window(code.background, size, window))
        image = image_opacity = None
        if raw_size is None and guide is not None:
            image, image_opacity = self._look_up(features, guide, opacity, code, size, window)
        elif raw_size is None:
            image = self._enlarge(features, raw, opacity, code, size, window)
        return Render(image, raw, depth, opacity, planes, image_opacity)

    def _pose(self, code: SourceCode) -> Callable[[Tensor], Tensor] | None:
        """From the unturned volume to the portrait's torso; None where it has no turn."""
        return None if self.neck is None or code.turn is None else self.neck.posed(code.turn)

    def _unposed(self, code: SourceCode, turn: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """From a frame's torso to the unturned volume; None where it has no turn, of the frame or else of the portrait."""
        turn = code.turn if turn is None else turn
        return None if self.neck is None or turn is None else self.neck.unposed(turn)

    def _look_up(
        self, features: Tensor, guide: Tensor, opacity: Tensor, code: SourceCode, size: int, window: Window | None
    ) -> tuple[Tensor, Tensor]:
        """The final image with the portrait's own detail, and the head's opacity in it."""
        assert self.source_lookup is not None and code.pixels is not None and code.picture is not None
        scale = self.config.image_size // size
        found, layers = self.source_lookup.look(
            *(guide, opacity, code.pixels, code.picture, code.camera, scale, self._pose(code))
        )
        features = torch.cat([features, found], dim=1).contiguous(memory_format=torch.channels_last)
        # Colours are mixed as the surface has them; what the head does not cover is put behind afterwards.
        rgb = ((features[:, :3] + 1.0) / opacity.clamp_min(0.05) - 1.0).clamp(-1.0, 1.0)
        share = 1.0 if window is None else window[2] / size
        image, opacity = self.superres.choose(features, rgb, layers, share)
        if code.background is None:
            return image, opacity
        full = None if window is None else (window[0] * scale, window[1] * scale, window[2] * scale)
        behind = background_window(code.background, self.config.image_size, full)
        return opacity * image + (1.0 - opacity) * behind, opacity

    def _enlarge(
        self,
        features: Tensor,
        raw: Tensor,
        opacity: Tensor,
        code: SourceCode,
        size: int,
        window: Window | None,
    ) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        share = 1.0 if window is None else window[2] / size
        if code.background is None:
            return self.superres(features, raw, share)
        # The head alone is enlarged; the sharp background is put behind it at full size.
        joined = torch.cat([raw, features[:, 3:]], dim=1)
        image = self.superres(joined, features[:, :3], share)
        scale = self.config.image_size // size
        full = None if window is None else (window[0] * scale, window[1] * scale, window[2] * scale)
        behind = background_window(code.background, self.config.image_size, full)
        opacity = F.interpolate(opacity, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return image + (1.0 - opacity) * (1.0 + behind)


def _joined(condition: Tensor, more: Tensor) -> Tensor:
    """A further condition (B, d) added to one (B, d); to tokens (B, n, d) it is one token more, or several (B, m, d)."""
    if condition.ndim == 2:
        return condition + more
    return torch.cat([condition, more if more.ndim == 3 else more[:, None]], dim=1)


def _gaze_input(driving: Tensor | None, source: Tensor | None, batch: int) -> Tensor:
    """``(B, 5)``: both gazes and 1. An unknown one (a row with a NaN, or None) of the driver is that of the portrait, so that
    the eyes stay as they are; all 0 where the portrait's is unknown."""
    if source is None:
        return torch.zeros(batch, 5)
    source = source.expand(batch, -1)
    driving = source if driving is None else torch.where(driving.isnan().any(dim=1, keepdim=True), source, driving)
    row = torch.cat([driving, source, torch.ones_like(source[:, :1])], dim=1)
    return torch.where(source.isnan().any(dim=1, keepdim=True), torch.zeros_like(row), row)
