"""portrait/model.py: the whole forward pass, its three verbs, windows, gradients, the sizes of the presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.expression.lebs import LeBS
from export3d.face_state import FaceState
from export3d.portrait.config import PORTRAIT, TINY_PORTRAIT, PortraitConfig
from export3d.portrait.count import count_parameters
from export3d.portrait.model import PortraitModel

Make = Callable[..., PortraitModel]
States = Callable[..., FaceState]
Inputs = tuple[Tensor, Camera, FaceState, FaceState, Camera]


@pytest.fixture
def inputs(make_state: States) -> Inputs:
    yaw = torch.tensor([-0.4, 0.5])
    source = torch.rand(2, 3, 32, 32) * 2 - 1
    return (
        source,
        Camera.look_at_head(0.1 * yaw),
        make_state(1, 2),
        make_state(2, 2),
        Camera.look_at_head(yaw, 0.2, -0.1),
    )


@torch.no_grad()
def _image(model: PortraitModel, inputs: Inputs) -> Tensor:
    image = model(*inputs).image
    assert image is not None
    return image


def test_encode_drive_render_equals_forward(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(), inputs
    with torch.no_grad():
        whole = model(*inputs)
        parts = model.render(model.drive(model.encode(source, source_camera, own), driving), camera)
    for name in ("image", "raw", "depth", "opacity", "planes", "image_opacity"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_shapes_of_the_tiny_portrait_model(make_model: Make, inputs: Inputs) -> None:
    with torch.no_grad():
        render = make_model(TINY_PORTRAIT)(*inputs)
    assert render.image.shape == (2, 3, 32, 32) and render.image_opacity.shape == (2, 1, 32, 32)
    assert render.raw.shape == (2, 3, 8, 8) and render.planes.shape == (2, 3, 8 + 3, 16, 16)
    assert render.depth.shape == render.opacity.shape == (2, 1, 8, 8)


def test_rendering_twice_in_either_mode_is_bit_equal(make_model: Make, inputs: Inputs) -> None:
    model = make_model()
    first = _image(model, inputs)
    assert torch.equal(_image(model, inputs), first) and torch.equal(_image(model.train(), inputs), first)


def test_forward_has_no_side_effect(make_model: Make, inputs: Inputs) -> None:
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(*inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_samples_of_a_batch_do_not_influence_each_other(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(scale=0.05), inputs
    alone = _image(model, (source[1:], source_camera[1:], own[1:], driving[1:], camera[1:]))
    assert torch.allclose(_image(model, inputs)[1:], alone, atol=1e-3)


def test_each_input_matters(make_model: Make, inputs: Inputs, make_state: States) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(), inputs
    image, other = _image(model, inputs), make_state(3, 2)
    for changed in (
        (source.flip(-1), source_camera, own, driving, camera),
        (source, source_camera.mirrored(), own, driving, camera),
        (source, source_camera, other, driving, camera),
        (source, source_camera, own, other, camera),
        (source, source_camera, own, driving, camera.mirrored()),
    ):
        assert (image - _image(model, changed)).abs().max() > 1e-3


def test_a_beta_of_another_batch_is_named(make_model: Make, inputs: Inputs, make_state: States) -> None:
    model, (source, source_camera, own, _, _) = make_model(), inputs
    with pytest.raises(ValueError, match=r"beta must have shape \(2, \*\); got \(1, 64\)"):
        model.drive(model.encode(source, source_camera, own), make_state(1))


def test_coefficients_stand_in_for_those_of_the_driver(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, _) = make_model(), inputs
    assert isinstance(model.expression, LeBS)
    with torch.no_grad():
        code = model.encode(source, source_camera, own)
        coefficients = model.expression.coefficients(driving.beta)
        plain, same = model.drive(code, driving), model.drive(code, driving, coefficients)
        other = model.drive(code, driving, coefficients + 1.0)
    assert torch.allclose(same.planes, plain.planes, atol=1e-5)
    assert not torch.allclose(other.planes, plain.planes, atol=1e-3)


def test_a_window_shows_what_the_whole_image_shows_there(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(scale=0.05), inputs
    top, left = torch.tensor([4, 0]), torch.tensor([2, 3])
    with torch.no_grad():
        driven = model.drive(model.encode(source, source_camera, own), driving)
        whole = model.render(driven, camera)
        part = model.render(driven, camera, window=(top, left, 12))
    assert whole.image is not None and part.image is not None
    assert whole.image_opacity is not None and part.image_opacity is not None
    edge = slice(8, -8)  # convolutions see no neighbours beyond the window's border
    for b, (t, s) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        for name in ("raw", "depth", "opacity"):
            crop = getattr(whole, name)[b, :, t : t + 12, s : s + 12]
            assert torch.allclose(getattr(part, name)[b], crop, atol=1e-4), name
        for found, full in ((part.image, whole.image), (part.image_opacity, whole.image_opacity)):
            crop = full[b, :, 2 * t : 2 * t + 24, 2 * s : 2 * s + 24]
            assert torch.allclose(found[b, :, edge, edge], crop[:, edge, edge], atol=1e-3)


def test_another_number_of_rays_gives_only_the_raw_image_of_the_same_scene(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(scale=0.05), inputs
    with torch.no_grad():
        driven = model.drive(model.encode(source, source_camera, own), driving)
        coarse, fine = model.render(driven, camera), model.render(driven, camera, raw_size=48)
    assert fine.image is None and fine.image_opacity is None and fine.raw.shape == (2, 3, 48, 48)
    # 48 = 3 x 16: the middle ray of each 3 x 3 is the same ray.
    assert torch.allclose(fine.opacity[..., 1::3, 1::3], coarse.opacity, atol=1e-4)


def test_jitter_changes_the_picture_and_repeats_with_its_seed(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(), inputs
    with torch.no_grad():
        driven = model.drive(model.encode(source, source_camera, own), driving)
        a, b, c = (model.render(driven, camera, jitter=torch.Generator().manual_seed(k)).raw for k in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_where_there_is_no_head_the_portrait_shows_also_through_a_window(config: PortraitConfig) -> None:
    model = PortraitModel(replace(config, decoder=replace(config.decoder, density_bias=-60.0))).eval()
    source, camera = torch.rand(2, 3, 32, 32) * 2 - 1, Camera.look_at_head(torch.tensor([0.1, 0.3]))
    state = FaceState(beta=torch.randn(2, 64))
    top, left = torch.tensor([0, 3]), torch.tensor([4, 2])
    with torch.no_grad():
        driven = model.drive(model.encode(source, camera, state, true_mask=torch.zeros(2, 1, 32, 32)), state)
        whole, window = model.render(driven, camera), model.render(driven, camera, window=(top, left, 4))
    assert whole.opacity.max() < 1e-6
    assert torch.allclose(whole.raw, torch.nn.functional.avg_pool2d(source, 2), atol=1e-5)
    assert whole.image is not None and window.image is not None
    assert torch.allclose(whole.image, source, atol=1e-5)
    for b, (t, s) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        assert torch.allclose(window.raw[b], whole.raw[b, :, t : t + 4, s : s + 4], atol=1e-5)
        assert torch.allclose(window.image[b], source[b, :, 2 * t : 2 * t + 8, 2 * s : 2 * s + 8], atol=1e-5)


def test_where_the_head_does_not_cover_the_background_is_shown(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(), inputs
    with torch.no_grad():
        model.superres.high_rgb.bias.data[-1] = -100.0  # type: ignore[union-attr]  # opacity 0 everywhere
        code = model.encode(source, source_camera, own)
        render = model.render(model.drive(code, driving), camera)
    assert render.image is not None and render.image_opacity is not None and not render.image_opacity.any()
    assert torch.allclose(render.image, code.maps.background, atol=1e-6)


def test_every_trainable_parameter_gets_a_gradient(make_model: Make, inputs: Inputs) -> None:
    model, (source, source_camera, own, driving, camera) = make_model(), inputs
    code = model.encode(source, source_camera, own, photo=torch.rand(2, 3, 64, 64) * 2 - 1)
    render = model.render(model.drive(code, driving), camera)
    assert render.image is not None and render.image.shape == (2, 3, 64, 64)
    seen = (render.image, render.raw, code.maps.matte_logits)
    torch.stack([(x * torch.randn_like(x)).sum() for x in seen]).sum().backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any())
    ]
    assert without == []
    assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"expression"}


def test_parts_of_the_preset_that_ships_have_these_sizes() -> None:
    counts = count_parameters(PortraitModel(PORTRAIT))
    assert (PORTRAIT.image_size, PORTRAIT.renderer.raw_size, PORTRAIT.triplane.resolution) == (128, 64, 64)
    assert {name: count for name, count in counts.items() if "." not in name} == {
        "expression": 9_610,
        "cues": 87_040,
        "generator": 2_455_488,
        "decoder": 1_705,
        "lookup": 15_353,
        "reader": 440_848,
        "superres": 61_298,
        "total": 3_071_342,
    }


def test_cross_attention_is_refused_with_what_to_take_instead() -> None:
    generator = replace(TINY_PORTRAIT.generator, conditioning="cross_attention")
    with pytest.raises(UsageError, match=r"knows the conditioning 'eadaln' only; got 'cross_attention'.*paper-small"):
        replace(TINY_PORTRAIT, generator=generator)
