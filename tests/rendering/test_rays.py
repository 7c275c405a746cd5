"""rendering/rays.py: EG3D's pixel centres, unit directions, windows, and agreement with the camera's projection."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from export3d.camera import FOCAL, Camera
from export3d.rendering.rays import cast_rays


def _cameras() -> Camera:
    return Camera.look_at_head(
        torch.tensor([0.0, 0.4, -0.7]), torch.tensor([0.0, -0.2, 0.3]), torch.tensor([0.0, 0.1, -0.2])
    )


def test_directions_have_unit_length_and_start_at_the_camera() -> None:
    camera = _cameras()
    origins, directions = cast_rays(camera, 8)
    assert origins.shape == directions.shape == (3, 64, 3)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 64), atol=1e-6)
    assert torch.equal(origins, camera.cam_to_world[:, None, :3, 3].expand(3, 64, 3))


def test_the_middle_ray_of_an_odd_image_passes_through_the_box_centre() -> None:
    origins, directions = cast_rays(_cameras(), 9)
    middle = directions[:, 40]  # row 4, column 4 of 9 x 9
    assert torch.allclose(origins[:, 40] + 2.7 * middle, torch.zeros(3, 3), atol=1e-5)


def test_rays_run_row_by_row_from_the_top_left() -> None:
    """Frontal camera: the first ray goes to the left (-x) and up (+y), the second further right, the last to the
    opposite corner. Pixel 0 of 4 has its centre at 0.125: x / z = (0.125 - 0.5) / 4.2647 = -0.0879312."""
    _, directions = cast_rays(Camera.look_at_head(), 4)
    slope = directions[0] / -directions[0, :, 2:]  # per unit of depth; the camera looks along -z
    assert slope[0, :2].tolist() == pytest.approx([-0.0879312, 0.0879312], abs=1e-6)
    assert slope[1, :2].tolist() == pytest.approx([-0.125 / FOCAL, 0.0879312], abs=1e-6)
    assert slope[15, :2].tolist() == pytest.approx([0.0879312, -0.0879312], abs=1e-6)


def test_any_point_on_a_ray_projects_back_to_its_pixel_centre() -> None:
    camera = _cameras()
    origins, directions = cast_rays(camera, 8)
    for t in (2.25, 2.7, 3.3):
        seen, depth = camera.project(origins + t * directions)
        centres = (torch.arange(8) + 0.5) / 8
        v, u = torch.meshgrid(centres, centres, indexing="ij")
        expected = torch.stack([u, v], dim=-1).reshape(1, 64, 2).expand(3, 64, 2)
        assert torch.allclose(seen, expected, atol=1e-5)
        assert (depth < t + 1e-6).all()  # t is the distance along the ray, not the depth along the axis


def test_skew_and_unequal_focal_lengths_are_honoured() -> None:
    camera = Camera.look_at_head()
    k = camera.intrinsics.clone()
    k[0] = torch.tensor([[4.0, 0.3, 0.45], [0.0, 3.0, 0.55], [0.0, 0.0, 1.0]])
    _, directions = cast_rays(Camera(camera.cam_to_world, k), 5)
    for row in range(5):
        for column in range(5):
            d = directions[0, row * 5 + column]
            x, y, z = float(d[0]), -float(d[1]), -float(d[2])  # the frontal camera: x right, y down, z forward
            u = (4.0 * x + 0.3 * y) / z + 0.45
            v = 3.0 * y / z + 0.55
            assert (u, v) == pytest.approx(((column + 0.5) / 5, (row + 0.5) / 5), abs=1e-5)


def _crop(rays: Tensor, size: int, top: int, left: int, side: int) -> Tensor:
    return rays.reshape(-1, size, size, 3)[:, top : top + side, left : left + side].flatten(1, 2)


def test_a_window_casts_exactly_the_rays_of_that_square() -> None:
    camera = _cameras()
    top, left = torch.tensor([0, 3, 4]), torch.tensor([4, 1, 0])
    _, whole = cast_rays(camera, 8)
    origins, window = cast_rays(camera, 8, (top, left, 4))
    assert window.shape == origins.shape == (3, 16, 3)
    for b in range(3):
        square = _crop(whole[b : b + 1], 8, int(top[b]), int(left[b]), 4)
        # A matrix product may sum in another order for another number of rays: a last place, far below a pixel.
        torch.testing.assert_close(window[b : b + 1], square, rtol=0, atol=1e-6)


def test_the_field_of_view_is_that_of_the_focal_length() -> None:
    _, directions = cast_rays(Camera.look_at_head(), 64)
    row = directions[0].reshape(64, 64, 3)[32]
    angle = math.degrees(math.acos(float(row[0] @ row[-1])))
    # The outermost pixel centres are 63/64 of the image apart: 2 atan(0.4921875 / 4.2647) = 13.167 deg.
    assert angle == pytest.approx(13.167, abs=0.01)


def test_rays_are_as_exact_under_autocast_as_without() -> None:
    camera = Camera.look_at_head(torch.tensor([0.2, -0.4]), torch.tensor([0.1, 0.0]))
    plain = cast_rays(camera, 16)
    with torch.autocast("cpu", torch.bfloat16):
        under = cast_rays(camera, 16)
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True))
