"""Tests of the regressor's second input: turning meshes, the network, its place in the file, and who is asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.errors import CheckpointError
from export3d.tracking.alignment import Alignment, Crop
from export3d.tracking.faces import ExtractorInfo, Face, ObservingModel
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.mesh_regressor import NUM_MESH, MeshConfig, MeshNet, turn_to_template
from export3d.tracking.regressor import LandmarkRegressor, RegressorConfig, RegressorNet, mesh_in_crop
from export3d.tracking.standin import face_from_landmarks


def face_mesh(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(NUM_MESH, 3)).astype(np.float32)


def regressor(mesh: bool = True) -> LandmarkRegressor:
    torch.manual_seed(0)
    net = None
    if mesh:
        net = MeshNet(MeshConfig(components=5, hidden=8))
        net.get_buffer("template").copy_(torch.from_numpy(face_mesh()))
        net.get_buffer("basis").copy_(torch.randn(3 * NUM_MESH, 5) * 0.02)
        net.get_buffer("beta_gain").fill_(1.5)
    info = ExtractorInfo("landmark-regressor", "2", "", "ict64")
    return LandmarkRegressor(RegressorNet(RegressorConfig(hidden=8)), info, None, Alignment(), mesh_net=net)


def face(mesh: np.ndarray | None) -> Face:
    points = face_from_landmarks(np.random.default_rng(1).uniform(20, 80, (68, 2)))
    return Face(box=points.box, landmarks_px=points.landmarks_px, confidence=1.0, mesh=mesh)


def test_a_turned_scaled_and_moved_template_comes_back():
    template = torch.from_numpy(face_mesh())
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    rotation = rotation * torch.linalg.det(rotation).sign()
    shift = torch.tensor([0.3, -2.0, 1.0])
    weight = torch.full((NUM_MESH,), 1.0 / NUM_MESH)
    turned, place = turn_to_template((2.0 * template @ rotation.T + shift)[None], template, weight)
    assert torch.allclose(turned[0], template, atol=1e-4)
    assert float(place[0, 6]) == pytest.approx(2.0, rel=1e-4)
    assert torch.allclose(place[0, :3], rotation[:, 0], atol=1e-4)
    assert torch.allclose(place[0, 7:], 2.0 * template.mean(0) @ rotation.T + shift, atol=1e-4)


def test_a_mirror_image_is_not_turned_into_the_template():
    template = torch.from_numpy(face_mesh())
    weight = torch.full((NUM_MESH,), 1.0 / NUM_MESH)
    turned, place = turn_to_template((template * torch.tensor([-1.0, 1.0, 1.0]))[None], template, weight)
    assert float((turned[0] - template).norm(dim=1).mean()) > 0.3
    first, second = place[0, :3], place[0, 3:6]
    assert float(first @ second) == pytest.approx(0.0, abs=1e-5) and float(first.norm()) == pytest.approx(1.0, abs=1e-5)


def test_pose_does_not_change_the_components_of_a_mesh():
    net = regressor().mesh_net
    mesh = torch.from_numpy(face_mesh(3))
    turn = torch.tensor([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    features = net.features(torch.stack([mesh, 1.3 * mesh @ turn.T + 0.2]))
    assert torch.allclose(features[0, :5], features[1, :5], atol=1e-3)
    assert not torch.allclose(features[0, 5:], features[1, 5:], atol=1e-2)


def test_no_feature_of_an_unheard_of_mesh_leaves_the_range_of_the_training():
    assert float(regressor().mesh_net.features(torch.from_numpy(100.0 * face_mesh(4))[None]).abs().max()) == 4.0


def test_the_gain_stretches_beta_about_its_mean():
    net = regressor().mesh_net
    mesh = torch.from_numpy(face_mesh(5))[None]
    net.get_buffer("beta_mean").fill_(0.25)
    with torch.no_grad():
        stretched = net(mesh)[1]
        net.get_buffer("beta_gain").fill_(1.0)
        plain = net(mesh)[1]
    assert torch.allclose(stretched - 0.25, 1.5 * (plain - 0.25), atol=1e-5)


def test_a_mesh_in_the_crop_by_hand():
    mesh = np.zeros((NUM_MESH, 3), np.float32)
    mesh[0] = (60.0, 30.0, -10.0)
    assert mesh_in_crop(mesh, Crop(50.0, 40.0, 40.0))[0] == pytest.approx([0.75, 0.25, -0.25])


def test_a_face_with_a_mesh_is_read_by_its_mesh_and_another_by_its_points():
    both, crop, frame = regressor(), Crop(50.0, 50.0, 80.0), np.zeros((100, 100, 3), np.uint8)
    assert isinstance(both, ObservingModel)
    mesh = 50.0 + 10.0 * face_mesh(6)
    level = replace(crop, angle=face(mesh).roll)
    by_mesh = both.coefficients_of_meshes(mesh_in_crop(mesh, level)[None])
    by_points = both.coefficients(crop.to_crop(face(None).landmarks_px)[None])
    beta, camera = both.observe(frame, face(mesh), crop)
    assert np.allclose(beta, by_mesh[0][0], atol=1e-5) and beta.dtype == np.float32
    assert np.array_equal(camera, HeadFit.load().fit(mesh_in_crop(mesh, crop)).camera())
    beta, camera = both.observe(frame, face(None), crop)
    assert np.array_equal(beta, by_points[0][0]) and np.array_equal(camera, by_points[1][0])
    assert not np.allclose(by_mesh[0], by_points[0])
    only_points = regressor(mesh=False)
    assert np.array_equal(
        only_points.observe(frame, face(mesh), crop)[0], only_points.observe(frame, face(None), crop)[0]
    )


def test_wrong_meshes_are_refused():
    with pytest.raises(ValueError, match="no network for dense meshes"):
        regressor(mesh=False).coefficients_of_meshes(face_mesh()[None])
    broken = face_mesh()[None].copy()
    broken[0, 3] = np.nan
    for bad in (face_mesh(), broken):
        with pytest.raises(ValueError, match=r"finite and of shape \(N, 478, 3\)"):
            regressor().coefficients_of_meshes(bad)
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        MeshConfig(components=0)


def test_both_networks_come_back_from_the_file(tmp_path):
    made = regressor()
    made.save(tmp_path / "r.safetensors")
    back = LandmarkRegressor.load(tmp_path / "r.safetensors")
    mesh = face_mesh(7)[None]
    for a, b in zip(made.coefficients_of_meshes(mesh), back.coefficients_of_meshes(mesh), strict=True):
        assert np.array_equal(a, b)


def test_a_file_whose_mesh_network_is_of_another_size_is_refused(tmp_path):
    made = regressor()
    assert made.mesh_net is not None
    made.mesh_net.config = MeshConfig(components=6, hidden=8)
    made.save(tmp_path / "r.safetensors")
    with pytest.raises(CheckpointError, match="do not fit the configuration"):
        LandmarkRegressor.load(tmp_path / "r.safetensors")
