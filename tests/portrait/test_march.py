"""portrait/march.py: films have the same picture with and without the compiled renderer, and exact ones never take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.model.config import TINY
from export3d.model.export3d import Export3D
from export3d.portrait import march
from export3d.portrait.config import PortraitConfig
from export3d.portrait.drivable import PaperDriving
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig
from export3d.rendering.fused import binding, fused_status

RUNS, REASON = fused_status()
needs_kernel = pytest.mark.skipif(not RUNS, reason=f"the fused renderer does not run here: {REASON}")

Make = Callable[..., PortraitModel]
States = Callable[..., FaceState]


@needs_kernel
@pytest.mark.parametrize("turned", [True, False], ids=["turned", "without_turn"])
def test_a_portrait_looks_the_same_with_and_without_the_compiled_renderer(
    make_model: Make, make_state: States, config: PortraitConfig, monkeypatch: pytest.MonkeyPatch, *, turned: bool
) -> None:
    model, camera = make_model(config), Camera.look_at_head(0.3, 0.1)
    own, driving = make_state(1), make_state(2)
    if not turned:
        own, driving = replace(own, turn=None), replace(driving, turn=None)
    with torch.inference_mode():
        source = torch.rand(1, 3, config.image_size, config.image_size) * 2 - 1
        driven = model.drive(model.encode(source, Camera.look_at_head(), own), driving)
        compiled = model.render(driven, camera, fast=FastConfig())
        monkeypatch.setenv(binding.VARIABLE, "0")
        plain = model.render(driven, camera, fast=FastConfig())
    assert compiled.image is not None and plain.image is not None
    assert torch.allclose(compiled.image, plain.image, atol=1e-3) and torch.allclose(compiled.raw, plain.raw, atol=1e-3)
    assert not torch.equal(compiled.raw, plain.raw)  # or both came from the same renderer


@needs_kernel
@pytest.mark.parametrize("shared", [True, False], ids=["one_layer", "two_networks"])
def test_the_papers_model_looks_the_same_with_the_compiled_renderer_and_trains_without_it(shared: bool) -> None:
    torch.manual_seed(0)
    model = Export3D(replace(TINY, decoder=replace(TINY.decoder, shared_first_layer=shared))).eval()
    driving, camera = PaperDriving(model), Camera.look_at_head(0.2)
    with torch.no_grad():
        tokens = model.encode(torch.rand(1, 3, 32, 32))
        driven = 3.0 * driving.drive(tokens, FaceState(beta=torch.randn(1, 64)))
        exact, compiled = driving.render(driven, camera), driving.render(driven, camera, fast=FastConfig())
    assert torch.allclose(compiled.raw, exact.raw, atol=1e-3) and not torch.equal(compiled.raw, exact.raw)
    with_gradients = driving.render(driven.requires_grad_(), camera, fast=FastConfig())
    assert torch.equal(with_gradients.raw, exact.raw) and with_gradients.raw.requires_grad


def test_switched_off_and_exact_pictures_never_ask_for_it(
    make_model: Make, make_state: States, config: PortraitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **more: object) -> None:
        raise AssertionError("the compiled renderer was asked")

    monkeypatch.setattr(march, "render_fused", never)
    model, camera = make_model(config), Camera.look_at_head()
    with torch.inference_mode():
        source = torch.rand(1, 3, config.image_size, config.image_size)
        driven = model.drive(model.encode(source, camera, make_state(1)), make_state(2))
        assert model.render(driven, camera).image is not None
        monkeypatch.setenv(binding.VARIABLE, "0")
        assert model.render(driven, camera, fast=FastConfig()).image is not None
