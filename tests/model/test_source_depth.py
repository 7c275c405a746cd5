"""model/source_depth.py: each point's distance to the portrait's depth map (off in the paper's preset)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.model.background import BackgroundConfig
from export3d.model.config import PRESETS, TINY, ModelConfig
from export3d.model.export3d import Export3D
from export3d.model.source_depth import SourceDepth, SourceDepthConfig
from export3d.model.source_lookup import SourceLookupConfig
from export3d.rendering.fast import FastConfig
from export3d.rendering.renderer import RendererConfig

DEPTH = SourceDepthConfig(enabled=True, channels=2, widths=(4, 4, 6, 8))
WITH_LOOKUP = replace(
    TINY,
    source_lookup=SourceLookupConfig(enabled=True, channels=2, width=4),
    background=BackgroundConfig(mode="apart"),
    renderer=RendererConfig(raw_size=16, num_coarse=8, num_fine=8),
    superres=replace(TINY.superres, start_size=None),
    generator=replace(TINY.generator, motion_basis=3),
)
WITH_DEPTH = replace(WITH_LOOKUP, source_depth=DEPTH)
NOTHING_LEFT_OUT = FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=0.0)


def _model(config: ModelConfig = WITH_DEPTH) -> Export3D:
    """Every weight random, also those that start at zero."""
    torch.manual_seed(2)
    model = Export3D(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _inputs() -> tuple[torch.Tensor, torch.Tensor, Camera]:
    torch.manual_seed(4)
    return torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 64), Camera.look_at_head(0.2, 0.1)


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
        found = module.clues(maps, camera, points)[0]
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
        found = module.clues(maps, camera, points)
        module.to_hidden.weight[:, :3], module.to_hidden.weight[:, 5:] = module.to_hidden.weight[:, 5:].clone(), 0.0
        expected = module.clues(maps, camera, points * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.allclose(found, expected, atol=1e-5) and found.abs().max() > 0.1


def test_the_maps_hold_depth_foreground_and_learned_channels_at_half_resolution() -> None:
    model, (source, beta, camera) = _model(), _inputs()
    code = model.encode(source, camera, source_beta=beta)
    assert code.depth is not None and code.depth.shape == (1, 4, 16, 16) and code.matte_logits is not None
    assert torch.equal(code.depth[:, 1:2], torch.sigmoid(code.matte_logits))


def test_it_starts_without_a_say() -> None:
    torch.manual_seed(5)
    grown = Export3D(WITH_DEPTH).eval()
    plain = Export3D(WITH_LOOKUP).eval()
    plain.load_state_dict({k: v for k, v in grown.state_dict().items() if not k.startswith("source_depth.")})
    source, beta, camera = _inputs()
    with torch.no_grad():
        images = [model(source, camera, beta, camera).image for model in (grown, plain)]
    assert torch.equal(images[0], images[1])


def test_the_depth_map_changes_density_picture_and_guide_and_gets_a_gradient() -> None:
    model, (source, beta, camera) = _model(), _inputs()
    code = model.encode(source, camera)
    planes = model.planes(code, beta)
    points = 0.1 * torch.randn(1, 20, 3)
    assert code.depth is not None
    nearer = replace(code, depth=code.depth - torch.tensor([0.1, 0.0, 0.0, 0.0])[:, None, None])
    with torch.no_grad():
        assert not torch.allclose(model.sigma(planes, code, points), model.sigma(planes, nearer, points))
        assert not torch.allclose(model.guide(planes, code, points)[0], model.guide(planes, nearer, points)[0])
    render = model.render(planes, camera, code)
    assert render.image is not None
    render.image.square().mean().backward()
    assert model.source_depth is not None
    for name, parameter in model.source_depth.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shared", [True, False], ids=["one_layer", "two_networks"])
def test_the_fast_path_with_nothing_left_out_gives_the_exact_picture(shared: bool) -> None:
    model = _model(replace(WITH_DEPTH, decoder=replace(TINY.decoder, shared_first_layer=shared)))
    source, beta, camera = _inputs()
    with torch.inference_mode():
        code = model.encode(source, Camera.look_at_head())
        planes = model.planes(code, beta)
        exact, fast = model.render(planes, camera, code), model.render(planes, camera, code, fast=NOTHING_LEFT_OUT)
    assert exact.image is not None and fast.image is not None
    assert torch.allclose(fast.image, exact.image, atol=1e-4) and exact.image.std() > 0.05


def test_it_needs_a_source_lookup() -> None:
    with pytest.raises(UsageError, match=r"set source_lookup\.enabled"):
        replace(TINY, source_depth=DEPTH)


def test_the_papers_presets_do_not_have_it() -> None:
    assert [name for name, config in PRESETS.items() if config.source_depth.enabled] == ["small"]
