"""Export3D as the paper has it (Fig. 1), and nothing else: source -> tokens -> planes(beta) -> render(camera) -> image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.expression.lebs import LeBS, build_expression
from export3d.model.config import ModelConfig
from export3d.model.decoder import RadianceDecoder
from export3d.model.generator import TriPlaneGenerator
from export3d.model.result import Render, as_images
from export3d.model.superres import SuperResolution
from export3d.model.triplane import RunningMeanPlanes, sample_planes
from export3d.rendering.rays import Window, cast_rays
from export3d.rendering.renderer import RayResult, render_rays

March = Callable[..., RayResult]
"""What `render_rays` is: field, origins, directions, `RendererConfig`, jitter -> what the rays met."""


class Export3D(nn.Module):
    """Source portrait, driving expression and driving camera -> driven portrait."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels, dim = config.triplane.channels, config.expression.dim
        self.expression = build_expression(config.expression)  # f_e, Sec. 3.1; pre-trained and frozen
        self.generator = TriPlaneGenerator(config.generator, channels, dim)  # G, Sec. 3.2
        self.mean_planes = RunningMeanPlanes(config.triplane)  # T_EMA, Eq. 12
        self.decoder = RadianceDecoder(config.decoder, channels)  # MLP, Eq. 8
        self.superres = SuperResolution(config.superres, config.decoder.colour_channels)  # Sec. 3.3
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, source: Tensor, beta: Tensor, camera: Camera) -> Render:
        """``source`` (B, 3, H, W) in [-1, 1], driving ``beta`` (B, 64) and B cameras -> Render. No side effects."""
        tokens = self.encode(source)  # (B, HW / 2^8, h)  once per portrait
        planes = self.planes(tokens, beta)  # (B, 3, 32, H/2, W/2)  once per expression
        return self.render(planes, camera)  # once per camera

    def encode(self, source: Tensor) -> Tensor:
        """Visual tokens x (B, N, h) of the portrait (Sec. 3.2); no expression yet."""
        return self.generator.encode(source)

    def planes(self, tokens: Tensor, beta: Tensor) -> Tensor:
        """G (Eq. 6): beta' (Eq. 3) modulates the tokens (Eq. 5) into residual planes (B, 3, C, P, P) (Eq. 4)."""
        check_shape("beta", beta, tokens.shape[0], None)
        return self.generator(tokens, self.condition(beta))

    def condition(self, beta: Tensor) -> Tensor:
        """beta' (B, d) (Eq. 3); for Table 4's cross-attention the scaled basis lambda_i v_i (B, n, d)."""
        if self.config.generator.conditioning == "cross_attention":
            assert isinstance(self.expression, LeBS)  # ModelConfig refuses the other combination
            return self.expression.scaled_basis(beta)
        return self.expression(beta)

    def render(
        self,
        residual: Tensor,
        camera: Camera,
        *,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        raw_size: int | None = None,
        march: March = render_rays,
    ) -> Render:
        """Planes seen by a camera (Eqs. 7-10, 12), then super-resolution (Sec. 3.3).

        Args:
            residual: what `planes` returned.
            camera: B driving cameras.
            window: render only a square of the image: (top (B,), left (B,), side) in rays.
            jitter: random depths, for training; None is deterministic.
            raw_size: another number of rays along each side; then only the raw image is made (`image` is None).
            march: another renderer that gives what `render_rays` gives.
        """
        size = raw_size or self.config.renderer.raw_size
        side = size if window is None else window[2]
        origins, directions = cast_rays(camera, size, window)  # o, d: (B, R, 3)
        with torch.autocast(residual.device.type, enabled=False):  # rays stay float32: rounded, they miss by a pixel
            met = march(self.field(residual), origins, directions, self.config.renderer, jitter)  # Eqs. 9-10
        features, depth, opacity = as_images(met, side)
        features = (features * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)  # an empty ray is black (EG3D)
        raw = features[:, :3]  # D-hat raw (B, 3, r, r)
        image = None if raw_size is not None else self.superres(features, raw, side / size)  # D-hat (B, 3, H, W)
        return Render(image, raw, depth, opacity, residual)

    def field(self, residual: Tensor) -> TriPlaneField:
        """The radiance field of the planes with the running mean added (Eq. 12)."""
        return TriPlaneField(self.mean_planes(residual), self)


class TriPlaneField:
    """x -> density and colour: mean of three lookups (Eq. 7), then the MLP (Eq. 8)."""

    def __init__(self, planes: Tensor, model: Export3D) -> None:
        self.planes_, self.decoder, self.config = planes, model.decoder, model.config.triplane

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (B, P, 3) -> raw density (B, P), and what `colour` needs."""
        return self.decoder.density(sample_planes(self.planes_, points, self.config))

    def colour(self, state: Tensor) -> Tensor:
        """-> (B, P, C); the first three channels are RGB."""
        return self.decoder.colour(state)
