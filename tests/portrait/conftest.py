"""Small portrait models whose every weight has something to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait.config import TINY_PORTRAIT, PortraitConfig
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig
from export3d.rendering.renderer import RendererConfig

CONFIG = replace(
    TINY_PORTRAIT,
    renderer=RendererConfig(raw_size=16, num_coarse=8, num_fine=8),
    superres=replace(TINY_PORTRAIT.superres, start_size=None),
)


@pytest.fixture
def config() -> PortraitConfig:
    """`tiny-portrait` with 16 x 16 rays that are enlarged once, so that places in the image are easy to say."""
    return CONFIG


@pytest.fixture
def nothing_left_out() -> FastConfig:
    return FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=0.0)


@pytest.fixture
def make_model() -> Callable[..., PortraitModel]:
    """`make(config=CONFIG, scale=0.1)`: noise on every weight, also those that start at zero; maps of beta that read it."""

    def make(config: PortraitConfig = CONFIG, scale: float = 0.1) -> PortraitModel:
        torch.manual_seed(2)
        model = PortraitModel(config).eval()
        for parameter in model.parameters():
            parameter.data += scale * torch.randn_like(parameter)
        for part in model.cues.shapes:
            part.set_map(0.01 * torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
        model.mean_planes.mean.normal_(std=0.3)
        return model

    return make


@pytest.fixture
def make_state() -> Callable[..., FaceState]:
    """`make(seed, batch=1)`: a face of which everything is known."""

    def make(seed: int, batch: int = 1) -> FaceState:
        random = torch.Generator().manual_seed(seed)
        beta, gaze, turn = (torch.randn(batch, n, generator=random) for n in (64, 2, 3))
        weights = torch.rand(batch, len(ARKIT_NAMES), generator=random)
        return FaceState(beta=beta, weights=weights, gaze=0.3 * gaze, turn=0.2 * turn)

    return make
