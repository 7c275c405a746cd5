"""The paper's model and the shipped one behind the same three calls: what films, training and scores use of either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.expression.lebs import LeBS
from export3d.face_state import FaceState
from export3d.model.config import ModelConfig
from export3d.model.export3d import Export3D
from export3d.model.result import Render
from export3d.portrait.march import march_paper
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig
from export3d.rendering.rays import Window
from export3d.rendering.renderer import activate_density, render_rays

Model = Export3D | PortraitModel
"""A model of either kind."""


class Drivable(Protocol):
    """A portrait is encoded once, driven once per expression, rendered once per camera (`PortraitModel` says how)."""

    @property
    def config(self) -> ModelConfig: ...

    def encode(
        self,
        source: Tensor,
        camera: Camera,
        state: FaceState,
        true_mask: Tensor | None = None,
        *,
        photo: Tensor | None = None,
    ) -> Any: ...

    def drive(self, code: Any, driving: FaceState, coefficients: Tensor | None = None) -> Any: ...

    def render(
        self,
        driven: Any,
        camera: Camera,
        *,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        raw_size: int | None = None,
        fast: FastConfig | None = None,
        size: int | None = None,
    ) -> Render: ...

    def sigma(self, driven: Any, points: Tensor) -> Tensor: ...


def drivable(model: Model) -> Drivable:
    """Those calls of a model of either kind."""
    return model if isinstance(model, PortraitModel) else PaperDriving(model)


@dataclass(frozen=True)
class PaperDriving:
    """The paper's model: of the states it reads beta alone, of the portrait the picture alone."""

    model: Export3D

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def encode(
        self,
        source: Tensor,
        camera: Camera,
        state: FaceState,
        true_mask: Tensor | None = None,
        *,
        photo: Tensor | None = None,
    ) -> Tensor:
        """Visual tokens (B, N, h)."""
        return self.model.encode(source)

    def drive(self, code: Tensor, driving: FaceState, coefficients: Tensor | None = None) -> Tensor:
        """Residual planes (B, 3, C, P, P); `coefficients` (B, n) stand in for lambda of `driving`."""
        if coefficients is None:
            return self.model.planes(code, driving.beta)
        expression = self.model.expression
        assert isinstance(expression, LeBS)  # nobody else has coefficients
        tokens = self.model.config.generator.conditioning == "cross_attention"
        return self.model.generator(code, (expression.scaled if tokens else expression.combine)(coefficients))

    def render(
        self,
        driven: Tensor,
        camera: Camera,
        *,
        window: Window | None = None,
        jitter: torch.Generator | None = None,
        raw_size: int | None = None,
        fast: FastConfig | None = None,
        size: int | None = None,
    ) -> Render:
        """See `Export3D.render`; with `fast` the compiled renderer where it runs. There is no other size."""
        march = render_rays if fast is None else march_paper
        return self.model.render(driven, camera, window=window, jitter=jitter, raw_size=raw_size, march=march)

    def sigma(self, driven: Tensor, points: Tensor) -> Tensor:
        """Density >= 0 (1 / scene unit) of world points ``(B, P, 3)`` -> (B, P)."""
        return activate_density(self.model.field(driven).density(points)[0], self.model.config.renderer)
