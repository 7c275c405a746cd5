"""portrait/drivable.py: both models behind the same calls show what their own calls show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from export3d.camera import Camera
from export3d.expression.lebs import LeBS
from export3d.face_state import FaceState
from export3d.model.config import TINY, ablation
from export3d.model.export3d import Export3D
from export3d.portrait.drivable import drivable
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig
from export3d.rendering.renderer import activate_density

SOURCE_CAMERA, CAMERA = Camera.look_at_head(0.1), Camera.look_at_head(-0.3, 0.1)
WINDOW = (torch.tensor([1]), torch.tensor([2]), 4)


def _paper(name: str = "full") -> Export3D:
    torch.manual_seed(3)
    model = Export3D(ablation(TINY, name)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("name", ["full", "direct-3dmm", "cross-attention"])
@torch.inference_mode()
def test_the_papers_model_shows_the_same_picture(name: str, make_state: Callable[..., FaceState]) -> None:
    model, source, own, state = _paper(name), torch.rand(1, 3, 32, 32) * 2 - 1, make_state(1), make_state(2)
    calls = drivable(model)
    driven = calls.drive(calls.encode(source, SOURCE_CAMERA, own), state)
    mine, its = calls.render(driven, CAMERA), model(source, state.beta, CAMERA)
    assert mine.image is not None and torch.equal(mine.image, its.image) and torch.equal(mine.depth, its.depth)
    assert calls.config is model.config
    # Its faster way leaves out next to nothing.
    assert torch.allclose(calls.render(driven, CAMERA, fast=FastConfig()).raw, its.raw, atol=1e-3)
    window, whole = calls.render(driven, CAMERA, window=WINDOW), model.render(driven, CAMERA, window=WINDOW)
    assert torch.equal(window.raw, whole.raw) and calls.render(driven, CAMERA, raw_size=6).raw.shape == (1, 3, 6, 6)
    points = 0.2 * torch.randn(1, 9, 3)
    density = activate_density(model.field(driven).density(points)[0], model.config.renderer)
    assert torch.equal(calls.sigma(driven, points), density) and density.min() >= 0


@torch.inference_mode()
def test_the_portrait_model_is_its_own(
    make_model: Callable[..., PortraitModel], make_state: Callable[..., FaceState]
) -> None:
    model, source, own, state = make_model(), torch.rand(1, 3, 32, 32) * 2 - 1, make_state(1), make_state(2)
    calls = drivable(model)
    mine = calls.render(calls.drive(calls.encode(source, SOURCE_CAMERA, own), state), CAMERA).image
    its = model(source, SOURCE_CAMERA, own, state, CAMERA).image
    assert mine is not None and torch.equal(mine, its)


@pytest.mark.parametrize("name", ["full", "cross-attention"])
@torch.inference_mode()
def test_coefficients_stand_in_for_those_of_the_driver(name: str, make_state: Callable[..., FaceState]) -> None:
    model, state = _paper(name), make_state(2)
    calls = drivable(model)
    code = calls.encode(torch.rand(1, 3, 32, 32), SOURCE_CAMERA, make_state(1))
    assert isinstance(model.expression, LeBS)
    coefficients = model.expression.coefficients(state.beta)
    assert torch.allclose(calls.drive(code, state, coefficients), calls.drive(code, state), atol=1e-5)
    assert not torch.allclose(calls.drive(code, state, coefficients + 1.0), calls.drive(code, state), atol=1e-3)
