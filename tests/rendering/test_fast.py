"""rendering/fast.py: the fast renderer against the exact one on analytic scenes, and what it may not lose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.rendering.fast import FastConfig, make_lattice, render_square
from export3d.rendering.rays import cast_rays
from export3d.rendering.renderer import RayResult, RendererConfig, render_rays

NOTHING_LEFT_OUT = FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=0.0)
CONFIG = RendererConfig(num_coarse=16, num_fine=20, composite_coarse=False)
SIDE = 20


class Scene:
    """A raw density and a colour as functions of world points, for both renderers."""

    channels = 3

    def __init__(self, density: Callable[[Tensor], Tensor]) -> None:
        self.density_at, self.asked = density, 0

    def exact(self, origins: Tensor, directions: Tensor, config: RendererConfig) -> RayResult:
        scene = self

        class Field:
            def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
                return scene.density_at(points), points

            def colour(self, state: Tensor) -> Tensor:
                return torch.sigmoid(6 * state)

        return render_rays(Field(), origins, directions, config)

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += points.shape[1]
        return self.density_at(points.t()), points.t()

    def colour(self, state: Tensor, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        colours = torch.sigmoid(6 * state[chosen]) * shares[:, None]
        ray = torch.searchsorted(starts, torch.arange(len(chosen)), right=True) - 1
        return torch.zeros(len(starts), 3).index_add(0, ray, colours)


def _ball(points: Tensor) -> Tensor:
    return 300.0 * (0.2 - points.norm(dim=-1))


def _empty(points: Tensor) -> Tensor:
    return torch.full(points.shape[:-1], -80.0)


def _rays(side: int = SIDE) -> tuple[Tensor, Tensor]:
    return cast_rays(Camera.look_at_head(0.3, 0.1), side)


@pytest.mark.parametrize("both", [True, False], ids=["coarse_and_fine", "fine_only"])
@pytest.mark.parametrize("density", [_ball, _empty, lambda x: 3 * x[..., 0]], ids=["ball", "empty", "fog"])
def test_with_nothing_left_out_it_equals_the_exact_renderer(both: bool, density: Callable[[Tensor], Tensor]) -> None:
    scene, config = Scene(density), replace(CONFIG, composite_coarse=both)
    exact, fast = scene.exact(*_rays(), config), render_square(scene, *_rays(), config, NOTHING_LEFT_OUT)
    for name in ("features", "opacity", "depth"):
        assert getattr(fast, name).shape == getattr(exact, name).shape
    assert torch.allclose(fast.features, exact.features, atol=1e-5)
    assert torch.allclose(fast.opacity, exact.opacity, atol=1e-5)
    met = exact.opacity > 1e-3  # the mean depth of almost nothing is ill-conditioned
    assert torch.allclose(fast.depth[met], exact.depth[met], atol=1e-4)


@pytest.mark.parametrize("rays_per_coarse", [1, 5])
def test_a_ball_looks_the_same_with_far_fewer_samples(rays_per_coarse: int) -> None:
    scene, side = Scene(_ball), 40
    exact = scene.exact(*_rays(side), CONFIG)
    fast = render_square(scene, *_rays(side), CONFIG, FastConfig(rays_per_coarse=rays_per_coarse))
    error = (fast.features - exact.features).square().mean().sqrt()
    assert error < 0.01 and (exact.opacity > 0.9).float().mean() > 0.15
    assert scene.asked < 0.65 * side * side * (16 + 20)
    inside = exact.opacity > 0.9
    assert (fast.depth - exact.depth)[inside].abs().max() < 0.02


def test_an_empty_scene_gives_exactly_nothing_and_asks_only_the_lattice() -> None:
    scene = Scene(_empty)
    result = render_square(scene, *_rays(), CONFIG, FastConfig())
    assert not result.features.any() and not result.opacity.any() and torch.isfinite(result.depth).all()
    assert result.features.shape == (1, SIDE * SIDE, 3)
    assert scene.asked == len(make_lattice(SIDE, 5).rays) * 16


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("axis", ["row", "column", "diagonal", "other diagonal"])
def test_a_bar_of_one_rays_width_is_not_lost_wherever_it_is(place: int, axis: str) -> None:
    """The bar is in front of exactly one row, column or diagonal of rays: parallel rays, one unit apart."""
    side = 15
    rows, columns = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    origins = torch.stack([columns.flatten(), rows.flatten(), torch.zeros(side * side)], dim=-1)[None]
    directions = torch.tensor([0.0, 0.0, 1.0]).expand_as(origins)

    def across(points: Tensor) -> Tensor:
        x, y = points[..., 0], points[..., 1]
        return {"row": y, "column": x, "diagonal": x - y, "other diagonal": x + y - 6}[axis] - place

    # 0.15 thick: 2 to 3 coarse samples
    bar = Scene(lambda p: torch.where((across(p).abs() < 0.5) & ((p[..., 2] - 2.7).abs() < 0.08), 300.0, -80.0))
    exact = bar.exact(origins, directions, CONFIG)
    fast = render_square(bar, origins, directions, CONFIG, FastConfig())
    hit = across(origins[0]).abs() < 0.5
    assert hit.sum() >= 5 and (exact.opacity[0, hit] > 0.99).all()
    assert (fast.opacity[0, hit] > 0.99).all()
    assert (fast.opacity[0, ~hit] < 1e-6).all()


@pytest.mark.parametrize("rays_per_coarse", [1, 5])
@pytest.mark.parametrize("side", [3, 8, 15, 64])
def test_every_ray_has_neighbours_of_the_lattice_and_weights_that_sum_to_one(side: int, rays_per_coarse: int) -> None:
    lattice = make_lattice(side, rays_per_coarse)
    reach = {1: 0, 5: 2}[rays_per_coarse]
    assert torch.allclose(lattice.weights.sum(dim=1), torch.ones(side * side))
    for ray in range(side * side):
        for place in lattice.neighbours[:, ray].tolist():
            other = int(lattice.rays[place])
            assert abs(other // side - ray // side) <= reach and abs(other % side - ray % side) <= reach
    on = torch.zeros(side * side, dtype=torch.bool)
    on[lattice.rays] = True
    on = on.reshape(side, side)
    assert on[[0, -1]].all() and on[:, [0, -1]].all()  # the rays at the picture's edge all have one
    if side >= 5:
        assert on.any(dim=0).all() and on.any(dim=1).all()  # no row and no column slips through


def test_the_mean_over_the_lattice_is_a_tent_computed_by_hand() -> None:
    """Ray (4, 4) of a side of 9. Within 2 rays lie those with column = 2 row mod 5: (2, 4), (3, 6), (4, 3), (5, 5), (6, 2).

    Their tents (3 - rows away) (3 - columns away) are 1 * 3, 2 * 1, 3 * 2, 2 * 2, 1 * 1; the sum is 16.
    """
    lattice = make_lattice(9, 5)
    ray = 4 * 9 + 4
    pairs = zip(lattice.neighbours[:, ray].tolist(), lattice.weights[ray].tolist(), strict=True)
    found = {divmod(int(lattice.rays[place]), 9): 16 * weight for place, weight in pairs if weight}
    assert found == pytest.approx({(2, 4): 3, (3, 6): 2, (4, 3): 6, (5, 5): 4, (6, 2): 1})


def test_dropped_samples_are_stood_for_by_the_others() -> None:
    """Where all colours are 1 the features are the opacity, however many samples get no colour."""

    class White(Scene):
        channels = 1

        def colour(self, state: Tensor, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
            return F.embedding_bag(torch.arange(len(chosen)), shares[:, None], starts, mode="sum")

    for least in (0.0, 0.05, 2.0):  # 2: one sample is left of each ray
        result = render_square(White(lambda x: 3 * x[..., 0]), *_rays(), CONFIG, FastConfig(least_share=least))
        assert torch.allclose(result.features[..., 0], result.opacity, atol=1e-5)


def test_a_faint_ray_has_fewer_samples_and_almost_the_same_opacity() -> None:
    fog = Scene(lambda x: -3.0 + x[..., 1])  # 1.05 long, sigma about 0.018: opacity about 0.02
    exact = fog.exact(*_rays(), CONFIG)
    fast = render_square(fog, *_rays(), CONFIG, FastConfig())
    assert fog.asked == len(make_lattice(SIDE, 5).rays) * 16 + 400 * 8
    assert 0.01 < exact.opacity.mean() < 0.1
    assert (fast.opacity - exact.opacity).abs().max() < 0.15 * exact.opacity.max()


def test_bad_settings_and_rays_that_are_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fast\.rays_per_coarse must be 1 or 5; got 4"):
        FastConfig(rays_per_coarse=4)
    with pytest.raises(ValueError, match=r"fast\.fine_share must be above 0 and at most 1; got 0"):
        FastConfig(fine_share=0)
    with pytest.raises(ValueError, match=r"fast\.faint_samples must be at least 2; got 1"):
        FastConfig(faint_samples=1)
    origins, directions = _rays(4)
    with pytest.raises(ValueError, match=r"rays must be \(1, side \* side, 3\); got \(1, 15, 3\)"):
        render_square(Scene(_ball), origins[:, :15], directions[:, :15], CONFIG, FastConfig())
    with pytest.raises(ValueError, match=r"got \(2, 16, 3\)"):
        render_square(Scene(_ball), origins.expand(2, -1, -1), directions.expand(2, -1, -1), CONFIG, FastConfig())
