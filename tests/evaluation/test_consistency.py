"""evaluation/metrics/consistency.py: warping between views of a scene known exactly, and flicker by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.evaluation.metrics.consistency import (
    TURN_DEG,
    Surface,
    excess_flicker,
    flicker,
    model_consistency,
    turned,
    unproject,
    view_consistency,
)
from export3d.images import to_uint8
from export3d.rendering.rays import cast_rays
from export3d.training.batches.stored_portrait import View

SIDE = 64


def _pattern(points: Tensor) -> Tensor:
    """A smooth colour for every point in space, in [-1, 1]."""
    return torch.sin(points * torch.tensor([9.0, 7.0, 5.0]) + torch.tensor([0.0, 1.0, 2.0]))


def _sphere_view(camera: Camera, radius: float = 0.2) -> tuple[Tensor, Tensor]:
    """Exact picture and depth of a patterned sphere at the origin; depth 0 and black around it."""
    origins, directions = cast_rays(camera, SIDE)
    middle = -(origins * directions).sum(dim=-1)
    square = middle**2 - (origins**2).sum(dim=-1) + radius**2
    hit = square > 0
    depth = torch.where(hit, middle - square.clamp(min=0).sqrt(), torch.zeros_like(middle))
    colour = torch.where(hit[..., None], _pattern(origins + depth[..., None] * directions), -torch.ones(3))
    shape = (len(camera), -1, SIDE, SIDE)
    return colour.transpose(1, 2).reshape(shape), depth[:, None].reshape(shape)


def test_unprojected_points_lie_on_the_sphere_and_project_back() -> None:
    camera = Camera.look_at_head(torch.tensor([0.2, -0.4]), 0.1)
    _, depth = _sphere_view(camera)
    points = unproject(depth, camera)
    seen = depth.flatten(1) > 0
    assert torch.allclose(points[seen].norm(dim=-1), torch.tensor(0.2), atol=1e-4)
    position, _ = camera.project(points)
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    expected = torch.stack(torch.meshgrid(centres, centres, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    assert torch.allclose(position[0][seen[0]], expected[seen[0]], atol=1e-4)


def test_two_true_views_of_one_surface_agree() -> None:
    a, b = Camera.look_at_head(0.15), Camera.look_at_head(-0.15, 0.1)
    result = view_consistency(Surface(*_sphere_view(a), a), Surface(*_sphere_view(b), b))
    # Bilinear lookup of a smooth pattern on 64 pixels: within about two 8-bit levels.
    assert result.error[0] < 2.0
    assert result.shared[0] > 0.15  # the ball covers about 0.3 of the picture


def test_pairs_of_views_side_by_side_are_measured_as_alone() -> None:
    a, b = Camera.look_at_head(torch.tensor([0.15, 0.3])), Camera.look_at_head(torch.tensor([-0.15, 0.2]))
    first, second = Surface(*_sphere_view(a), a), Surface(*_sphere_view(b), b)
    both = view_consistency(first, second)
    assert both.error.shape == both.shared.shape == (2,) and both.shared[0] != both.shared[1]
    for row in range(2):
        one = [
            Surface(s.image[row : row + 1], s.depth[row : row + 1], s.camera[row : row + 1]) for s in (first, second)
        ]
        alone = view_consistency(*one)
        assert both.error[row] == pytest.approx(alone.error[0], rel=1e-4)
        assert both.shared[row] == alone.shared[0]


def test_a_surface_whose_colours_swim_is_found_out() -> None:
    a, b = Camera.look_at_head(0.15), Camera.look_at_head(-0.15)
    image, depth = _sphere_view(b)
    swimming = image.roll(4, dims=-1)
    result = view_consistency(Surface(*_sphere_view(a), a), Surface(swimming, depth, b))
    assert result.error[0] > 8.0


def test_a_uniform_change_of_colour_is_measured_in_8_bit_levels() -> None:
    camera = Camera.look_at_head()
    image, depth = _sphere_view(camera)
    result = view_consistency(Surface(image, depth, camera), Surface(image + 0.1, depth, camera))
    assert result.error[0] == pytest.approx(12.75, abs=0.05)  # 0.1 of a range of 2 = 255 levels


def test_points_hidden_from_the_other_camera_are_left_out() -> None:
    """Views from opposite sides share only the rim, where the lines of sight graze the ball."""
    a, b = Camera.look_at_head(0.0), Camera.look_at_head(torch.pi)
    assert view_consistency(Surface(*_sphere_view(a), a), Surface(*_sphere_view(b), b)).shared[0] < 0.01


def test_views_that_share_nothing_have_no_error_value() -> None:
    a = Camera.look_at_head(0.0)
    image, depth = _sphere_view(a)
    result = view_consistency(Surface(image, torch.zeros_like(depth), a), Surface(image, depth, a))
    assert np.isnan(result.error[0]) and result.shared[0] == 0


def test_a_coarse_depth_serves_a_finer_picture() -> None:
    a, b = Camera.look_at_head(0.1), Camera.look_at_head(-0.1)
    (image_a, depth_a), (image_b, depth_b) = _sphere_view(a), _sphere_view(b)
    coarse = [F.interpolate(d, scale_factor=0.5, mode="nearest") for d in (depth_a, depth_b)]
    result = view_consistency(Surface(image_a, coarse[0], a), Surface(image_b, coarse[1], b))
    assert result.shared[0] > 0.1 and result.error[0] < 6.0


def _view(camera: Camera) -> View:
    """The ball as a model's rendering: opaque where it is, a wild depth in the empty background."""
    image, depth = _sphere_view(camera)
    opacity = (depth > 0).float()
    shown = to_uint8(image[0])
    depth = torch.where(depth > 0, depth, 2.5)
    return View(image=shown, raw=shown, depth=depth, opacity=opacity, camera=camera)


