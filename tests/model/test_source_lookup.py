"""model/source_lookup.py: each ray looks its surface point up in the portrait (off in the paper's preset)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.model.background import BackgroundConfig
from export3d.model.config import PRESETS, TINY, ModelConfig
from export3d.model.export3d import Export3D
from export3d.model.neck import Neck, NeckConfig
from export3d.model.source_lookup import SourceLookup, SourceLookupConfig
from export3d.rendering.renderer import RendererConfig

LOOKUP = SourceLookupConfig(enabled=True, channels=2, width=4, offset_scale=0.05)
WITH_LOOKUP = replace(
    TINY,
    source_lookup=LOOKUP,
    background=BackgroundConfig(mode="apart"),
    renderer=RendererConfig(raw_size=16, num_coarse=8, num_fine=8),
    superres=replace(TINY.superres, start_size=None),
)


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
    found, layers = module.look(guide, opacity, _positions(2), _positions(4), camera, 2)
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
    _, layers = module.look(guide, opacity, _positions(2), picture, camera, 1)
    # A quarter of a pixel beside it: 1.25 / 64 - 2.25 / 16 + 1 (kernel with a = -0.75); a linear mean would give 0.75.
    assert layers.colours[0, 0, 0, 1, 1].item() == pytest.approx(0.87890625, abs=1e-4)


def test_the_portrait_is_read_at_the_same_places_under_autocast() -> None:
    module, camera = SourceLookup(LOOKUP, 8), Camera.look_at_head(0.1)
    neck = Neck(NeckConfig(enabled=True), 4)
    places = 0.3 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    features, picture = torch.rand(1, 2, 8, 8), torch.rand(1, 4, 16, 16)

    def look() -> tuple[torch.Tensor, ...]:
        pose = neck.posed(torch.tensor([[0.0, 0.3, 0.1]]))
        coarse, layers = module.look(*_guide(places, (0.9, 0.4), 1.0), features, picture, camera, 2, pose)
        return coarse, layers.colours, layers.prior, layers.clues, layers.opacity

    plain = look()
    with torch.autocast("cpu", torch.bfloat16):
        under = look()
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True))


def test_the_prior_prefers_what_the_portrait_shows_and_its_mirror_image_only_where_it_does_not() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head()
    for gates, expected in (((1.0, 1.0), (0.11, 1.01, 0.01)), ((0.0, 1.0), (0.11, 0.01, 0.31))):
        guide, opacity = _guide(torch.zeros(3, 4, 4), gates, opacity=0.5)
        _, layers = module.look(guide, opacity, _positions(2), _positions(4), camera, 1)
        assert torch.allclose(layers.prior[0, :, 0, 0], torch.tensor(expected), atol=1e-5)
        assert torch.allclose(layers.clues[0, :2, 0, 0], torch.tensor(gates), atol=1e-5)


def test_beyond_the_portraits_border_both_gates_are_shut() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head(0.0, 0.0)
    across = torch.linspace(-0.5, 0.5, 4)  # the camera sees about -0.32 to 0.32 there
    places = torch.zeros(3, 4, 4)
    places[0] = across
    guide, opacity = _guide(places, (0.7, 0.4), opacity=1.0)
    _, layers = module.look(guide, opacity, _positions(2), _positions(4), camera, 1)
    shut, open_ = torch.zeros(4), torch.ones(4)
    assert torch.allclose(layers.clues[0, 0], 0.7 * torch.stack([shut, open_, open_, shut], dim=1))
    assert torch.allclose(layers.clues[0, 1], 0.4 * torch.stack([shut, open_, open_, shut], dim=1))
    assert torch.allclose(layers.prior[0, 1, :, 0], torch.full((4,), 0.01))  # what is left if nothing is seen


def test_a_ray_that_meets_nothing_gives_finite_layers() -> None:
    module, camera = SourceLookup(LOOKUP, 6), Camera.look_at_head()
    guide, opacity = _guide(torch.zeros(3, 4, 4), (0.0, 0.0), opacity=0.0)
    _, layers = module.look(guide, opacity, _positions(2), _positions(4), camera, 2)
    assert all(bool(torch.isfinite(t).all()) for t in (layers.colours, layers.prior, layers.clues))


def _model(config: ModelConfig = WITH_LOOKUP) -> Export3D:
    torch.manual_seed(3)
    model = Export3D(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def test_a_window_shows_what_the_whole_image_shows_there() -> None:
    model, camera = _model(), Camera.look_at_head(0.3)
    source, beta = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, Camera.look_at_head(0.1))
        planes = model.planes(code, beta)
        whole = model.render(planes, camera, code)
        part = model.render(planes, camera, code, window=(torch.tensor([4]), torch.tensor([2]), 12))
    assert whole.image is not None and part.image is not None and whole.image_opacity is not None
    assert torch.allclose(part.raw, whole.raw[..., 4:16, 2:14], atol=1e-5)
    edge = slice(8, -8)  # convolutions see no neighbours beyond the window's border
    assert torch.allclose(part.image[..., edge, edge], whole.image[..., 8:32, 4:28][..., edge, edge], atol=1e-4)


def test_where_the_head_does_not_cover_the_background_is_shown() -> None:
    model, camera = _model(), Camera.look_at_head(0.3)
    source, beta = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 64)
    with torch.no_grad():
        model.superres.high_rgb.bias[-1] = -100.0  # opacity 0 everywhere
        code = model.encode(source, camera)
        image = model.render(model.planes(code, beta), camera, code).image
    assert image is not None and code.background is not None
    assert torch.allclose(image, code.background, atol=1e-6)


def test_every_part_of_the_lookup_gets_a_gradient() -> None:
    model = _model().train()
    source, beta = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 64)
    camera = Camera.look_at_head(torch.tensor([0.1, -0.2]))
    code = model.encode(source, camera)
    render = model.render(model.planes(code, beta), camera, code)
    assert render.image is not None
    render.image.square().mean().backward()
    assert model.source_lookup is not None
    for name, parameter in model.source_lookup.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_guide_of_a_point_is_what_the_renderer_composites_there() -> None:
    model, camera = _model(), Camera.look_at_head()
    source, beta = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, camera)
        planes = model.planes(code, beta)
        points = torch.randn(1, 7, 3) * 0.1
        places, logits = model.guide(planes, code, points)
        features = torch.nn.functional.softplus(
            model.decoder.first(_sampled(model, planes, points))
        )  # the decoder's state
        expected, expected_logits = model.source_lookup.guide_of(features, points)  # type: ignore[union-attr]
    assert torch.allclose(places, expected, atol=1e-6) and torch.allclose(logits, expected_logits, atol=1e-6)


def _sampled(model: Export3D, planes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    from export3d.model.triplane import sample_planes

    return sample_planes(planes + model.mean_planes.mean, points, model.config.triplane)


WITH_CONDITIONS = replace(TINY, source_beta=True, gaze=True)


def test_a_model_that_needs_the_portraits_expression_says_so() -> None:
    model = Export3D(WITH_CONDITIONS)
    with pytest.raises(ValueError, match="portrait's own expression"):
        model.encode(torch.zeros(1, 3, 32, 32), Camera.look_at_head())


@pytest.mark.parametrize("conditioning", ["eadaln", "cross_attention"])
def test_the_portraits_expression_and_both_gazes_change_the_planes(conditioning: str) -> None:
    config = replace(WITH_CONDITIONS, generator=replace(TINY.generator, conditioning=conditioning))
    model = _model(config)
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    gaze, other = torch.tensor([[0.1, 0.2]]), torch.tensor([[-0.3, 0.0]])

    def planes(source_beta: torch.Tensor, source_gaze: torch.Tensor | None, gaze: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            code = model.encode(source, camera, source_beta=source_beta, source_gaze=source_gaze)
            return model.planes(code, beta, gaze)

    base = planes(beta, gaze, gaze)
    assert not torch.allclose(base, planes(-beta, gaze, gaze))
    assert not torch.allclose(base, planes(beta, other, gaze))
    assert not torch.allclose(base, planes(beta, gaze, other))


def test_an_unknown_gaze_of_the_driver_is_the_portraits_and_one_of_the_portrait_is_none() -> None:
    model = _model(WITH_CONDITIONS)
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    gaze, unknown = torch.tensor([[0.1, 0.2]]), torch.tensor([[torch.nan, torch.nan]])
    with torch.no_grad():
        known = model.encode(source, camera, source_beta=beta, source_gaze=gaze)
        blind = model.encode(source, camera, source_beta=beta)
        none = model.planes(blind, beta)
        assert torch.equal(model.planes(blind, beta, gaze), none)
        own = model.planes(known, beta, gaze)
        assert not torch.equal(own, none)
        assert torch.equal(model.planes(known, beta), own)
        assert torch.equal(model.planes(known, beta, unknown), own)
        assert not torch.equal(model.planes(known, beta, -gaze), own)


def test_the_papers_presets_have_neither_lookup_nor_further_conditions() -> None:
    for name in ("paper", "lp3d", "small-literal", "tiny"):
        config = PRESETS[name]
        assert not config.source_lookup.enabled and not config.source_beta and not config.gaze


WITH_MOTION = replace(WITH_LOOKUP, generator=replace(TINY.generator, motion_basis=3))


def test_motion_planes_start_without_motion_and_change_nothing() -> None:
    torch.manual_seed(5)
    grown = Export3D(WITH_MOTION).eval()
    plain = Export3D(WITH_LOOKUP).eval()
    plain.load_state_dict({k: v for k, v in grown.state_dict().items() if not k.startswith("generator.motion.")})
    source, camera, beta = torch.rand(1, 3, 32, 32) * 2 - 1, Camera.look_at_head(0.2), torch.randn(1, 64)
    with torch.no_grad():
        images = [model(source, camera, beta, camera).image for model in (grown, plain)]
    assert torch.equal(images[0], images[1])


def test_motion_planes_are_the_basis_fields_summed_with_the_expressions_weights() -> None:
    model = _model(WITH_MOTION)
    part = model.generator.motion
    assert part is not None
    features, condition = torch.randn(1, part.fields.in_channels, 4, 4), torch.randn(1, 32)
    with torch.no_grad():
        planes = part(features, condition)
        weights = part.weights(8.0 * condition)[0]
        fields = part.fields(features)[0].reshape(3, 3, 3, 4, 4)  # plane, axis, basis field
    expected = sum(float(weights[k]) * fields[:, :, k] for k in range(3))
    assert torch.allclose(planes[0], expected, atol=1e-5)


def test_a_point_is_moved_by_the_mean_of_the_three_motion_planes() -> None:
    model = _model(WITH_MOTION)
    torch.nn.init.zeros_(model.source_lookup.guide.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(model.source_lookup.guide.bias)  # type: ignore[union-attr]
    planes = torch.zeros(1, 3, 8 + 3, 16, 16)
    planes[0, 0, 8:] = torch.tensor([0.3, 0.0, -0.6])[:, None, None]  # the xy plane alone; the mean is a third
    points = torch.zeros(1, 1, 3)
    with torch.no_grad():
        code = model.encode(torch.zeros(1, 3, 32, 32), Camera.look_at_head())
        places, _ = model.guide(planes, code, points)
    assert torch.allclose(places[0, 0], 0.05 * torch.tensor([0.1, 0.0, -0.2]), atol=1e-6)


def test_the_running_mean_leaves_the_motion_planes_alone() -> None:
    model = _model(WITH_MOTION)
    residual = torch.randn(2, 3, 11, 16, 16)
    model.mean_planes.mean.fill_(2.0)
    summed = model.mean_planes(residual)
    assert torch.equal(summed[:, :, :8], residual[:, :, :8] + 2.0) and torch.equal(summed[:, :, 8:], residual[:, :, 8:])
    model.mean_planes.update(residual)
    assert model.mean_planes.mean.shape == (3, 8, 16, 16)


def test_motion_planes_without_a_lookup_are_refused() -> None:
    with pytest.raises(UsageError, match="motion_basis"):
        replace(TINY, generator=replace(TINY.generator, motion_basis=3))


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
