"""portrait/fast_field.py and `render(fast=...)`: the folded first layer gives what planes and decoder give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.portrait.config import PORTRAIT, PortraitConfig
from export3d.portrait.fast_field import FoldedField, _softplus_
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig
from export3d.rendering.fused import binding, fused_status

Make = Callable[..., PortraitModel]
States = Callable[..., FaceState]


def test_the_soft_plus_of_the_fast_field_is_that_of_the_exact_one_also_where_the_exponential_overflows() -> None:
    for reach in (1.0, 20.0, 200.0):
        x = torch.linspace(-reach, reach, 2001)
        assert torch.allclose(_softplus_(x.clone()), F.softplus(x), atol=2e-7, rtol=1e-6)
    assert _softplus_(torch.empty(0)).shape == (0,)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shared", [True, False], ids=["one_layer", "two_networks"])
def test_densities_and_colours_are_those_of_the_exact_field_also_outside_the_box(
    make_model: Make, make_state: States, config: PortraitConfig, *, padding: str, shared: bool
) -> None:
    triplane, decoder = replace(config.triplane, padding=padding), replace(config.decoder, shared_first_layer=shared)
    model = make_model(replace(config, triplane=triplane, decoder=decoder))
    points = 0.6 * torch.randn(1, 500, 3)  # the box reaches to 0.5
    assert 0.2 < (points.abs() > 0.5).any(dim=-1).float().mean() < 0.9
    with torch.inference_mode():
        code = model.encode(torch.rand(1, 3, 32, 32) * 2 - 1, Camera.look_at_head(), make_state(1))
        driven = model.drive(code, make_state(2))
        exact = model.field(driven)
        density, state = exact.density(points)
        field = FoldedField(model.parts, driven)
        folded, samples = field.density(points[0].t().contiguous())
        assert torch.allclose(folded, density[0], atol=2e-5)
        # Two rays of two and no samples, and one of one.
        chosen, shares = torch.tensor([3, 40, 7]), torch.tensor([0.5, 0.2, 1.0])
        colours = exact.colour(state)[0]
        met = field.colour(samples, chosen, shares, torch.tensor([0, 2, 2]))
    expected = torch.stack([0.5 * colours[3] + 0.2 * colours[40], torch.zeros(8 + 5), colours[7]])
    assert torch.allclose(met, expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["pytorch", "compiled"])
@pytest.mark.parametrize("name", ["tiny", "two_networks", "portrait"])
def test_with_nothing_left_out_the_picture_is_the_exact_one(
    make_model: Make,
    config: PortraitConfig,
    nothing_left_out: FastConfig,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    compiled: bool,
) -> None:
    if not compiled:
        monkeypatch.setenv(binding.VARIABLE, "0")
    elif not fused_status()[0]:
        pytest.skip(f"the fused renderer does not run here: {fused_status()[1]}")
    networks = replace(config, decoder=replace(config.decoder, shared_first_layer=False))
    model = make_model({"tiny": config, "two_networks": networks, "portrait": PORTRAIT}[name], 0.05)
    size = model.config.image_size
    source, camera = torch.rand(1, 3, size, size) * 2 - 1, Camera.look_at_head(0.3, 0.1)
    own, driving = FaceState(beta=torch.randn(1, 64)), FaceState(beta=torch.randn(1, 64))
    with torch.inference_mode():
        driven = model.drive(model.encode(source, Camera.look_at_head(), own), driving)
        exact, fast = model.render(driven, camera), model.render(driven, camera, fast=nothing_left_out)
        loose = model.render(driven, camera, fast=FastConfig())
        raw = model.render(driven, camera, raw_size=12, fast=FastConfig())
    assert exact.image is not None and fast.image is not None and loose.image is not None
    near = 1e-4 if compiled else 1e-5
    assert torch.allclose(fast.raw, exact.raw, atol=near) and torch.allclose(fast.opacity, exact.opacity, atol=near)
    # Distances to the depth map are steep, so single pixels may differ more than the rest.
    assert torch.allclose(fast.image, exact.image, atol=2e-3)
    assert (fast.image - exact.image).square().mean().sqrt() < 1e-4
    met = exact.opacity > 1e-3
    assert torch.allclose(fast.depth[met], exact.depth[met], atol=1e-4)
    for part in ("image", "raw", "depth", "opacity"):
        assert getattr(loose, part).shape == getattr(exact, part).shape
    assert not torch.equal(loose.raw, exact.raw)  # or the fast path was not taken
    assert (loose.raw - exact.raw).square().mean().sqrt() < 0.05
    assert raw.image is None and raw.raw.shape == (1, 3, 12, 12)


def test_rays_that_meet_nothing_show_exactly_the_background(config: PortraitConfig) -> None:
    model = PortraitModel(replace(config, decoder=replace(config.decoder, density_bias=-60.0))).eval()
    source, state = torch.rand(1, 3, 32, 32) * 2 - 1, FaceState(beta=torch.zeros(1, 64))
    with torch.inference_mode():
        code = model.encode(source, Camera.look_at_head(), state, true_mask=torch.zeros(1, 1, 32, 32))
        render = model.render(model.drive(code, state), Camera.look_at_head(0.2), fast=FastConfig())
    assert not render.opacity.any() and torch.isfinite(render.depth).all()
    assert torch.allclose(render.raw, torch.nn.functional.avg_pool2d(source, 2), atol=1e-6)
    assert render.image is not None and torch.allclose(render.image, source, atol=1e-5)


def test_the_fast_path_refuses_what_it_cannot_do(make_model: Make) -> None:
    model, state = make_model(), FaceState(beta=torch.zeros(1, 64))
    camera, fast, zero = Camera.look_at_head(), FastConfig(), torch.tensor([0])
    with torch.inference_mode():
        driven = model.drive(model.encode(torch.zeros(1, 3, 32, 32), camera, state), state)
        with pytest.raises(ValueError, match="without jitter"):
            model.render(driven, camera, fast=fast, jitter=torch.Generator())
        with pytest.raises(ValueError, match="for whole pictures"):
            model.render(driven, camera, fast=fast, window=(zero, zero, 4))
    with pytest.raises(ValueError, match="without gradients"):
        model.render(driven, camera, fast=fast)
