"""model/export3d.py: the whole forward pass against a float64 loop, its three verbs, windows, gradients, the paper's sizes."""

from __future__ import annotations

import bisect
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from export3d.camera import FOCAL, Camera
from export3d.model.config import PAPER, TINY, ModelConfig
from export3d.model.decoder import DecoderConfig
from export3d.model.export3d import Export3D
from export3d.rendering.renderer import RendererConfig


def _model(config: ModelConfig = TINY) -> Export3D:
    """Every weight random, also those that start at zero, so that each part has something to say."""
    model = Export3D(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.mean_planes.mean.normal_(std=0.3)
    return model


def _inputs(batch: int = 2) -> tuple[Tensor, Tensor, Camera]:
    yaw = torch.linspace(-0.4, 0.5, batch)
    source = torch.rand(batch, 3, 32, 32) * 2 - 1
    return source, torch.randn(batch, 64), Camera.look_at_head(yaw, 0.2, -0.1)


# ----- the slow reference -------------------------------------------------------------------------------------------


def slow_features(planes: Tensor, point: list[float], box_side: float) -> Tensor:
    """Eq. 7, own bilinear lookup with zeros outside. ``(3, C, P, P)`` float64 -> ``(C,)``."""
    x, y, z = (v * 2 / box_side for v in point)
    side = planes.shape[-1]
    total = torch.zeros(planes.shape[1], dtype=torch.float64)
    for plane, (across, down) in zip(planes, ((x, -y), (z, -y), (x, z)), strict=True):
        column, row = ((across + 1) * side - 1) / 2, ((down + 1) * side - 1) / 2
        for i in (math.floor(row), math.floor(row) + 1):
            for j in (math.floor(column), math.floor(column) + 1):
                if 0 <= i < side and 0 <= j < side:
                    total += (1 - abs(row - i)) * (1 - abs(column - j)) * plane[:, i, j]
    return total / 3


def slow_decode(weights: dict[str, Tensor], features: Tensor, shared: bool) -> tuple[float, Tensor]:
    """Eq. 8: soft-plus layer, then separate layers. Raw density and colours."""

    def layer(name: str, x: Tensor) -> Tensor:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def softplus(x: Tensor) -> Tensor:
        return torch.log1p(torch.exp(x))

    hidden = softplus(layer("first", features))
    hidden_colour = hidden if shared else softplus(layer("first_colour", features))
    colour = 1.002 / (1 + torch.exp(-layer("to_colour", hidden_colour))) - 0.001
    return float(layer("to_density", hidden)), colour


def slow_ray(camera: Camera, row: int, column: int, size: int) -> tuple[Tensor, Tensor]:
    """Origin and unit direction of one pixel centre, from the camera's 25 numbers alone."""
    x, y = ((column + 0.5) / size - 0.5) / FOCAL, ((row + 0.5) / size - 0.5) / FOCAL
    world = camera.cam_to_world[0].double()
    direction = world[:3, :3] @ torch.tensor([x, y, 1.0], dtype=torch.float64)
    return world[:3, 3], direction / direction.norm()


def slow_pixel(
    planes: Tensor, weights: dict[str, Tensor], origin: Tensor, direction: Tensor, config: ModelConfig
) -> tuple[Tensor, float, float]:
    """Eqs. 7-10 for one ray: coarse samples, importance samples, both composited. Features, depth, opacity."""
    renderer = config.renderer

    def look(t: float) -> tuple[float, Tensor]:
        point = (origin + t * direction).tolist()
        return slow_decode(
            weights, slow_features(planes, point, config.triplane.box_side), config.decoder.shared_first_layer
        )

    def alpha(first: float, second: float, length: float) -> float:
        raw = (first + second) / 2 + renderer.density_shift
        return 1 - math.exp(-renderer.density_gain * math.log1p(math.exp(raw)) * length)

    step = (renderer.far - renderer.near) / (renderer.num_coarse - 1)
    coarse = [renderer.near + step * (i + 0.5) for i in range(renderer.num_coarse)]
    seen = {t: look(t) for t in coarse}
    transmittance, weight = 1.0, []
    for t0, t1 in pairwise(coarse):
        a = alpha(seen[t0][0], seen[t1][0], t1 - t0)
        weight.append(transmittance * a)
        transmittance *= 1 - a
    n = len(coarse)
    pooled = [max(weight[max(j - 1, 0)], weight[min(j, n - 2)]) for j in range(n)]
    smooth = [(pooled[j] + pooled[j + 1]) / 2 + renderer.importance_floor + 1e-5 for j in range(n - 1)][1:-1]
    middles = [(t0 + t1) / 2 for t0, t1 in pairwise(coarse)]
    cdf = [0.0]
    for value in smooth:
        cdf.append(cdf[-1] + value / sum(smooth))
    for i in range(renderer.num_fine):
        u = (i + 0.5) / renderer.num_fine
        above = min(max(bisect.bisect_right(cdf, u), 1), len(cdf) - 1)
        share = (u - cdf[above - 1]) / (cdf[above] - cdf[above - 1])
        t = middles[above - 1] + share * (middles[above] - middles[above - 1])
        seen[t] = look(t)
    transmittance, features, depth, opacity = 1.0, torch.zeros(config.decoder.colour_channels).double(), 0.0, 0.0
    for t0, t1 in pairwise(sorted(seen)):
        a = alpha(seen[t0][0], seen[t1][0], t1 - t0)
        features = features + transmittance * a * (seen[t0][1] + seen[t1][1]) / 2
        depth += transmittance * a * (t0 + t1) / 2
        opacity += transmittance * a
        transmittance *= 1 - a
    return features * 2 - 1, depth / opacity, opacity


@pytest.mark.parametrize("shared", [True, False], ids=["shared_first_layer", "two_networks"])
def test_rendering_equals_a_slow_float64_loop_to_1e_5(shared: bool) -> None:
    config = replace(
        TINY,
        renderer=RendererConfig(raw_size=4, num_coarse=8, num_fine=6),
        decoder=DecoderConfig(hidden=8, colour_channels=5, shared_first_layer=shared),
    )
    model = _model(config)
    with torch.no_grad():
        model.decoder.to_density.weight.mul_(6.0)  # some rays solid, some thin
    residual = torch.randn(1, 3, 8, 16, 16)
    camera = Camera.look_at_head(0.3, 0.2, -0.1)
    with torch.no_grad():
        render = model.render(residual, camera)
    planes = (residual[0] + model.mean_planes.mean).double()
    weights = {name: value.double() for name, value in model.decoder.state_dict().items()}
    for row in range(4):
        for column in range(4):
            origin, direction = slow_ray(camera, row, column, 4)
            features, depth, opacity = slow_pixel(planes, weights, origin, direction, config)
            assert torch.allclose(render.raw[0, :, row, column].double(), features[:3], atol=1e-5)
            assert render.opacity[0, 0, row, column].item() == pytest.approx(opacity, abs=1e-5)
            assert render.depth[0, 0, row, column].item() == pytest.approx(depth, abs=1e-4)
    assert render.opacity.max() - render.opacity.min() > 0.05  # not all alike, or the comparison would be weak


# ----- shapes and the three verbs -----------------------------------------------------------------------------------


def test_encode_planes_render_equals_forward() -> None:
    model, (source, beta, camera) = _model(), _inputs()
    with torch.no_grad():
        whole = model(source, beta, camera)
        parts = model.render(model.planes(model.encode(source), beta), camera)
    for name in ("image", "raw", "depth", "opacity", "planes"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_shapes_of_the_tiny_preset() -> None:
    model, inputs = _model(), _inputs()
    with torch.no_grad():
        render = model(*inputs)
    assert render.image.shape == (2, 3, 32, 32)
    assert render.raw.shape == (2, 3, 8, 8)
    assert render.depth.shape == render.opacity.shape == (2, 1, 8, 8)
    assert render.planes.shape == (2, 3, 8, 16, 16)


def test_rendering_twice_is_bit_equal() -> None:
    model, inputs = _model(), _inputs()
    with torch.no_grad():
        first, second = model(*inputs), model(*inputs)
    assert torch.equal(first.image, second.image) and torch.equal(first.depth, second.depth)


def test_rendering_does_not_depend_on_training_mode() -> None:
    """No dropout, no batch norm, no jitter by default: train() changes nothing."""
    model, inputs = _model(), _inputs()
    with torch.no_grad():
        assert torch.equal(model.train()(*inputs).image, model.eval()(*inputs).image)


def test_jitter_changes_the_picture_and_repeats_with_its_seed() -> None:
    model, (source, beta, camera) = _model(), _inputs()
    with torch.no_grad():
        planes = model.planes(model.encode(source), beta)
        a, b, c = (model.render(planes, camera, jitter=torch.Generator().manual_seed(seed)).raw for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_forward_has_no_side_effect() -> None:
    model, inputs = _model(), _inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()(*inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    model, (source, beta, camera) = _model(), _inputs(2)
    with torch.no_grad():
        both = model(source, beta, camera)
        alone = model(source[1:], beta[1:], camera[1:])
    assert torch.allclose(both.image[1:], alone.image, atol=1e-4)


def test_each_input_matters() -> None:
    model, (source, beta, camera) = _model(), _inputs(1)
    with torch.no_grad():
        image = model(source, beta, camera).image
        for other in (
            model(source.flip(-1), beta, camera).image,
            model(source, -beta, camera).image,
            model(source, beta, camera.mirrored()).image,
        ):
            assert (image - other).abs().max() > 1e-3


def test_the_mean_planes_are_added_before_rendering_and_the_residual_is_returned() -> None:
    model, (source, beta, camera) = _model(), _inputs(1)
    with torch.no_grad():
        planes = model.planes(model.encode(source), beta)
        render = model.render(planes, camera)
        assert torch.equal(render.planes, planes)
        mean = model.mean_planes.mean.clone()
        model.mean_planes.mean.zero_()
        shifted = model.render(planes + mean, camera)
    assert torch.allclose(shifted.raw, render.raw, atol=1e-6)


# ----- windows ------------------------------------------------------------------------------------------------------


def test_a_window_equals_the_crop_of_the_whole() -> None:
    model, (source, beta, camera) = _model(), _inputs()
    top, left = torch.tensor([0, 3]), torch.tensor([4, 2])
    with torch.no_grad():
        planes = model.planes(model.encode(source), beta)
        whole = model.render(planes, camera)
        window = model.render(planes, camera, window=(top, left, 4))
    assert window.image is not None and window.image.shape == (2, 3, 16, 16) and window.raw.shape == (2, 3, 4, 4)
    for b, (t, s) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        for name in ("raw", "depth", "opacity"):
            crop = getattr(whole, name)[b, :, t : t + 4, s : s + 4]
            assert torch.allclose(getattr(window, name)[b], crop, atol=1e-4), name
        # The super-resolution sees 3 more rays around each pixel: only the middle of the window is the same.
        # 2 x 2 convolutions at twice the raw size reach 1 ray, the doubling and the last ones 1 more, the resize 1.
        crop = whole.image[b, :, 4 * t : 4 * t + 16, 4 * s : 4 * s + 16]
        assert torch.allclose(window.image[b, :, 7:9, 7:9], crop[:, 7:9, 7:9], atol=0.05)


def test_another_number_of_rays_gives_only_the_raw_image_of_the_same_scene() -> None:
    model, (source, beta, camera) = _model(), _inputs(1)
    with torch.no_grad():
        planes = model.planes(model.encode(source), beta)
        coarse = model.render(planes, camera)
        fine = model.render(planes, camera, raw_size=24)
    assert fine.image is None and fine.raw.shape == (1, 3, 24, 24)
    # 24 = 3 x 8: the middle ray of each 3 x 3 is the same ray.
    assert torch.allclose(fine.raw[..., 1::3, 1::3], coarse.raw, atol=1e-4)


# ----- gradients ----------------------------------------------------------------------------------------------------


def _without_gradient(model: nn.Module) -> list[str]:
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any())
    ]


@pytest.mark.parametrize("variant", ["pretrained", "end_to_end", "direct", "cross_attention"])
def test_every_trainable_parameter_of_the_tiny_preset_gets_a_gradient(variant: str) -> None:
    changes = {
        "pretrained": {},
        "end_to_end": {"expression": replace(TINY.expression, pretrained=False)},
        "direct": {"expression": replace(TINY.expression, kind="direct", pretrained=False)},
        "cross_attention": {
            "generator": replace(TINY.generator, conditioning="cross_attention"),
            "expression": replace(TINY.expression, pretrained=False),
        },
    }[variant]
    model, (source, beta, camera) = _model(replace(TINY, **changes)), _inputs()
    render = model(source, beta, camera)
    assert render.image is not None
    loss = (render.image * torch.randn_like(render.image)).sum() + (render.raw * torch.randn_like(render.raw)).sum()
    loss.backward()
    assert _without_gradient(model) == []
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({"expression"} if variant == "pretrained" else set())


# ----- the paper's sizes --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 25 seconds on an idle core, minutes on a busy machine
def test_the_paper_preset_runs_forward_and_backward_with_the_papers_shapes() -> None:
    model = Export3D(PAPER)
    for parameter in model.parameters():  # those that start at zero would hide gradients of what lies before them
        if not parameter.any():
            parameter.data.normal_(std=0.02)
    source, camera = torch.rand(1, 3, 256, 256) * 2 - 1, Camera.look_at_head(0.2)
    tokens = model.encode(source)
    assert tokens.shape == (1, 256, 1024)  # h = 1024 dims, H W / 2^8 = 256 tokens
    beta = torch.randn(1, 64)
    assert model.expression(beta).shape == (1, 256)  # d = h / 4
    planes = model.planes(tokens, beta)
    assert planes.shape == (1, 3, 32, 128, 128)  # 3 x 32 x H/2 x W/2
    with torch.no_grad():
        render = model.render(planes, camera)
    assert render.raw.shape == (1, 3, 64, 64)  # 3 x H/4 x W/4
    assert render.image is not None and render.image.shape == (1, 3, 256, 256)
    assert torch.isfinite(render.image).all() and render.image.abs().max() < 10
    window = model.render(planes, camera, window=(torch.tensor([24]), torch.tensor([24]), 16))
    assert window.image is not None and window.image.shape == (1, 3, 64, 64)
    (window.image.square().mean() + window.raw.square().mean()).backward()
    assert _without_gradient(model) == []
