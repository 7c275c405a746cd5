"""Tests of the landmark regressor: geometry of its pose, its file, and the bundled weights on exact projections."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from export3d.camera import Camera, rotation_angle_deg
from export3d.errors import CheckpointError, OutputError
from export3d.tensor_files import sealed
from export3d.tracking.alignment import Alignment
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.regressor import (
    LandmarkRegressor,
    RegressorConfig,
    RegressorNet,
    camera_from_pose,
    pose_from_camera,
)

MIRROR_68 = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def random_cameras(count: int) -> Camera:
    generator = torch.Generator().manual_seed(3)
    yaw, pitch, roll = (torch.randn(count, generator=generator) * 0.4 for _ in range(3))
    shift = torch.randn(count, 3, generator=generator) * 0.05
    return Camera.look_at_head(yaw, pitch, roll, shift)


def small(seed: int = 0) -> LandmarkRegressor:
    torch.manual_seed(seed)
    config = RegressorConfig(hidden=8, layers=2, alignment=Alignment(rescale=250.0, origin=(0.0, 0.1, -0.3)))
    info = ExtractorInfo("landmark-regressor", "2", "", "ict64")
    offsets = np.random.default_rng(seed).normal(size=(68, 2)).astype(np.float32) * 0.01
    return LandmarkRegressor(RegressorNet(config), info, offsets, Alignment(rescale=240.0), notes={"heads": 3})


def test_pose_and_camera_are_inverse():
    camera = random_cameras(20)
    assert torch.allclose(camera_from_pose(pose_from_camera(camera)).to_vector(), camera.to_vector(), atol=1e-5)


def test_the_pose_of_a_frontal_camera_by_hand():
    # OpenCV axes: the camera's x is the world's x, its y the world's -y; it sees the origin 2.7 ahead.
    pose = pose_from_camera(Camera.look_at_head(torch.zeros(1)))
    assert torch.allclose(pose, torch.tensor([[1.0, 0, 0, 0, -1, 0, 0, 0, 2.7]]), atol=1e-6)


def test_any_nine_numbers_give_a_rotation():
    camera = camera_from_pose(torch.randn(50, 9))
    rotation = camera.cam_to_world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)


def test_the_tracker_offsets_are_taken_off():
    regressor = small()
    points = np.random.default_rng(1).random((4, 68, 2)).astype(np.float32)
    beta, camera = regressor.coefficients(points + regressor.offsets)
    wanted_beta, wanted_camera = regressor.coefficients_of_head_points(points)
    assert np.allclose(beta, wanted_beta, atol=1e-5) and np.allclose(camera, wanted_camera, atol=1e-5)
    assert beta.shape == (4, 64) and camera.shape == (4, 25) and beta.dtype == camera.dtype == np.float32


def test_the_value_of_a_missing_point_does_not_matter_but_its_absence_does():
    net = small().net
    points = torch.rand(1, 68, 2)
    present = torch.ones(1, 68)
    present[0, 5] = 0.0
    other = points.clone()
    other[0, 5] = 77.0
    assert all(torch.equal(a, b) for a, b in zip(net(points, present), net(other, present), strict=True))
    assert not torch.equal(net(points, present)[1], net(points, torch.ones(1, 68))[1])


def test_points_that_are_not_finite_count_as_missing():
    regressor = small()
    points = np.random.default_rng(1).random((2, 68, 2)).astype(np.float32)
    points[0, 9] = np.nan
    beta, camera = regressor.coefficients(points)
    assert np.isfinite(beta).all() and np.isfinite(camera).all()
    with pytest.raises(ValueError, match=r"\(N, 68, 2\); got \(68, 2\)"):
        regressor.coefficients(points[0])


def test_every_parameter_gets_a_gradient():
    net = RegressorNet(RegressorConfig(hidden=8))
    pose, beta = net(torch.rand(3, 68, 2), torch.ones(3, 68))
    (pose.square().sum() + beta.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_saved_regressor_comes_back_the_same(tmp_path):
    regressor = small()
    digest = regressor.save(tmp_path / "r.safetensors")
    back = LandmarkRegressor.load(tmp_path / "r.safetensors")
    points = np.random.default_rng(1).random((3, 68, 2)).astype(np.float32)
    for a, b in zip(regressor.coefficients(points), back.coefficients(points), strict=True):
        assert np.array_equal(a, b)
    assert back.alignment == Alignment(rescale=240.0)
    assert back.net.config.alignment == Alignment(rescale=250.0, origin=(0.0, 0.1, -0.3))
    assert back.info == ExtractorInfo("landmark-regressor", "2", digest, "ict64") and back.notes == {"heads": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.safetensors"]


def check_refused(path, text):
    with pytest.raises(CheckpointError, match=text) as caught:
        LandmarkRegressor.load(path)
    assert str(path) in str(caught.value) and caught.value.exit_code == 23


def test_bad_regressor_files_are_refused(tmp_path):
    path = tmp_path / "r.safetensors"
    check_refused(path, "no such regressor file")
    path.write_bytes(b"nothing")
    check_refused(path, "not a readable safetensors file")
    save_file({"a": torch.zeros(1)}, path, {"format": "export3d-regressor", "version": "9"})
    check_refused(path, "expected format 'export3d-regressor', version 2; got 'export3d-regressor', version 9")


def test_contents_that_do_not_fit_the_header_are_refused(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "r.safetensors"
    small().save(path)
    with safe_open(path, framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = load_file(path)
    config = json.loads(metadata["config"])
    save_file(tensors, path, sealed({**metadata, "config": json.dumps({**config, "hidden": 9})}, tensors))
    check_refused(path, "do not fit the configuration")
    save_file(tensors, path, sealed({**metadata, "config": json.dumps({**config, "colour": "red"})}, tensors))
    check_refused(path, "do not fit the configuration.*colour")
    del tensors["head.bias"]
    save_file(tensors, path, sealed(metadata, tensors))
    check_refused(path, "head.bias")


def test_a_folder_that_does_not_exist_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        small().save(tmp_path / "nowhere" / "r.safetensors")


def test_the_bundled_regressor_is_found_and_named():
    bundled = LandmarkRegressor.load()
    assert LandmarkRegressor.load() is bundled
    assert bundled.info.name == "landmark-regressor" and bundled.info.expression_space == "ict64"
    assert len(bundled.info.sha256) == 64 and bundled.offsets.shape == (68, 2)
    assert bundled.notes["extractor"]["name"] == "linear-landmark-fit"


def mean_face() -> np.ndarray:
    """The points that the bundled network was standardised with: a mean, near-frontal face."""
    return LandmarkRegressor.load().net.get_buffer("point_mean").numpy()


def test_the_bundled_regressor_sees_the_mean_face_from_the_front():
    _, p = LandmarkRegressor.load().coefficients_of_head_points(mean_face()[None])
    camera = Camera.from_vector(torch.from_numpy(p))
    assert camera.head_angles().rad2deg().abs().max() < 3.0
    assert float(camera.cam_to_world[0, :3, 3].norm()) == pytest.approx(2.7, abs=0.15)


def test_the_bundled_regressor_turns_with_a_rolled_face_and_mirrors_with_a_mirrored_one():
    face = mean_face()
    angle = 0.15
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float32)
    rolled = (face - 0.5) @ turn.T + 0.5  # clockwise on the screen, since y is down
    regressor = LandmarkRegressor.load()
    _, p = regressor.coefficients_of_head_points(np.stack([face, rolled]))
    roll = Camera.from_vector(torch.from_numpy(p)).head_angles()[:, 2]
    assert float(roll[0] - roll[1]) == pytest.approx(angle, abs=0.03)
    mirrored = rolled[MIRROR_68] * [-1.0, 1.0] + [1.0, 0.0]
    _, q = regressor.coefficients_of_head_points(np.stack([rolled, mirrored]))
    seen, wanted = Camera.from_vector(torch.from_numpy(q))[1:], Camera.from_vector(torch.from_numpy(q))[:1].mirrored()
    assert float(rotation_angle_deg(seen, wanted)) < 3.0


def test_the_bundled_regressor_stands_missing_points():
    regressor = LandmarkRegressor.load()
    full, few = mean_face(), mean_face().copy()
    few[:6] = np.nan
    (beta, _), (beta_few, p) = (regressor.coefficients_of_head_points(points[None]) for points in (full, few))
    assert np.abs(beta - beta_few).max() < 1.5
    assert Camera.from_vector(torch.from_numpy(p)).head_angles().rad2deg().abs().max() < 5.0


@pytest.mark.requires_shared
@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (20, 0, 0), (-35, 5, 0), (0, 12, 0), (10, -8, 6)])
def test_the_bundled_regressor_reads_exact_projections_of_the_head_model(yaw, pitch, roll):
    from export3d.heads.shape.model_file import read_head
    from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE

    head = read_head(os.environ["EXPORT3D_HEAD_MODEL"])
    world = (head.vertices[head.landmark_vertices] - torch.tensor(WORLD_ORIGIN_CM)) * WORLD_SCALE
    truth = Camera.look_at_head(*(torch.tensor([np.deg2rad(a)]).float() for a in (yaw, pitch, roll)))
    points = truth.project(world[None])[0].numpy()
    beta, p = LandmarkRegressor.load().coefficients_of_head_points(points)
    camera = Camera.from_vector(torch.from_numpy(p))
    assert float(rotation_angle_deg(camera, truth)) < 4.0
    drift = (camera.project(world[None])[0] - truth.project(world[None])[0]).norm(dim=-1).mean() * 256.0
    assert float(drift) < 4.0
    assert float(np.sqrt((beta**2).mean())) < 1.5
