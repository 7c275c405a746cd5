"""rendering/renderer.py: marching through analytic fields, and against a slow float64 loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.rendering.compositing import interval_weights
from export3d.rendering.rays import cast_rays
from export3d.rendering.renderer import RendererConfig, render_rays
from export3d.rendering.sampling import importance_depths, stratified_depths


class AnalyticField:
    """A scene given by two functions of world points: raw density and colour."""

    def __init__(self, density: Callable[[Tensor], Tensor], colour: Callable[[Tensor], Tensor]) -> None:
        self.density_at, self.colour_at = density, colour

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.density_at(points), points

    def colour(self, state: Tensor) -> Tensor:
        return self.colour_at(state)


def _ball(points: Tensor, radius: float = 0.2) -> Tensor:
    return 60.0 * (radius - points.norm(dim=-1)) / radius


def _stripes(points: Tensor) -> Tensor:
    return torch.sigmoid(6 * points)


SCENE = AnalyticField(_ball, _stripes)
CONFIG = RendererConfig(raw_size=6, num_coarse=12, num_fine=10)


def _rays(size: int = 6) -> tuple[Tensor, Tensor]:
    return cast_rays(Camera.look_at_head(torch.tensor([0.0, 0.3]), 0.1), size)


def raw_for(sigma: float) -> float:
    """The raw density whose softplus(raw - 1) is sigma."""
    return math.log(math.expm1(sigma)) + 1.0


@pytest.mark.parametrize("sigma", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("both", [True, False], ids=["coarse_and_fine", "fine_only"])
def test_constant_density_has_the_exact_transmittance(sigma: float, both: bool) -> None:
    field = AnalyticField(lambda x: torch.full(x.shape[:2], raw_for(sigma)), lambda x: torch.ones(*x.shape[:2], 3))
    config = RendererConfig(num_coarse=48, num_fine=48, composite_coarse=both, importance_floor=1e6)
    result = render_rays(field, *_rays(), config)
    # Coarse depths run from 2.25 + step / 2 to 3.3 + step / 2, step = 1.05 / 47: length L = 1.05.
    # Fine-only (the large floor makes them even): from quantile 0.5 / 48 to 47.5 / 48 of the N - 3 = 45 inner bins.
    length = 1.05 if both else 45 * 1.05 / 47 * (1 - 1 / 48)
    assert torch.allclose(result.opacity, torch.full((2, 36), 1 - math.exp(-sigma * length)), atol=1e-5)
    assert torch.allclose(result.features, result.opacity[..., None].expand(2, 36, 3), atol=1e-5)


def test_density_gain_multiplies_the_density() -> None:
    field = AnalyticField(lambda x: torch.full(x.shape[:2], raw_for(0.5)), lambda x: torch.ones(*x.shape[:2], 1))
    result = render_rays(field, *_rays(), RendererConfig(density_gain=3.0))
    assert torch.allclose(result.opacity, torch.full((2, 36), 1 - math.exp(-1.5 * 1.05)), atol=1e-5)


def test_an_empty_ray_is_black_and_fully_transparent() -> None:
    field = AnalyticField(lambda x: torch.full(x.shape[:2], -80.0), _stripes)
    result = render_rays(field, *_rays(), CONFIG)
    assert result.opacity.max() < 1e-20 and result.features.abs().max() < 1e-20
    assert torch.isfinite(result.depth).all()


def test_the_depth_of_a_wall_is_the_distance_along_each_ray() -> None:
    """An opaque wall at z = 0 seen from z = 2.7: a ray with cosine c to the axis meets it at 2.7 / c."""
    wall = AnalyticField(lambda x: -4e4 * x[..., 2], _stripes)
    origins, directions = cast_rays(Camera.look_at_head(), 6)
    result = render_rays(wall, origins, directions, RendererConfig(num_coarse=96, num_fine=96))
    expected = 2.7 / -directions[0, :, 2]
    assert torch.allclose(result.depth[0], expected, atol=1.05 / 95)
    assert (result.depth[0].argmax() == expected.argmax()) and torch.allclose(
        result.opacity, torch.ones_like(result.opacity), atol=1e-4
    )


def test_features_are_premultiplied_and_opacity_never_exceeds_one() -> None:
    field = AnalyticField(_ball, lambda x: torch.ones(*x.shape[:2], 2))
    result = render_rays(field, *_rays(), CONFIG)
    assert torch.allclose(result.features, result.opacity[..., None].expand_as(result.features), atol=1e-6)
    assert (result.opacity <= 1 + 1e-6).all() and (result.opacity >= 0).all()


def slow_render(
    field: AnalyticField, origins: Tensor, directions: Tensor, config: RendererConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Float64, one ray and one sample at a time: colour, depth and opacity of EG3D's midpoint marching."""
    batch, rays, _ = origins.shape
    origins, directions = origins.double(), directions.double()
    colours, depths_out, opacities = [], [], []

    def sigma_between(first: Tensor, second: Tensor) -> float:
        middle = (field.density_at(first[None, None]) + field.density_at(second[None, None]))[0, 0] / 2
        return float(config.density_gain * F.softplus(middle + config.density_shift))

    for b in range(batch):
        for r in range(rays):
            step = (config.far - config.near) / (config.num_coarse - 1)
            coarse = [config.near + step * (i + 0.5) for i in range(config.num_coarse)]

            def at(t: float, b: int = b, r: int = r) -> Tensor:
                return origins[b, r] + t * directions[b, r]

            transmittance, coarse_weights = 1.0, []
            for t0, t1 in pairwise(coarse):
                alpha = 1 - math.exp(-sigma_between(at(t0), at(t1)) * (t1 - t0))
                coarse_weights.append(transmittance * alpha)
                transmittance *= 1 - alpha
            fine = importance_depths(
                torch.tensor(coarse, dtype=torch.float64)[None, None],
                torch.tensor(coarse_weights, dtype=torch.float64)[None, None],
                config.num_fine,
                config.importance_floor,
                None,
            )[0, 0].tolist()
            samples = sorted(coarse + fine) if config.composite_coarse else sorted(fine)
            transmittance, colour, depth, opacity = 1.0, 0.0, 0.0, 0.0
            for t0, t1 in pairwise(samples):
                alpha = 1 - math.exp(-sigma_between(at(t0), at(t1)) * (t1 - t0))
                weight = transmittance * alpha
                colour = colour + weight * (field.colour_at(at(t0)) + field.colour_at(at(t1))) / 2
                depth += weight * (t0 + t1) / 2
                opacity += weight
                transmittance *= 1 - alpha
            colours.append(colour)
            depths_out.append(min(max(depth / max(opacity, 1e-6), samples[0]), samples[-1]))
            opacities.append(opacity)
    shape = (batch, rays)
    return (
        torch.stack(colours).reshape(*shape, -1),  # type: ignore[arg-type]
        torch.tensor(depths_out, dtype=torch.float64).reshape(shape),
        torch.tensor(opacities, dtype=torch.float64).reshape(shape),
    )


