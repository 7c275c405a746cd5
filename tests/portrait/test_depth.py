"""portrait/depth.py: each point's distance to the portrait's depth map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.portrait.config import PortraitConfig
from export3d.portrait.depth import SourceDepth, SourceDepthConfig
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig

DEPTH = SourceDepthConfig(channels=2, widths=(4, 4, 6, 8))
Make = Callable[..., PortraitModel]


def _still(points: Tensor) -> Tensor:
    return points


def _inputs() -> tuple[Tensor, FaceState, Camera]:
    torch.manual_seed(4)
    return torch.rand(1, 3, 32, 32) * 2 - 1, FaceState(beta=torch.randn(1, 64)), Camera.look_at_head(0.2, 0.1)


def test_a_point_reads_its_signed_distance_at_both_scales_the_foreground_and_the_learned_channels() -> None:
    module, camera = SourceDepth(DEPTH, 10), Camera.look_at_head()
    module.to_hidden = torch.nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        module.to_hidden.weight.copy_(torch.eye(8))
    maps = torch.zeros(1, 4, 16, 16)
    maps[:, 0], maps[:, 1], maps[:, 2], maps[:, 3] = 0.03, 0.6, 5.0, -7.0  # depth, foreground, learned
    centre = camera.cam_to_world[0, :3, 3]
    straight = -centre / centre.norm()  # along the middle ray, on which the distance behind the origin is exact
    points = torch.stack([straight * 0.03, straight * 0.04, straight * 0.0])[None]
    with torch.no_grad():
        found = module.clues(maps, camera, points, _still)[0]
    for row, behind in zip(found, (0.0, 0.01, -0.03), strict=True):
        scales = [math.tanh(behind / 0.012), math.tanh(behind / 0.05)]
        expected = torch.tensor([*scales, 0.6, 5.0, -7.0, *scales, 0.6])  # the mirror image lies on the same ray
        assert torch.allclose(row, expected, atol=1e-4)


def test_the_mirror_image_is_read_on_the_other_side() -> None:
    module, camera = SourceDepth(DEPTH, 10), Camera.look_at_head(0.1)
    torch.nn.init.normal_(module.to_hidden.weight)
    with torch.no_grad():
        module.to_hidden.weight[:, :5] = 0.0  # only what the mirror image reads
        maps, points = torch.randn(1, 4, 16, 16), 0.1 * torch.randn(1, 9, 3)
        found = module.clues(maps, camera, points, _still)
        module.to_hidden.weight[:, :3], module.to_hidden.weight[:, 5:] = module.to_hidden.weight[:, 5:].clone(), 0.0
        expected = module.clues(maps, camera, points * torch.tensor([-1.0, 1.0, 1.0]), _still)
    assert torch.allclose(found, expected, atol=1e-5) and found.abs().max() > 0.1


def test_the_maps_hold_depth_foreground_and_learned_channels_at_half_resolution(make_model: Make) -> None:
    model, (source, state, camera) = make_model(), _inputs()
    maps = model.encode(source, camera, state).maps
    assert maps.depth.shape == (1, 4, 16, 16) and maps.matte_logits.shape == (1, 1, 16, 16)
    assert torch.equal(maps.depth[:, 1:2], torch.sigmoid(maps.matte_logits))


def test_it_starts_without_a_say(config: PortraitConfig) -> None:
    torch.manual_seed(5)
    model, (source, state, camera) = PortraitModel(config).eval(), _inputs()
    with torch.no_grad():
        code = model.encode(source, camera, state)
        other = replace(code, maps=replace(code.maps, depth=torch.randn_like(code.maps.depth)))
        images = [model.render(model.drive(one, state), camera).image for one in (code, other)]
    assert images[0] is not None and images[1] is not None and torch.equal(images[0], images[1])


def test_the_depth_map_changes_density_picture_and_guide_and_gets_a_gradient(make_model: Make) -> None:
    model, (source, state, camera) = make_model(), _inputs()
    code = model.encode(source, camera, state)
    driven = model.drive(code, state)
    driven.planes.data[:, :, 8:] = 0.0  # random motion would carry the points far off, where every distance saturates
    points = 0.1 * torch.randn(1, 20, 3)
    maps = [code.maps.depth.clone() for _ in range(2)]
    maps[0][:, 0], maps[1][:, 0] = 0.0, -0.02
    at, nearer = (replace(driven, code=replace(code, maps=replace(code.maps, depth=depth))) for depth in maps)
    with torch.no_grad():
        assert not torch.allclose(model.sigma(at, points), model.sigma(nearer, points), rtol=1e-3)
        assert not torch.allclose(model.guide(at, points)[0], model.guide(nearer, points)[0], atol=1e-5)
    render = model.render(driven, camera)
    assert render.image is not None
    render.image.square().mean().backward()
    for name, parameter in model.reader.depth.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shared", [True, False], ids=["one_layer", "two_networks"])
def test_the_fast_path_with_nothing_left_out_gives_the_exact_picture(
    make_model: Make, config: PortraitConfig, nothing_left_out: FastConfig, shared: bool
) -> None:
    model = make_model(replace(config, decoder=replace(config.decoder, shared_first_layer=shared)))
    source, state, camera = _inputs()
    with torch.inference_mode():
        driven = model.drive(model.encode(source, Camera.look_at_head(), state), state)
        exact, fast = model.render(driven, camera), model.render(driven, camera, fast=nothing_left_out)
    assert exact.image is not None and fast.image is not None
    assert torch.allclose(fast.raw, exact.raw, atol=1e-5) and exact.image.std() > 0.05
    # A read beside the portrait by a rounded place shows most in noise, which no photograph is.
    assert torch.allclose(fast.image, exact.image, atol=1e-3)
