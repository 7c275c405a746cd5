"""camera.py: golden numbers of EG3D's pipeline, round trips, mirrors, and projections worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from export3d.camera import FOCAL, RADIUS, Camera, head_rotation, rotation_angle_deg

ANGLES = torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64)
TRANSLATION = torch.tensor([[0.02, -0.03, 0.4]], dtype=torch.float64)

# Deep3DFaceRecon pose above, worked out in double precision and rounded to six decimals.
ROTATION = torch.tensor(
    [[0.978842, -0.048983, -0.198669], [-0.069539, -0.992769, -0.097843], [-0.192440, 0.109588, -0.975170]],
    dtype=torch.float64,
)
POSITIONS = {
    "orig": (0.500818, 0.263169, 2.640061),
    "cor": (0.533996, 0.280604, 2.806750),
    "exact": (0.510062, 0.262027, 2.527793),
}


@pytest.mark.parametrize("mode", list(POSITIONS))
def test_golden_camera_of_a_deep3d_pose(mode: str) -> None:
    camera = Camera.from_deep3d(ANGLES, TRANSLATION, mode)
    assert torch.allclose(camera.cam_to_world[0, :3, :3], ROTATION, atol=1e-6, rtol=0)
    expected = torch.tensor(POSITIONS[mode], dtype=torch.float64)
    assert torch.allclose(camera.cam_to_world[0, :3, 3], expected, atol=1e-6, rtol=0)


def test_golden_camera_of_the_zero_pose() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64)
    world = Camera.from_deep3d(zero, zero).cam_to_world[0]
    assert torch.equal(world[:3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)))
    # 0.27 * 10 + 0.161 = 2.861; (0.006, 2.861) scaled to length 2.7 is (0.005662, 2.699994).
    expected = torch.tensor([0.0, 0.005662, 2.699994], dtype=torch.float64)
    assert torch.allclose(world[:3, 3], expected, atol=1e-6, rtol=0)


def test_the_position_modes_keep_their_distances() -> None:
    orig = Camera.from_deep3d(ANGLES, TRANSLATION, "orig").cam_to_world[0, :3, 3]
    cor = Camera.from_deep3d(ANGLES, TRANSLATION, "cor").cam_to_world[0, :3, 3]
    assert orig.norm().item() == pytest.approx(2.7, abs=1e-12)
    assert (cor - torch.tensor([0.0, 0.0, 0.175], dtype=torch.float64)).norm().item() == pytest.approx(2.7, abs=1e-12)


def test_an_unknown_position_mode_is_named() -> None:
    with pytest.raises(ValueError, match="position_mode must be 'orig', 'cor' or 'exact'; got 'origin'"):
        Camera.from_deep3d(ANGLES, TRANSLATION, "origin")


def test_the_exact_camera_reprojects_as_deep3d_does() -> None:
    """Deep3D: v_cam = R v + t, seen from distance 10 along -z; focal length 2985.29 over the 700 crop."""
    points = torch.tensor(
        [[-0.3115, 0.2904, 0.1338], [0.3098, 0.2897, 0.1318], [0.0033, -0.0462, 0.5524]], dtype=torch.float64
    )
    x, y, z = ANGLES[0].tolist()
    rot_x = [[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]]
    rot_y = [[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]]
    rot_z = [[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]]
    rotation = _matrix(rot_z) @ _matrix(rot_y) @ _matrix(rot_x)
    in_camera = points @ rotation.T + TRANSLATION
    distance = 10 - in_camera[:, 2]
    focal = 2985.29 / 700
    expected = torch.stack([0.5 + focal * in_camera[:, 0] / distance, 0.5 - focal * in_camera[:, 1] / distance], dim=-1)
    seen, depth = Camera.from_deep3d(ANGLES, TRANSLATION, "exact").project(0.27 * points[None])
    assert torch.allclose(seen[0], expected, atol=1e-12)
    assert torch.allclose(depth[0], 0.27 * distance, atol=1e-12)


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_25_numbers_are_cam_to_world_then_intrinsics_and_round_trip() -> None:
    p = torch.arange(50.0).reshape(2, 25)
    camera = Camera.from_vector(p)
    assert camera.cam_to_world[1, 0].tolist() == [25, 26, 27, 28]
    assert camera.intrinsics[1, 2].tolist() == [47, 48, 49]
    assert torch.equal(camera.to_vector(), p)


def test_a_vector_of_24_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p must have shape \(\*, 25\); got \(2, 24\)"):
        Camera.from_vector(torch.zeros(2, 24))


def test_cameras_and_intrinsics_must_be_as_many() -> None:
    with pytest.raises(ValueError, match=r"intrinsics must have shape \(2, 3, 3\); got \(1, 3, 3\)"):
        Camera(torch.eye(4).repeat(2, 1, 1), torch.eye(3)[None])


def test_the_frontal_camera_stands_on_the_z_axis_and_looks_at_the_origin() -> None:
    camera = Camera.look_at_head()
    assert torch.allclose(camera.cam_to_world[0, :3, 3], torch.tensor([0.0, 0.0, RADIUS]))
    assert torch.equal(camera.cam_to_world[0, :3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    seen, depth = camera.project(torch.zeros(1, 1, 3))
    assert torch.allclose(seen[0, 0], torch.tensor([0.5, 0.5])) and depth.item() == pytest.approx(2.7)


def test_projection_of_a_point_by_hand() -> None:
    # Frontal camera at z = 2.7; the point (0.1, 0.2, 0.2) is 2.5 in front of it.
    # x: 0.5 + 4.2647 * 0.1 / 2.5 = 0.6705880; y runs down: 0.5 - 4.2647 * 0.2 / 2.5 = 0.1588240.
    seen, depth = Camera.look_at_head().project(torch.tensor([[[0.1, 0.2, 0.2]]]))
    assert depth.item() == pytest.approx(2.5, abs=1e-6)
    assert seen[0, 0].tolist() == pytest.approx([0.6705880, 0.1588240], abs=1e-6)


def test_projection_uses_each_axis_own_focal_length_and_centre() -> None:
    camera = Camera.look_at_head()
    k = torch.tensor([[[4.0, 0.0, 0.45], [0.0, 3.0, 0.55], [0.0, 0.0, 1.0]]])
    seen, _ = Camera(camera.cam_to_world, k).project(torch.tensor([[[0.1, 0.2, 0.2]]]))
    # x: 0.45 + 4 * 0.1 / 2.5 = 0.61; y: 0.55 - 3 * 0.2 / 2.5 = 0.31.
    assert seen[0, 0].tolist() == pytest.approx([0.61, 0.31], abs=1e-6)


def test_positive_yaw_turns_the_nose_to_the_image_right_and_positive_pitch_downwards() -> None:
    nose = torch.tensor([[[0.0, 0.0, 0.2]]])
    right, _ = Camera.look_at_head(yaw=0.3).project(nose)
    down, _ = Camera.look_at_head(pitch=0.3).project(nose)
    # The nose turns to (0.2 sin 0.3, 0, 0.2 cos 0.3) before a camera at z = 2.7:
    # 0.5 + 4.2647 * 0.0591040 / (2.7 - 0.1910673) = 0.6004654.
    assert right[0, 0].tolist() == pytest.approx([0.6004654, 0.5], abs=1e-5)
    assert down[0, 0].tolist() == pytest.approx([0.5, 0.6004654], abs=1e-5)


def test_positive_roll_lifts_the_right_side_of_the_image() -> None:
    ear = torch.tensor([[[0.2, 0.0, 0.0]]])
    seen, _ = Camera.look_at_head(roll=0.2).project(ear)
    assert seen[0, 0, 1] < 0.5  # upwards


def test_seeing_a_turned_head_equals_turning_the_points() -> None:
    angles = torch.tensor([0.4]), torch.tensor([-0.2]), torch.tensor([0.1])
    shift = torch.tensor([[0.03, -0.02, 0.1]])
    points = torch.randn(1, 20, 3) * 0.2
    turned = points @ head_rotation(*angles).transpose(1, 2)
    seen, depth = Camera.look_at_head(*angles, shift=shift).project(points)
    still, still_depth = Camera.look_at_head(shift=shift).project(turned)
    assert torch.allclose(seen, still, atol=1e-5) and torch.allclose(depth, still_depth, atol=1e-5)


def test_head_angles_undo_look_at_head() -> None:
    generator = torch.Generator().manual_seed(3)
    angles = (torch.rand(50, 3, generator=generator) - 0.5) * torch.tensor([2.8, 2.0, 2.8])
    camera = Camera.look_at_head(*angles.unbind(-1))
    assert torch.allclose(camera.head_angles(), angles, atol=1e-5)


def test_head_angles_ignore_where_the_camera_stands() -> None:
    camera = Camera.look_at_head(0.2, 0.1, -0.1, shift=torch.tensor([[0.3, -0.2, 0.5]]))
    assert torch.allclose(camera.head_angles(), torch.tensor([[0.2, 0.1, -0.1]]), atol=1e-6)


def _random_cameras(count: int = 8) -> Camera:
    generator = torch.Generator().manual_seed(5)
    angles = (torch.rand(3, count, generator=generator) - 0.5) * 1.2
    shift = torch.randn(count, 3, generator=generator) * 0.05
    return Camera.look_at_head(*angles, shift=shift)


def test_the_mirrored_camera_sees_mirrored_points_at_mirrored_places() -> None:
    camera = _random_cameras()
    points = torch.randn(len(camera), 10, 3) * 0.2
    seen, depth = camera.project(points)
    mirrored, mirrored_depth = camera.mirrored().project(points * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.allclose(mirrored[..., 0], 1 - seen[..., 0], atol=1e-5)
    assert torch.allclose(mirrored[..., 1], seen[..., 1], atol=1e-5)
    assert torch.allclose(mirrored_depth, depth, atol=1e-5)


def test_mirroring_negates_the_five_entries_of_the_pose_and_keeps_it_rigid() -> None:
    camera = _random_cameras()
    expected = camera.cam_to_world.clone()
    for row, column in ((0, 1), (0, 2), (1, 0), (2, 0), (0, 3)):
        expected[:, row, column] *= -1
    assert torch.allclose(camera.mirrored().cam_to_world, expected)
    assert torch.allclose(torch.linalg.det(expected[:, :3, :3]), torch.ones(len(camera)), atol=1e-5)


def test_mirroring_twice_is_the_identity_and_mirrors_yaw_and_roll_only() -> None:
    camera = _random_cameras()
    assert torch.equal(camera.mirrored().mirrored().cam_to_world, camera.cam_to_world)
    signs = torch.tensor([-1.0, 1.0, -1.0])
    assert torch.allclose(camera.mirrored().head_angles(), camera.head_angles() * signs, atol=1e-5)


def test_the_angle_between_cameras_is_the_yaw_between_them() -> None:
    a = Camera.look_at_head(torch.tensor([0.1, 0.0]))
    b = Camera.look_at_head(torch.tensor([0.4, -0.5]))
    # 0.3 rad = 17.188734 deg, 0.5 rad = 28.647890 deg.
    assert rotation_angle_deg(a, b).tolist() == pytest.approx([17.188734, 28.647890], abs=1e-3)


def test_the_focal_length_gives_the_field_of_view_of_the_eg3d_crop() -> None:
    assert pytest.approx(4.2647, abs=1e-6) == FOCAL
    # 2 atan(0.5 / 4.2647) = 13.37 deg.
    assert math.degrees(2 * math.atan(0.5 / FOCAL)) == pytest.approx(13.37, abs=0.005)


def test_a_batch_can_be_sliced_and_measured() -> None:
    camera = _random_cameras(6)
    assert len(camera) == 6 and len(camera[2:5]) == 3
    assert torch.equal(camera[2:5].to_vector(), camera.to_vector()[2:5])
    picked = camera[torch.tensor([5, 0])]
    assert torch.equal(picked.to_vector(), camera.to_vector()[[5, 0]])


def test_the_heads_turn_is_the_rotation_vector_of_its_angles() -> None:
    yaw, pitch, roll = (
        Camera.look_at_head(*angles).head_turn()[0].tolist() for angles in ((0.3,), (0, 0.2), (0, 0, -0.4))
    )
    assert yaw == pytest.approx([0.0, 0.3, 0.0], abs=1e-4)
    assert pitch == pytest.approx([0.2, 0.0, 0.0], abs=1e-4)
    assert roll == pytest.approx([0.0, 0.0, -0.4], abs=1e-4)
    assert Camera.look_at_head().head_turn().abs().max() < 1e-3


def test_the_mirrored_cameras_head_turns_the_other_way() -> None:
    camera = _random_cameras()
    signs = torch.tensor([1.0, -1.0, -1.0])
    assert torch.allclose(camera.mirrored().head_turn(), camera.head_turn() * signs, atol=1e-4)


def test_a_projection_is_as_exact_under_autocast_as_without() -> None:
    camera = _random_cameras()
    points = torch.randn(len(camera), 10, 3) * 0.2
    plain = camera.project(points)
    with torch.autocast("cpu", torch.bfloat16):
        under = camera.project(points)
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True))
