"""portrait/lookup.py: each ray looks its surface point up in the portrait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.portrait.layers import Layers
from export3d.portrait.lookup import SourceLookup, SourceLookupConfig
from export3d.portrait.model import PortraitModel
from export3d.portrait.neck import Neck, NeckConfig
from export3d.portrait.state import DrivenPlanes, PortraitMaps

LOOKUP = SourceLookupConfig(channels=2, width=4, offset_scale=0.05, sharpen=0.0)
Make = Callable[..., PortraitModel]
Pose = Callable[[Tensor], Tensor]


def _still(points: Tensor) -> Tensor:
    return points


def _maps(features: Tensor, picture: Tensor) -> PortraitMaps:
    """Maps of a portrait of which only what the lookup reads matters."""
    none = torch.empty(0)
    return PortraitMaps(matte_logits=none, background=none, depth=none, features=features, picture=picture)


def _look(
    module: SourceLookup, guide: Tensor, opacity: Tensor, maps: PortraitMaps, *, camera: Camera, scale: int, pose: Pose
) -> tuple[Tensor, Layers]:
    """Features at the rays, and the layers at `scale` times as many pixels."""
    size = (scale * guide.shape[-2], scale * guide.shape[-1])
    layers = module.layers(guide, opacity, maps.picture, camera=camera, size=size, pose=pose)
    return module.features(guide, opacity, maps, camera, pose), layers


def _positions(channels: int, size: int = 16) -> torch.Tensor:
    """A picture whose first two channels are the position (x, y) of each pixel."""
    centres = (torch.arange(size) + 0.5) / size
    rest = [torch.full((size, size), float(k)) for k in range(channels - 2)]
    return torch.stack([centres[None, :].expand(size, size), centres[:, None].expand(size, size), *rest])[None]


def _guide(places: torch.Tensor, gates: tuple[float, float], opacity: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Composited guide (premultiplied) and opacity of a 4 x 4 raw image with given places ``(3, 4, 4)``."""
    full = torch.cat([places, *(torch.full((1, 4, 4), g) for g in gates)])[None]
    return full * opacity, torch.full((1, 1, 4, 4), opacity)


def test_an_untrained_guide_looks_each_point_up_where_it_is() -> None:
    module, points = SourceLookup(LOOKUP, 6), torch.randn(2, 5, 3)
    places, logits = module.guide_of(torch.randn(2, 5, 6), points)
    assert torch.equal(places, points) and torch.equal(logits, torch.zeros(2, 5, 2))


def test_the_offset_is_bounded_by_its_scale() -> None:
    module = SourceLookup(LOOKUP, 6)
    torch.nn.init.constant_(module.guide.bias, 100.0)  # tanh saturates at 1
    places, _ = module.guide_of(torch.randn(1, 4, 6), torch.zeros(1, 4, 3))
    assert torch.allclose(places, torch.full((1, 4, 3), 0.05))


def test_a_place_and_its_mirror_image_are_read_where_the_portraits_camera_sees_them() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head(0.2, 0.1)
    places = torch.randn(3, 1, 1).expand(3, 4, 4) * 0.08
    guide, opacity = _guide(places, (0.7, 0.4), opacity=0.6)
    found, layers = _look(
        module, guide, opacity, _maps(_positions(2), _positions(4)), camera=camera, scale=2, pose=_still
    )
    own, _ = camera.project(places[None, :, 0, 0][:, None])
    other, _ = camera.project(places[None, :, 0, 0][:, None] * torch.tensor([-1.0, 1.0, 1.0]))
    assert found.shape == (1, 2, 4, 4) and layers.colours.shape == (1, 2, 3, 8, 8)
    assert torch.allclose(found[0, :, 1, 2], own[0, 0], atol=1e-5)
    # The cubic kernel reproduces a ramp to a few hundredths of a pixel, not exactly.
    within = 0.05 / _positions(4).shape[-1]
    assert torch.allclose(layers.colours[0, 0, :2, 3, 5], own[0, 0], atol=within)
    assert torch.allclose(layers.colours[0, 1, :2, 3, 5], other[0, 0], atol=within)


def test_the_portrait_is_read_by_a_cubic_kernel_which_keeps_thin_lines() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head()
    picture = torch.zeros(1, 4, 9, 9)
    picture[..., 4] = 1.0  # a line of one pixel, through the middle of the picture
    per_unit = (camera.project(torch.tensor([[[0.1, 0.0, 0.0]]]))[0][0, 0, 0] - 0.5) / 0.1
    place = torch.tensor([0.25 / 9.0 / float(per_unit), 0.0, 0.0])[:, None, None].expand(3, 4, 4)
    guide, opacity = _guide(place, (1.0, 1.0), opacity=1.0)
    _, layers = _look(module, guide, opacity, _maps(_positions(2), picture), camera=camera, scale=1, pose=_still)
    # A quarter of a pixel beside it: 1.25 / 64 - 2.25 / 16 + 1 (kernel with a = -0.75); a linear mean would give 0.75.
    assert layers.colours[0, 0, 0, 1, 1].item() == pytest.approx(0.87890625, abs=1e-4)


def test_the_portrait_is_read_at_the_same_places_under_autocast() -> None:
    module, camera = SourceLookup(LOOKUP, 8), Camera.look_at_head(0.1)
    neck = Neck(NeckConfig())
    places = 0.3 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    features, picture = torch.rand(1, 2, 8, 8), torch.rand(1, 4, 16, 16)

    def look() -> tuple[torch.Tensor, ...]:
        pose = neck.posed(torch.tensor([[0.0, 0.3, 0.1]]))
        guide, opacity = _guide(places, (0.9, 0.4), 1.0)
        coarse, layers = _look(module, guide, opacity, _maps(features, picture), camera=camera, scale=2, pose=pose)
        return coarse, layers.colours, layers.prior, layers.clues, layers.opacity

    plain = look()
    with torch.autocast("cpu", torch.bfloat16):
        under = look()
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True))