def test_a_model_with_one_surface_agrees_with_itself_and_its_background_does_not_count() -> None:
    a, b = _view(Camera.look_at_head(0.15)), _view(Camera.look_at_head(-0.15, 0.1))
    result = model_consistency([(a, b), (a, a)])
    exact = view_consistency(Surface(*_sphere_view(a.camera), a.camera), Surface(*_sphere_view(b.camera), b.camera))
    assert result.error.shape == result.shared.shape == (2,)
    assert result.error[0] == pytest.approx(exact.error[0], abs=0.5)  # 8-bit rounding
    assert result.shared[0] == pytest.approx(exact.shared[0], abs=1e-6)
    assert result.error[1] < 1e-3 and 0.2 < result.shared[1] < 0.4


def test_a_model_whose_colours_change_with_the_camera_is_found_out() -> None:
    a = _view(Camera.look_at_head())
    pale = replace(a, image=a.image // 2 + 60)
    seen = a.opacity[0, 0].numpy() > 0
    expected = np.abs(a.image.astype(float) - pale.image)[seen].mean()
    assert model_consistency([(a, pale)]).error[0] == pytest.approx(expected, abs=0.01)


def test_a_model_that_is_transparent_everywhere_has_no_value() -> None:
    a = _view(Camera.look_at_head())
    empty = replace(a, opacity=0.5 * a.opacity)
    result = model_consistency([(empty, a)])
    assert np.isnan(result.error[0]) and result.shared[0] == 0


@pytest.mark.parametrize(("yaw_deg", "then_deg"), [(40.0, 25.0), (-40.0, -25.0), (5.0, -10.0)])
def test_the_second_camera_is_turned_towards_the_front(yaw_deg: float, then_deg: float) -> None:
    camera = Camera.look_at_head(np.radians(yaw_deg), radius=2.5)
    other = turned(camera)
    assert np.degrees(other.head_angles()[0]) == pytest.approx([then_deg, 0.0, 0.0], abs=1e-3)
    assert other.cam_to_world[0, :3, 3].norm().item() == pytest.approx(2.5, abs=1e-5)
    assert TURN_DEG == 15.0


def _clip(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), level, dtype=np.uint8) for level in levels])


def test_a_still_and_a_steadily_changing_clip_do_not_flicker() -> None:
    assert flicker(_clip([7, 7, 7, 7])).tolist() == [0.0, 0.0]
    assert flicker(_clip([0, 10, 20, 30])).tolist() == [0.0, 0.0]


def test_a_single_bright_frame_flickers_by_its_whole_jump() -> None:
    # 10, 30, 10: |30 - 10| = 20 in the middle; its neighbours see half of it: |10 - (10 + 30) / 2| = 10.
    assert flicker(_clip([10, 10, 30, 10, 10])).tolist() == [10.0, 20.0, 10.0]


def test_excess_is_what_goes_beyond_the_driving_clip() -> None:
    assert excess_flicker(_clip([10, 30, 10]), _clip([10, 14, 10])).tolist() == [16.0]
    assert excess_flicker(_clip([10, 10, 10]), _clip([10, 14, 10])).tolist() == [-4.0]


def test_too_short_or_unequal_clips_are_named() -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 \(T >= 3, H, W, 3\); got uint8 \(2, 4, 4, 3\)"):
        flicker(_clip([1, 2]))
    with pytest.raises(ValueError, match="3 generated frames but 4 driving frames"):
        excess_flicker(_clip([1, 2, 3]), _clip([1, 2, 3, 4]))
