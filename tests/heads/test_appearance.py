"""Traits, masks, light and textures: even spread, hand-computed distances, exact identities of the light's algebra."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from export3d.errors import UsageError
from export3d.heads.hair.styles import STYLES
from export3d.heads.hair.volume import build_hair
from export3d.heads.look.appearance import (
    HAIR_STYLES,
    AppearanceOptions,
    draw_alpha,
    draw_resting,
    draw_traits,
    feminine_direction,
)
from export3d.heads.look.atlas import ALBEDO
from export3d.heads.look.skin import paint
from export3d.heads.look.wrinkles import wrinkle_depth
from export3d.heads.raster.fields import (
    Noise,
    along_curve,
    curve,
    grid_triangles,
    interpolate_table,
    sample_bilinear,
    signed_distance,
    smoothstep,
    vertex_normals,
)
from export3d.heads.raster.light import (
    COSINE_LOBE,
    harmonics9,
    irradiance,
    irradiance_matrix,
    quadratic_irradiance,
    shadow_transfer,
    sphere_directions,
)
from export3d.heads.shape.parametric import ParametricHead
from export3d.heads.shape.procedural import procedural_head

_FAST = AppearanceOptions(quality="fast")


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


def test_traits_are_a_function_of_the_seed_and_options_replace_only_what_they_name() -> None:
    drawn = draw_traits(7, _FAST)
    assert drawn == draw_traits(7, _FAST)
    assert drawn != draw_traits(8, _FAST)
    blond = draw_traits(7, dataclasses.replace(_FAST, hair_color="blond"))
    assert blond.hair_color_name == "blond"
    unchanged = {"hair_color_name": drawn.hair_color_name, "hair_color": drawn.hair_color}
    assert dataclasses.replace(blond, **unchanged) == drawn


def test_any_run_of_seeds_spreads_skin_tones_and_ages_evenly() -> None:
    for start in (0, 1000, 54321):
        traits = [draw_traits(start + k, _FAST) for k in range(40)]
        tones = sorted((t.melanin - 0.12) / 1.38 for t in traits)
        tones = [tone ** (1 / 1.3) for tone in tones]  # undo the curve: even in [0, 1]
        ages = sorted((t.age - 18) / 60 for t in traits)
        for values in (tones, ages):
            quarters = [sum(k / 4 <= v < (k + 1) / 4 for v in values) for k in range(4)]
            assert all(8 <= q <= 12 for q in quarters), quarters  # 10 each if perfectly even


def test_unknown_styles_and_colors_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="Did you mean 'bobfringe'"):
        AppearanceOptions(style="bobfrinj")
    with pytest.raises(UsageError, match="hair_color"):
        AppearanceOptions(hair_color="chartreuse")
    with pytest.raises(UsageError, match="quality"):
        AppearanceOptions(quality="best")


def test_alpha_is_bounded_and_follows_the_feminine_direction(head: ParametricHead) -> None:
    direction = feminine_direction(head)
    assert float(direction.norm()) == pytest.approx(1.0, abs=1e-5)
    feminine = torch.stack([draw_alpha(head, seed, 1.0)[0] for seed in range(40)])
    masculine = torch.stack([draw_alpha(head, seed, -1.0)[0] for seed in range(40)])
    assert float(feminine.abs().max()) <= 2.8
    assert float((feminine @ direction).mean()) > float((masculine @ direction).mean()) + 2.0
    assert 0.6 < float(feminine.std()) < 1.1
    assert draw_alpha(head, 0, 1.0)[1].shape == (11,)


def test_feminine_direction_shortens_the_chin(head: ParametricHead) -> None:
    points = head.vertices[head.landmark_vertices]
    modes = head.identity_basis[:80, head.landmark_vertices]
    moved = torch.tensordot(feminine_direction(head), modes, 1)
    before = points[33, 1] - points[8, 1]  # nose base to chin
    assert float((points + moved)[33, 1] - (points + moved)[8, 1]) < float(before)


def test_resting_expression_touches_about_a_third_of_the_shapes_and_can_be_switched_off(head: ParametricHead) -> None:
    drawn = torch.stack([draw_resting(head, seed, _FAST) for seed in range(200)])
    names = head.expression_names
    open_shapes = [k for k, n in enumerate(names) if not n.startswith(("eyeBlink", "eyeLook", "jaw", "mouthClose"))]
    used = drawn[:, open_shapes]
    assert float((used > 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float((used[used > 0] ** 2).mean().sqrt()) == pytest.approx(0.08, abs=0.005)
    closed = [k for k in range(len(names)) if k not in open_shapes]
    assert float(drawn[:, closed].abs().max()) == 0.0
    off = draw_resting(head, 3, dataclasses.replace(_FAST, resting_offset=False))
    assert float(off.abs().max()) == 0.0


def test_darker_traits_paint_darker_skin(head: ParametricHead) -> None:
    mean = []
    for melanin in (0.15, 0.6, 1.4):
        traits = draw_traits(3, dataclasses.replace(_FAST, melanin=melanin, femininity=1.0, style="bald"))
        atlas = paint(head, traits, 64)
        assert torch.isfinite(atlas).all()
        assert 0.0 < float(atlas[..., ALBEDO].min()) and float(atlas[..., ALBEDO].max()) < 1.0
        mean.append(float(atlas[..., ALBEDO].mean()))
    assert mean[0] > mean[1] > mean[2]


@pytest.mark.parametrize("style", [s for s in HAIR_STYLES if s != "bald"])
def test_every_style_builds_finite_outward_hair(head: ParametricHead, style: str) -> None:
    options = dataclasses.replace(_FAST, style=style)
    patches = build_hair(head, head.vertices, draw_traits(1, options), options)
    hair_style = STYLES[style]
    assert hair_style is not None
    assert len(patches) >= (2 if hair_style.bun else 1)
    for patch in patches:
        for value in (patch.outer, patch.normal, patch.tangent, patch.texture, patch.uv_per_cm):
            assert torch.isfinite(value).all()
        corner = patch.outer[patch.triangles]
        face = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        outward = (face * patch.round[patch.triangles].mean(1)).sum(1)
        assert float((outward > 0).float().mean()) > 0.9  # counter-clockwise from outside
        assert float(patch.height.max()) == pytest.approx(float(patch.height[-1]))


def test_wrinkles_deepen_with_the_expression_and_with_age(head: ParametricHead) -> None:
    smile = head.weights(mouthSmile=0.9, cheekSquint=0.6)[None]
    rest = torch.zeros(1, 53)
    assert float(wrinkle_depth(head, rest, 20.0).abs().max()) == 0.0
    young, old = wrinkle_depth(head, smile, 25.0)[0], wrinkle_depth(head, smile, 75.0)[0]
    assert float(young[3]) > 0.3 and float(young[0]) == 0.0  # cheek folds, no forehead lines
    assert bool((old >= young).all()) and float(old[0]) > 0.3


def test_signed_distance_of_a_square() -> None:
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    points = torch.tensor([[1.0, 1.0], [1.0, 0.25], [3.0, 1.0], [5.0, 6.0]])
    # Inside: 1 from every side; 0.25 from the bottom. Outside: 1 to the right; (3, 4) from the corner, so 5.
    torch.testing.assert_close(signed_distance(square, points), torch.tensor([-1.0, -0.25, 1.0, 5.0]))


def test_position_along_a_bent_line() -> None:
    line = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    along, across = along_curve(line, torch.tensor([[1.5, 0.5], [3.5, 0.5]]))
    # Lengths 3 and 1: 1.5 of 4 along, 0.5 to the left; then 3.5 of 4 along, 0.5 to the right.
    torch.testing.assert_close(along, torch.tensor([0.375, 0.875]))
    torch.testing.assert_close(across, torch.tensor([0.5, -0.5]))


def test_curve_passes_through_its_points() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    torch.testing.assert_close(curve(points, 5)[[0, 2, 4]], points)
    torch.testing.assert_close(curve(points, 6, closed=True)[[0, 2, 4]], points)


def test_smoothstep_and_tables_have_the_expected_values() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 2.0])
    # t = 0.5: 0.25 * (3 - 1) = 0.5. The reversed step is its mirror image.
    torch.testing.assert_close(smoothstep(0.0, 1.0, x), torch.tensor([0.0, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(smoothstep(1.0, 0.0, x), torch.tensor([1.0, 0.5, 0.0, 0.0]))
    table = interpolate_table(torch.tensor([-1.0, 0.5, 1.5, 9.0]), (0.0, 1.0, 2.0), (0.0, 10.0, 30.0))
    torch.testing.assert_close(table, torch.tensor([0.0, 5.0, 20.0, 30.0]))


def test_noise_repeats_after_its_period_and_is_smooth() -> None:
    noise = Noise(3, channels=2, period=8)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 8
    torch.testing.assert_close(noise(points), noise(points + 8.0), atol=1e-4, rtol=0)
    assert float((noise(points) - noise(points + 1e-3)).abs().max()) < 0.02
    assert float(noise(points).abs().max()) <= 1.0


def test_normals_of_a_tilted_grid() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    grid = torch.stack([x, -y, 2 * x], -1).reshape(1, -1, 3)
    # The plane z = 2 x has the normal (-2, 0, 1) / sqrt(5).
    expected = torch.tensor([-2.0, 0.0, 1.0]) / math.sqrt(5)
    torch.testing.assert_close(vertex_normals(grid, grid_triangles(4, 5)), expected.expand(1, 20, 3))


def test_bilinear_lookup_is_grid_sample() -> None:
    texture = torch.rand(6, 9, 4, generator=torch.Generator().manual_seed(1))
    column, row = torch.rand(40) * 8, torch.rand(40) * 5
    grid = torch.stack([column / 8 * 2 - 1, row / 5 * 2 - 1], 1)[None, None]
    expected = F.grid_sample(texture.permute(2, 0, 1)[None], grid, align_corners=True)[0, :, 0].T
    torch.testing.assert_close(sample_bilinear(texture, column, row), expected, atol=1e-5, rtol=0)


def test_quadratic_form_gives_the_irradiance_of_the_harmonics() -> None:
    generator = torch.Generator().manual_seed(2)
    harmonics = torch.randn(2, 3, 9, generator=generator)
    normal = F.normalize(torch.randn(30, 3, generator=generator), dim=1)
    matrix = irradiance_matrix(harmonics)
    for image in range(2):
        expected = irradiance(normal, harmonics[image])
        given = quadratic_irradiance(normal, matrix, torch.full((30,), image))
        torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


def test_an_open_point_receives_the_cosine_lobe_and_a_covered_one_nothing_from_above() -> None:
    point, normal = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    far = torch.tensor([[20.0, -20.0, 0.0], [21.0, -20.0, 0.0], [20.0, -20.0, 1.0]])
    open_sky = shadow_transfer(point, normal, far, torch.tensor([[0, 1, 2]]), num_directions=400, map_size=32)[0]
    expected = harmonics9(normal)[0] * torch.tensor(COSINE_LOBE)
    torch.testing.assert_close(open_sky, expected, atol=0.02, rtol=0)
    lid = torch.tensor([[-9.0, 3.0, -9.0], [9.0, 3.0, -9.0], [9.0, 3.0, 9.0], [-9.0, 3.0, 9.0]])
    covered = shadow_transfer(
        point, normal, lid, torch.tensor([[0, 1, 2], [0, 2, 3]]), num_directions=400, map_size=64
    )[0]
    # The lid leaves free the sky below asin(3 / sqrt(9^2 + 3^2)) = 18 degrees: a share sin^2 = 0.1 of the irradiance
    # towards its sides' middles, less towards its corners.
    assert 0.02 < float(covered[0] / open_sky[0]) < 0.12


def test_directions_are_spread_evenly_over_the_sphere() -> None:
    directions = sphere_directions(200)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(200), atol=1e-5, rtol=0)
    assert float(directions.mean(0).norm()) < 0.01
    second = (directions[:, :, None] * directions[:, None]).mean(0)
    torch.testing.assert_close(second, torch.eye(3) / 3, atol=0.01, rtol=0)
