"""model/fast_field.py and `render(fast=...)`: the folded first layer gives what planes and decoder give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from export3d.camera import Camera
from export3d.model.background import BackgroundConfig
from export3d.model.config import SMALL, TINY, ModelConfig
from export3d.model.decoder import DecoderConfig
from export3d.model.export3d import Export3D
from export3d.model.fast_field import FoldedField, _softplus_
from export3d.model.pixel_aligned import PixelAlignedConfig
from export3d.model.triplane import sample_planes
from export3d.rendering.fast import FastConfig

NOTHING_LEFT_OUT = FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=0.0)
SMALL_RAYS = replace(SMALL, renderer=replace(SMALL.renderer, raw_size=64))
TWO_NETWORKS = replace(TINY, decoder=replace(TINY.decoder, shared_first_layer=False))


def _model(config: ModelConfig) -> Export3D:
    """Every weight random, also those that start at zero (the guide, the motion, the mean planes)."""
    torch.manual_seed(0)
    model = Export3D(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.mean_planes.mean.normal_(std=0.3)
    return model


def test_the_soft_plus_of_the_fast_field_is_that_of_the_exact_one_also_where_the_exponential_overflows() -> None:
    for reach in (1.0, 20.0, 200.0):
        x = torch.linspace(-reach, reach, 2001)
        assert torch.allclose(_softplus_(x.clone()), F.softplus(x), atol=2e-7, rtol=1e-6)
    assert _softplus_(torch.empty(0)).shape == (0,)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shared", [True, False], ids=["one_layer", "two_networks"])
def test_densities_and_colours_are_those_of_planes_and_decoder_also_outside_the_box(padding: str, shared: bool) -> None:
    decoder_config = DecoderConfig(hidden=16, colour_channels=8, shared_first_layer=shared)
    config = replace(TINY, triplane=replace(TINY.triplane, padding=padding), decoder=decoder_config)
    model = _model(config)
    planes, points = torch.randn(1, 3, 8, 16, 16), 0.6 * torch.randn(1, 500, 3)  # the box reaches to 0.5
    assert 0.2 < (points.abs() > 0.5).any(dim=-1).float().mean() < 0.9
    density, state = model.decoder.density(sample_planes(planes, points, config.triplane))
    field = FoldedField(planes, model.decoder, config.triplane, None)
    folded, samples = field.density(points[0].t().contiguous())
    assert torch.allclose(folded, density[0], atol=1e-5)
    # Two rays of two and no samples, and one of one.
    chosen, shares = torch.tensor([3, 40, 7]), torch.tensor([0.5, 0.2, 1.0])
    colours = model.decoder.colour(state)[0]
    met = field.colour(samples, chosen, shares, torch.tensor([0, 2, 2]))
    expected = torch.stack([0.5 * colours[3] + 0.2 * colours[40], torch.zeros(8), colours[7]])
    assert torch.allclose(met, expected, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, TWO_NETWORKS, SMALL_RAYS], ids=["tiny", "two_networks", "small"])
def test_with_nothing_left_out_the_picture_is_the_exact_one(config: ModelConfig) -> None:
    model, size = _model(config), config.image_size
    source, beta, camera = torch.rand(1, 3, size, size) * 2 - 1, torch.randn(1, 64), Camera.look_at_head(0.3, 0.1)
    with torch.inference_mode():
        code = model.encode(source, Camera.look_at_head(), source_beta=beta)
        planes = model.planes(code, beta + 1)
        exact, fast = model.render(planes, camera, code), model.render(planes, camera, code, fast=NOTHING_LEFT_OUT)
        loose = model.render(planes, camera, code, fast=FastConfig())
        raw = model.render(planes, camera, code, raw_size=12, fast=FastConfig()).raw
    assert exact.image is not None and fast.image is not None and loose.image is not None
    assert torch.allclose(fast.raw, exact.raw, atol=1e-5) and torch.allclose(fast.opacity, exact.opacity, atol=1e-5)
    # Distances to the depth map are steep, so single pixels may differ more than the rest.
    assert torch.allclose(fast.image, exact.image, atol=1e-3)
    assert (fast.image - exact.image).square().mean().sqrt() < 1e-4
    met = exact.opacity > 1e-3
    assert torch.allclose(fast.depth[met], exact.depth[met], atol=1e-4)
    for name in ("image", "raw", "depth", "opacity"):
        assert getattr(loose, name).shape == getattr(exact, name).shape
    assert not torch.equal(loose.raw, exact.raw)  # or the fast path was not taken
    assert (loose.raw - exact.raw).square().mean().sqrt() < 0.05
    assert raw.shape == (1, 3, 12, 12)


def test_rays_that_meet_nothing_show_exactly_the_background() -> None:
    decoder = replace(TINY.decoder, density_bias=-60.0)
    config = replace(TINY, background=BackgroundConfig(mode="apart"), decoder=decoder)
    model, source = Export3D(config).eval(), torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        code = model.encode(source, Camera.look_at_head(), source_mask=torch.zeros(1, 1, 32, 32))
        planes = torch.zeros(1, 3, 8, 16, 16)
        render = model.render(planes, Camera.look_at_head(0.2), code, fast=FastConfig())
    assert not render.opacity.any() and torch.isfinite(render.depth).all()
    assert torch.allclose(render.raw, torch.nn.functional.avg_pool2d(source, 4), atol=1e-6)
    assert render.image is not None and torch.allclose(render.image, source, atol=1e-5)


def test_the_fast_path_refuses_what_it_cannot_do() -> None:
    model = _model(TINY)
    aligned = _model(replace(TINY, pixel_aligned=PixelAlignedConfig(enabled=True, channels=3, width=8)))
    assert model.can_be_fast and not aligned.can_be_fast
    source, camera, fast = torch.zeros(1, 3, 32, 32), Camera.look_at_head(), FastConfig()
    planes, zero = torch.zeros(1, 3, 8, 16, 16), torch.tensor([0])
    with torch.inference_mode():
        code, other = model.encode(source, camera), aligned.encode(source, camera)
        with pytest.raises(ValueError, match="without jitter"):
            model.render(planes, camera, code, fast=fast, jitter=torch.Generator())
        with pytest.raises(ValueError, match="for whole pictures"):
            model.render(planes, camera, code, fast=fast, window=(zero, zero, 4))
        with pytest.raises(ValueError, match="without the pixel-aligned branch"):
            aligned.render(planes, camera, other, fast=fast)
    with pytest.raises(ValueError, match="without gradients"):
        model.render(planes, camera, code, fast=fast)