@pytest.mark.parametrize("both", [True, False], ids=["coarse_and_fine", "fine_only"])
def test_the_renderer_equals_a_slow_float64_loop(both: bool) -> None:
    config = RendererConfig(num_coarse=12, num_fine=10, composite_coarse=both)
    origins, directions = _rays(4)
    result = render_rays(SCENE, origins, directions, config)
    features, depth, opacity = slow_render(SCENE, origins, directions, config)
    assert torch.allclose(result.features.double(), features, atol=1e-5)
    assert torch.allclose(result.opacity.double(), opacity, atol=1e-5)
    seen = opacity > 0.01  # the mean depth of almost nothing is ill-conditioned
    assert seen.sum() >= 8
    assert torch.allclose(result.depth.double()[seen], depth[seen], atol=1e-4)


def test_weights_of_the_marching_sum_to_one_minus_the_final_transmittance() -> None:
    """The coarse part alone, recomputed here: opacity = 1 - exp(-sum sigma delta)."""
    origins, directions = _rays()
    depths = stratified_depths(torch.full((2,), 2.25), torch.full((2,), 3.3), 36, 12, None)
    points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
    density = _ball(points)
    sigma = F.softplus((density[..., 1:] + density[..., :-1]) / 2 - 1)
    weights = interval_weights(sigma, depths.diff(dim=-1))
    expected = 1 - torch.exp(-(sigma * depths.diff(dim=-1)).sum(dim=-1))
    assert torch.allclose(weights.sum(dim=-1), expected, atol=1e-5)


