"""rendering/fused: the compiled renderer against a float64 reference written here, and where it may not or cannot run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.rendering.compositing import interval_weights, midpoints, sample_shares
from export3d.rendering.fast import FastConfig, render_square
from export3d.rendering.fused import EVERYTHING, FusedDepth, FusedJoint, FusedScene, binding, fused_status, render_fused
from export3d.rendering.rays import cast_rays
from export3d.rendering.renderer import RayResult, RendererConfig
from export3d.rendering.sampling import importance_depths, stratified_depths

RUNS, REASON = fused_status()
needs_kernel = pytest.mark.skipif(not RUNS, reason=f"the fused renderer does not run here: {REASON}")

MARGIN = 0.001
EVERY_COLOUR = replace(EVERYTHING, least_share=0.0)
BOTH = RendererConfig(num_coarse=13, num_fine=11, density_gain=20.0)  # EG3D composites both
FINE = replace(BOTH, composite_coarse=False)


def _kernels() -> Iterator[str]:
    """The versions of the kernel that this processor runs."""
    if RUNS:
        found = binding.library()
        yield from (name for name in ("plain", "avx2", "avx512") if found.export3d_fused_kernel(name.encode()))


def _layer(outs: int, ins: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.randn(outs, ins) * scale * ins**-0.5, 0.3 * torch.randn(outs)


def _centred(hidden: int) -> Tensor:
    """Weights ``(1, hidden)`` that sum to 0, so that densities lie around the bias."""
    weight = 4.0 * hidden**-0.5 * torch.randn(1, hidden)
    return weight - weight.mean()


def _scene(hidden: int = 16, channels: int = 6, size: int = 12, colours: int = 5, **more: Any) -> FusedScene:
    """A random field without guide, some of it dense; `motion` in `more` counts further channels of the planes."""
    planes = torch.randn(3, channels + more.pop("motion", 0), size, size)
    parts: dict[str, Any] = dict(
        **dict(planes=planes, box_side=0.9, zeros_outside=True, first=_layer(hidden, channels, 2.0)),
        **dict(
            to_density=(_centred(hidden), torch.tensor([-1.0])),
            to_colour=_layer(colours, hidden, 3.0),
            colour_margin=MARGIN,
        ),
    )
    return FusedScene(**(parts | more))


def _portrait(hidden: int = 40, size: int = 10) -> FusedScene:
    """Everything that the portrait model has."""
    pose = FusedJoint(extra=0.2 * torch.randn(3, 3), pivot=(0.0, -0.1, -0.1), top=-0.05, bottom=-0.3)
    depth = FusedDepth(
        maps=0.1 * torch.randn(8, 9, 11),
        to_hidden=0.4 * torch.randn(hidden, 12),
        **dict(camera=Camera.look_at_head(0.2, 0.1), pose=replace(pose, extra=0.1 * torch.randn(3, 3))),
    )
    guide, planes = _layer(5, hidden), torch.randn(3, 16 + 3, size, size)
    scene = _scene(hidden, 16, size, 24, zeros_outside=False, guide=guide, offset_scale=0.08, unpose=pose, depth=depth)
    return replace(scene, planes=planes)


def _rays(count: int, yaw: float = 0.3) -> tuple[Tensor, Tensor]:
    """The first rays of a square picture; some pass beside the box."""
    origins, directions = cast_rays(Camera.look_at_head(yaw, 0.1), math.ceil(math.sqrt(max(count, 1))))
    return origins[:, :count], directions[:, :count]


@dataclass
class Reference:
    """The field in float64, point by point as the formulas stand; PyTorch's own lookups and soft-plus."""

    scene: FusedScene

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(P, 3)`` -> raw density (P,), colours and guide (P, C)."""
        scene, points = self.scene, points.double()
        points = _turned(points, scene.unpose)
        read, channels = self.planes_at(points), scene.first[0].shape[1]
        moved = points + scene.offset_scale * read[:, channels:] if read.shape[1] > channels else points
        more = 0.0 if scene.depth is None else self.clues(moved, scene.depth)
        hidden = F.softplus(_linear(scene.first, read[:, :channels]) + more)
        density = _linear(scene.to_density, hidden)[:, 0]
        if scene.first_colour is not None:
            hidden = F.softplus(_linear(scene.first_colour, read[:, :channels]) + more)
        colours = torch.sigmoid(_linear(scene.to_colour, hidden)) * (1 + 2 * MARGIN) - MARGIN
        if scene.guide is None:
            return density, colours
        guide = _linear(scene.guide, hidden)
        place = moved + scene.offset_scale * torch.tanh(guide[:, :3])
        return density, torch.cat([colours, place, torch.sigmoid(guide[:, 3:])], dim=1)

    def planes_at(self, points: Tensor) -> Tensor:
        x, y, z = (points * (2.0 / self.scene.box_side)).unbind(-1)
        padding = "zeros" if self.scene.zeros_outside else "border"
        read = 0.0
        for plane, grid in zip(self.scene.planes.double(), ((x, -y), (z, -y), (x, z)), strict=True):
            places = torch.stack(grid, dim=-1)[None, None]
            read = read + F.grid_sample(plane[None], places, padding_mode=padding, align_corners=False)[0, :, 0].t() / 3
        assert isinstance(read, Tensor)
        return read

    def clues(self, moved: Tensor, depth: FusedDepth) -> Tensor:
        own, other = (_turned(moved * moved.new_tensor([s, 1.0, 1.0]), depth.pose) for s in (1.0, -1.0))
        read = torch.cat([_distances(own, depth), _distances(other, depth)[:, :3]], dim=1)
        return read @ depth.to_hidden.double().t()

    def render(self, origins: Tensor, directions: Tensor, config: RendererConfig) -> RayResult:
        """EG3D's midpoint marching of all samples."""
        origins, directions = origins[0].double(), directions[0].double()
        rays, ends = len(origins), torch.tensor([config.near, config.far], dtype=torch.float64)
        coarse = stratified_depths(ends[:1], ends[1:], rays, config.num_coarse, None)[0]

        def march(depths: Tensor) -> tuple[Tensor, Tensor]:
            density, colour = self.at((origins[:, None] + depths[..., None] * directions[:, None]).flatten(0, 1))
            sigma = config.density_gain * F.softplus(midpoints(density.reshape(depths.shape)) + config.density_shift)
            return interval_weights(sigma, depths.diff(dim=1)), colour.reshape(*depths.shape, -1)

        weights, _ = march(coarse)
        depths = importance_depths(coarse[None], weights[None], config.num_fine, config.importance_floor, None)[0]
        if config.composite_coarse:
            depths = torch.cat([coarse, depths], dim=1).sort(dim=1).values
        weights, colours = march(depths)
        opacity = weights.sum(dim=1)
        depth = (weights * midpoints(depths)).sum(dim=1) / opacity.clamp_min(1e-6)
        depth = torch.minimum(torch.maximum(depth, depths[:, 0]), depths[:, -1])
        return RayResult((sample_shares(weights)[..., None] * colours).sum(dim=1)[None], depth[None], opacity[None])

    # What the fast renderer asks of a field.

    @property
    def channels(self) -> int:
        return self.scene.to_colour[0].shape[0] + (0 if self.scene.guide is None else 5)

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        density, colours = self.at(points.t())
        return density.float(), colours.float()

    def colour(self, state: Tensor, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        places = torch.arange(len(chosen))
        return F.embedding_bag(places, state[chosen], starts, mode="sum", per_sample_weights=shares)


def _linear(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    return F.linear(x, layer[0].double(), layer[1].double())


def _turned(points: Tensor, joint: FusedJoint | None) -> Tensor:
    if joint is None:
        return points
    low = ((points[:, 1:2] - joint.top) / (joint.bottom - joint.top)).clamp(0.0, 1.0)
    return points + low**2 * (3 - 2 * low) * ((points - points.new_tensor(joint.pivot)) @ joint.extra.double())


def _distances(points: Tensor, depth: FusedDepth) -> Tensor:
    camera = Camera(depth.camera.cam_to_world.double(), depth.camera.intrinsics.double())
    position, _ = camera.project(points[None])
    read = F.grid_sample(
        depth.maps.double()[None], position[:, None] * 2 - 1, padding_mode="border", align_corners=False
    )[0, :, 0].t()
    centre = camera.cam_to_world[0, :3, 3]
    behind = (points - centre).norm(dim=1) - centre.norm() - read[:, 0]
    return torch.cat([torch.tanh(behind[:, None] / behind.new_tensor([0.012, 0.05])), read[:, 1:]], dim=1)


def _assert_close(found: RayResult, expected: RayResult, atol: float = 1e-4) -> None:
    for name in ("features", "opacity"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a.shape == b.shape and (a - b).abs().amax() < atol if a.numel() else a.shape == b.shape
    met = expected.opacity > 1e-2  # the mean depth of almost nothing is ill-conditioned
    assert torch.allclose(found.depth[met].double(), expected.depth[met].double(), atol=1e-3)


SCENES = {
    "paper_width": lambda: _scene(64, 32, 16, 32),
    "odd_sizes": lambda: _scene(13, 5, 7, 3),
    "two_networks": lambda: _scene(24, first_colour=_layer(24, 6, 2.0)),
    "border": lambda: _scene(16, zeros_outside=False),
    "many_outputs": lambda: _scene(20, colours=37),
    "portrait": _portrait,
    "portrait_two_networks": lambda: replace(_portrait(21), first_colour=_layer(21, 16, 2.0)),
}


@needs_kernel
@pytest.mark.parametrize("config", [BOTH, FINE], ids=["coarse_and_fine", "fine_only"])
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("kernel", list(_kernels()))
def test_every_version_gives_what_the_float64_reference_gives(
    kernel: str, name: str, config: RendererConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    torch.manual_seed(sum(map(ord, name)))
    scene, rays = SCENES[name](), _rays(64)
    expected = Reference(scene).render(*rays, config)
    assert expected.opacity.std() > 0.02  # neither all empty nor all solid
    _assert_close(render_fused(scene, *rays, config, fast=EVERY_COLOUR), expected)
    _assert_close(render_fused(scene, *rays, config), expected, atol=1e-3)


@needs_kernel
@pytest.mark.parametrize("count", [0, 1, 2, 35, 36, 100, 257])
def test_any_number_of_rays_is_rendered_also_none(count: int) -> None:
    torch.manual_seed(1)
    scene, rays = _scene(), _rays(count)
    found = render_fused(scene, *rays, BOTH, fast=EVERY_COLOUR)
    assert found.features.shape == (1, count, 5)
    if count:
        _assert_close(found, Reference(scene).render(*rays, BOTH))


@needs_kernel
@pytest.mark.parametrize(
    "fast",
    [
        FastConfig(),
        FastConfig(rays_per_coarse=1, faint_samples=3, faint_opacity=0.5),
        FastConfig(empty_opacity=0.3, faint_opacity=0.6, fine_share=0.9, least_share=0.05),
    ],
)
@pytest.mark.parametrize("config", [BOTH, FINE], ids=["coarse_and_fine", "fine_only"])
def test_it_leaves_out_what_the_fast_renderer_leaves_out(config: RendererConfig, fast: FastConfig) -> None:
    torch.manual_seed(3)
    for scene in (_scene(), _portrait()):
        scene = replace(scene, to_density=(scene.to_density[0], scene.to_density[1] - 3.0))
        rays = _rays(17 * 17)
        expected = render_square(Reference(scene), *rays, config, fast)
        found = render_fused(scene, *rays, config, fast=fast)
        assert ((found.opacity == 0) == (expected.opacity == 0)).all()
        _assert_close(found, expected, atol=1e-3)


@needs_kernel
def test_the_number_of_threads_does_not_change_a_bit() -> None:
    torch.manual_seed(5)
    scene, rays = _portrait(), _rays(24 * 24)
    one, three = (render_fused(scene, *rays, FINE, fast=FastConfig(), threads=n) for n in (1, 3))
    for name in ("features", "depth", "opacity"):
        assert torch.equal(getattr(one, name), getattr(three, name))


@needs_kernel
def test_an_empty_scene_is_black_and_transparent() -> None:
    torch.manual_seed(6)
    scene = _scene(to_density=(torch.zeros(1, 16), torch.tensor([-80.0])))
    result = render_fused(scene, *_rays(36), BOTH)
    assert not result.features.any() and not result.opacity.any() and torch.isfinite(result.depth).all()


@needs_kernel
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_ray_that_is_not_a_number_gives_none_and_spoils_no_other(bad: float) -> None:
    torch.manual_seed(7)
    scene, (origins, directions) = _portrait(), _rays(35)
    whole = render_fused(scene, origins, directions, FINE)
    broken = directions.clone()
    broken[0, 11, 1] = bad
    found = render_fused(scene, origins, broken, FINE)
    others = torch.arange(35) != 11
    for name in ("features", "depth", "opacity"):
        assert torch.equal(getattr(found, name)[:, others], getattr(whole, name)[:, others])
        assert torch.isnan(getattr(found, name)[:, 11]).all()


@needs_kernel
def test_a_texel_that_is_not_a_number_shows_in_the_rays_that_read_it_and_in_no_other() -> None:
    torch.manual_seed(8)
    scene, rays = _scene(size=8), _rays(64, yaw=0.0)
    whole = render_fused(scene, *rays, BOTH)
    planes = scene.planes.clone()
    planes[0, 2, 2, 2] = math.nan  # up and to the left on the front plane
    found = render_fused(replace(scene, planes=planes), *rays, BOTH)
    hit = torch.isnan(found.opacity)
    assert 0 < hit.sum() < 32 and torch.isnan(found.features[hit]).all()
    assert torch.equal(found.features[~hit], whole.features[~hit])


@needs_kernel
def test_wrong_tensors_are_refused_with_a_reason() -> None:
    scene, (origins, directions) = _scene(), _rays(35)
    with pytest.raises(ValueError, match="planes have 2 channels more than the first layer; expected 0 or 3"):
        render_fused(_scene(motion=2), origins, directions, BOTH)
    for shape in ((3, 6, 12, 10), (2, 6, 12, 12)):  # read as they say, they would be read past their end
        with pytest.raises(ValueError, match="planes must have shape"):
            render_fused(replace(scene, planes=torch.randn(shape)), origins, directions, BOTH)
    with pytest.raises(ValueError, match="5 rays per coarse ray need a square picture; got 35 rays"):
        render_fused(scene, origins, directions, FINE, fast=FastConfig())
    with pytest.raises(ValueError, match="origins"):
        render_fused(scene, origins.expand(2, -1, -1), directions, BOTH)
    with pytest.raises(ValueError, match="got a tensor on meta"):
        render_fused(replace(scene, planes=scene.planes.to("meta")), origins, directions, BOTH)
    small = FusedDepth(maps=torch.zeros(8, 1, 4), to_hidden=torch.zeros(16, 12), camera=Camera.look_at_head())
    with pytest.raises(ValueError, match=r"maps must be \(2 to 64, >= 2, >= 2\); got \(8, 1, 4\)"):
        render_fused(replace(scene, depth=small), origins, directions, BOTH)


def test_switched_off_it_says_so_and_does_not_render(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.VARIABLE, "0")
    assert fused_status() == (False, "switched off by EXPORT3D_FUSED=0")
    with pytest.raises(RuntimeError, match="does not run here: switched off by EXPORT3D_FUSED=0"):
        render_fused(_scene(), *_rays(4), BOTH)


@needs_kernel
def test_a_version_that_there_is_not_and_a_library_of_other_sources_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(binding.VARIABLE, "mmx")
    assert fused_status() == (False, "EXPORT3D_FUSED=mmx names no version of it that this processor can run")
    monkeypatch.delenv(binding.VARIABLE)
    monkeypatch.setattr(binding, "_VERSION", -1)
    binding._load.cache_clear()
    assert "was built from other sources; install export3d again" in fused_status()[1]
    monkeypatch.undo()
    binding._load.cache_clear()


def test_where_nothing_was_built_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(binding.VARIABLE, raising=False)
    monkeypatch.setattr(binding, "EXTENSION_SUFFIXES", [])
    binding._load.cache_clear()
    runs, reason = fused_status()
    monkeypatch.undo()
    binding._load.cache_clear()
    assert not runs and "no C++ compiler was found when export3d was installed" in reason