def test_the_prior_prefers_what_the_portrait_shows_and_its_mirror_image_only_where_it_does_not() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head()
    for gates, expected in (((1.0, 1.0), (0.11, 1.01, 0.01)), ((0.0, 1.0), (0.11, 0.01, 0.31))):
        guide, opacity = _guide(torch.zeros(3, 4, 4), gates, opacity=0.5)
        _, layers = _look(
            module, guide, opacity, _maps(_positions(2), _positions(4)), camera=camera, scale=1, pose=_still
        )
        assert torch.allclose(layers.prior[0, :, 0, 0], torch.tensor(expected), atol=1e-5)
        assert torch.allclose(layers.clues[0, :2, 0, 0], torch.tensor(gates), atol=1e-5)


def test_beyond_the_portraits_border_both_gates_are_shut() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head(0.0, 0.0)
    across = torch.linspace(-0.5, 0.5, 4)  # the camera sees about -0.32 to 0.32 there
    places = torch.zeros(3, 4, 4)
    places[0] = across
    guide, opacity = _guide(places, (0.7, 0.4), opacity=1.0)
    _, layers = _look(module, guide, opacity, _maps(_positions(2), _positions(4)), camera=camera, scale=1, pose=_still)
    shut, open_ = torch.zeros(4), torch.ones(4)
    assert torch.allclose(layers.clues[0, 0], 0.7 * torch.stack([shut, open_, open_, shut], dim=1))
    assert torch.allclose(layers.clues[0, 1], 0.4 * torch.stack([shut, open_, open_, shut], dim=1))
    assert torch.allclose(layers.prior[0, 1, :, 0], torch.full((4,), 0.01))  # what is left if nothing is seen


def test_a_ray_that_meets_nothing_gives_finite_layers() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head()
    guide, opacity = _guide(torch.zeros(3, 4, 4), (0.0, 0.0), opacity=0.0)
    _, layers = _look(module, guide, opacity, _maps(_positions(2), _positions(4)), camera=camera, scale=2, pose=_still)
    assert all(bool(torch.isfinite(t).all()) for t in (layers.colours, layers.prior, layers.clues))


def _driven(model: PortraitModel, batch: int = 1) -> DrivenPlanes:
    torch.manual_seed(4)
    source, state = torch.rand(batch, 3, 32, 32) * 2 - 1, FaceState(beta=torch.randn(batch, 64))
    return model.drive(model.encode(source, Camera.look_at_head(torch.full((batch,), 0.1)), state), state)


def test_every_part_of_the_lookup_gets_a_gradient(make_model: Make) -> None:
    model = make_model().train()
    render = model.render(_driven(model, 2), Camera.look_at_head(torch.tensor([0.1, -0.2])))
    assert render.image is not None
    render.image.square().mean().backward()
    for name, parameter in model.lookup.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_guide_of_a_point_is_what_the_renderer_composites_there(make_model: Make) -> None:
    model = make_model()
    points = torch.randn(1, 7, 3) * 0.1
    with torch.no_grad():
        driven = _driven(model)
        places, logits = model.guide(driven, points)
        field = model.field(driven)
        composited = field.colour(field.density(points)[1])[..., -5:]
    assert torch.allclose(composited[..., :3], places, atol=1e-6)
    assert torch.allclose(composited[..., 3:], torch.sigmoid(logits), atol=1e-6)
    assert (places - points).norm(dim=-1).min() > 1e-4 and logits.abs().min() > 1e-4


def test_a_point_is_moved_by_the_mean_of_the_three_motion_planes(make_model: Make) -> None:
    model = make_model()
    torch.nn.init.zeros_(model.lookup.guide.weight)
    torch.nn.init.zeros_(model.lookup.guide.bias)
    planes = torch.zeros(1, 3, 8 + 3, 16, 16)
    planes[0, 0, 8:] = torch.tensor([0.3, 0.0, -0.6])[:, None, None]  # the xy plane alone; the mean is a third
    with torch.no_grad():
        places, _ = model.guide(replace(_driven(model), planes=planes), torch.zeros(1, 1, 3))
    assert torch.allclose(places[0, 0], 0.08 * torch.tensor([0.1, 0.0, -0.2]), atol=1e-6)


def test_sharpening_strengthens_detail_by_the_asked_share_and_leaves_flat_colour_alone() -> None:
    module = SourceLookup(replace(LOOKUP, sharpen=0.2), 6)
    point = torch.zeros(1, 3, 5, 5)
    point[:, 1, 2, 2] = 0.4
    sharp = module.sharpened(point)
    # The binomial mean is a quarter of the point in its middle, an eighth beside it, a sixteenth at the corners.
    assert torch.allclose(sharp[0, 1, 2, 1:4], torch.tensor([-0.01, 0.46, -0.01]), atol=1e-6)
    assert torch.allclose(sharp[0, 1, 1, 1:4], torch.tensor([-0.005, -0.01, -0.005]), atol=1e-6)
    assert not sharp[0, [0, 2]].any() and torch.equal(SourceLookup(LOOKUP, 6).sharpened(point), point)
    flat = torch.full((1, 3, 5, 5), 0.7)
    assert torch.allclose(module.sharpened(flat), flat)
    assert module.sharpened(2.0 * torch.eye(5).expand(1, 3, 5, 5) - 1.0).abs().max() <= 1.0