def test_rendering_twice_is_bit_equal_without_jitter_and_not_with_it() -> None:
    first, second = (render_rays(SCENE, *_rays(), CONFIG) for _ in range(2))
    assert torch.equal(first.features, second.features) and torch.equal(first.depth, second.depth)
    generator = torch.Generator().manual_seed(0)
    jittered = [render_rays(SCENE, *_rays(), CONFIG, generator).features for _ in range(2)]
    assert not torch.equal(jittered[0], jittered[1])


def test_jitter_is_unbiased_to_first_order() -> None:
    generator = torch.Generator().manual_seed(0)
    config = RendererConfig(num_coarse=48, num_fine=48)
    still = render_rays(SCENE, *_rays(), config).opacity
    mean = torch.stack([render_rays(SCENE, *_rays(), config, generator).opacity for _ in range(16)]).mean(dim=0)
    assert (mean - still).abs().max() < 0.02


def test_rays_do_not_depend_on_their_neighbours() -> None:
    origins, directions = _rays()
    whole = render_rays(SCENE, origins, directions, CONFIG).features
    part = render_rays(SCENE, origins[:, 7:12], directions[:, 7:12], CONFIG).features
    assert torch.allclose(part, whole[:, 7:12], atol=1e-6)


def test_gradients_of_density_and_colour_are_those_of_finite_differences() -> None:
    """With respect to the ball's hardness and a colour, in float64; the sampling depths carry no gradient."""
    origins, directions = (x[:1, :9].double() for x in _rays(3))
    hardness = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    tint = torch.tensor([0.2, 0.5], dtype=torch.float64, requires_grad=True)
    # A floor this large makes the importance depths almost independent of the density.
    config = RendererConfig(num_coarse=8, num_fine=4, importance_floor=1e9)

    def render(hardness: Tensor, tint: Tensor) -> Tensor:
        field = AnalyticField(lambda x: hardness * (0.2 - x.norm(dim=-1)), lambda x: tint * torch.ones_like(x[..., :2]))
        return render_rays(field, origins, directions, config).features

    assert torch.autograd.gradcheck(render, (hardness, tint), eps=1e-5, atol=1e-4)


def test_fine_only_keeps_the_coarse_pass_out_of_the_graph() -> None:
    calls: list[bool] = []

    def density(points: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return _ball(points)

    config = RendererConfig(num_coarse=8, num_fine=4, composite_coarse=False)
    render_rays(AnalyticField(density, _stripes), *_rays(), config)
    assert calls == [False, True]


def test_depths_around_the_origin_follow_the_camera() -> None:
    """A camera twice as far sees the same ball at the same place when near and far are measured from the origin."""
    config = RendererConfig(depth_range="around_origin", near=0.45, far=0.6)
    near, far = (render_rays(SCENE, *cast_rays(Camera.look_at_head(radius=radius), 5), config) for radius in (2.7, 5.4))
    assert near.opacity[0, 12] > 0.99  # the middle ray
    assert far.depth[0, 12].item() - near.depth[0, 12].item() == pytest.approx(2.7, abs=1e-4)
    assert torch.allclose(far.features[0, 12], near.features[0, 12], atol=1e-4)


def test_bad_settings_name_the_option() -> None:
    with pytest.raises(UsageError, match=r"renderer\.depth_range: 'fix' is not known\. Did you mean 'fixed'\?"):
        RendererConfig(depth_range="fix")
    with pytest.raises(ValueError, match="num_coarse >= 4 and num_fine >= 2; got 3, 2"):
        RendererConfig(num_coarse=3, num_fine=2)
