"""Tests of the head fit: exact on projected points at any roll, the way from crop to crop, its file, its training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.camera import Camera, rotation_angle_deg
from export3d.fitting.detections import Detections
from export3d.fitting.head_fit import fit_head, measure_poses
from export3d.tracking import Crop
from export3d.tracking.head_fit import COMPONENTS, HeadFit, HeadPose, corrected, smallest_turn

FIT = HeadFit.load()


def camera(yaw=0.0, pitch=0.0, roll=0.0, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    angles = (torch.tensor([np.radians(angle)], dtype=torch.float32) for angle in (yaw, pitch, roll))
    return (
        Camera.look_at_head(*angles, shift=torch.tensor(np.array([shift]), dtype=torch.float32)).to_vector()[0].numpy()
    )


def mesh_seen(p: np.ndarray, points: np.ndarray = FIT.template) -> np.ndarray:
    """The points as the camera sees them, with their depth in the same scale."""
    seen = Camera.from_vector(torch.from_numpy(p)[None])
    flat, depth = seen.project(torch.from_numpy(points)[None])
    scale = 4.2647 / float(depth.mean())
    return torch.cat([flat[0], (depth[0, :, None] - depth.mean()) * scale], dim=1).numpy()


@pytest.mark.parametrize("roll", [0.0, 25.0, 80.0, 179.0, -130.0])
@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (40.0, -10.0), (-25.0, 15.0)])
def test_the_camera_of_the_mean_head_is_found_exactly(yaw, pitch, roll):
    true = camera(yaw, pitch, roll, (0.05, -0.03, 0.2))
    found = FIT.fit_mean(mesh_seen(true)).camera()
    angle = rotation_angle_deg(*(Camera.from_vector(torch.from_numpy(p)[None]) for p in (found, true)))
    assert float(angle[0]) < 0.05
    assert HeadPose.of_camera(found).origin == pytest.approx(HeadPose.of_camera(true).origin, abs=1e-3)


def test_turning_the_picture_turns_the_answer_and_nothing_else():
    rng = np.random.default_rng(0)
    mesh = mesh_seen(camera(20.0, 5.0, 3.0)) + rng.normal(size=(478, 3)).astype(np.float32) * 0.003
    angle = np.radians(70.0)
    plane = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = mesh.copy()
    turned[:, :2] = (mesh[:, :2] - 0.5) @ plane.T + 0.5
    whole = np.eye(3)
    whole[:2, :2] = plane
    before, after = FIT.fit(mesh), FIT.fit(turned)
    assert after.rotation == pytest.approx(whole @ before.rotation, abs=1e-5)
    assert after.origin == pytest.approx(whole @ before.origin, abs=1e-5)


def test_a_pose_goes_to_its_camera_and_back():
    true = camera(12.0, -7.0, 33.0, (0.1, 0.02, -0.3))
    assert HeadPose.of_camera(true).camera() == pytest.approx(true, abs=1e-6)


def test_another_window_shows_the_same_picture():
    true = camera(15.0, 5.0, 8.0)
    crop, window = Crop(300.0, 220.0, 150.0), Crop(270.0, 240.0, 200.0)
    seen = HeadPose.of_camera(true).seen_in(crop, window).camera()
    pixels = [square.from_crop(mesh_seen(p)[:, :2]) for square, p in ((crop, true), (window, seen))]
    assert np.linalg.norm(pixels[0] - pixels[1], axis=1).max() < 3.0  # a nearer lens, not a longer one
    assert np.abs((pixels[0] - pixels[1]).mean(axis=0)).max() < 0.5
    back = HeadPose.of_camera(seen).seen_in(window, crop).camera()
    assert back == pytest.approx(true, abs=1e-5)


def test_the_smallest_turn_takes_one_direction_to_the_other():
    start, end = np.array([0.2, -0.1, 2.0]), np.array([-0.5, 0.4, 3.0])
    turned = smallest_turn(start, end) @ start
    assert np.cross(turned, end) == pytest.approx(np.zeros(3), abs=1e-9) and turned @ end > 0.0
    assert smallest_turn(start, 2.0 * start) == pytest.approx(np.eye(3))


def made_up(people: int = 12, frames: int = 8) -> Detections:
    """Heads that are longer or deeper than the mean one, without noise."""
    rng = np.random.default_rng(3)
    modes = np.stack([FIT.template * [0.0, 0.06, 0.0], FIT.template * [0.0, 0.0, 0.1]]).astype(np.float32)
    meshes, cameras, clip = [], [], []
    for person in range(people):
        points = FIT.template + np.tensordot(rng.normal(size=2).astype(np.float32), modes, 1)
        for _ in range(frames):
            p = camera(*rng.normal(size=3) * [15.0, 6.0, 4.0], rng.normal(size=3) * [0.02, 0.02, 0.05])
            meshes.append(mesh_seen(p, points))
            cameras.append(p)
            clip.append(person)
    count = len(clip)
    return Detections(
        found_landmarks=np.zeros((count, 68, 2), np.float32),
        mesh=np.stack(meshes),
        scores=np.zeros((0, 52), np.float32),
        true_landmarks=np.zeros((count, 68, 2), np.float32),
        true_camera=np.stack(cameras),
        true_beta=np.zeros((count, 64), np.float32),
        true_weights=np.zeros((count, 53), np.float32),
        asked_yaw=np.zeros(count, np.float32),
        found=np.ones(count, bool),
        clip=np.array(clip),
    )


@pytest.mark.slow
def test_the_fit_finds_the_mean_head_again_and_its_correction_helps_other_people():
    seen = made_up()
    train, unseen = seen.part(held_out=False), seen.part(held_out=True)
    fit = fit_head(train, steps=400)
    assert np.abs(fit.template - FIT.template).mean() < 0.004
    assert fit.weight.sum() == pytest.approx(1.0, abs=1e-5)
    plain = measure_poses([fit.fit_mean(mesh) for mesh in unseen.mesh], unseen, fit)
    better = measure_poses([fit.fit(mesh) for mesh in unseen.mesh], unseen, fit)
    assert better["rotation_deg"] < 0.7 * plain["rotation_deg"]
    assert better["face_px"] < plain["face_px"]
    assert better["distance_within_percent"] < plain["distance_within_percent"]
    again = fit_head(train, steps=400)
    assert np.array_equal(again.outer, fit.outer)  # it draws from a seed


def test_a_mesh_that_was_found_upside_down_spoils_nothing():
    seen = made_up()
    mesh = seen.mesh.copy()
    mesh[5] = mesh[5] * [-1.0, -1.0, 1.0] + [1.0, 1.0, 0.0]
    spoilt, clean = fit_head(replace(seen, mesh=mesh.astype(np.float32)), steps=1), fit_head(seen, steps=1)
    turned = [fit.fit_mean(seen.mesh[0]).rotation for fit in (spoilt, clean)]
    assert np.abs(turned[0] - turned[1]).max() < 0.002
    assert np.abs(spoilt.template - clean.template).max() < 0.002


def test_a_correction_of_nothing_changes_nothing():
    pose = HeadPose.of_camera(camera(10.0, 3.0, 40.0))
    same = corrected(pose, np.zeros(6))
    assert np.array_equal(same.rotation, pose.rotation) and np.array_equal(same.origin, pose.origin)
    farther = corrected(pose, np.array([0.0, 0.0, 0.0, 0.0, 0.0, np.log(1.1)]))
    assert farther.origin[2] == pytest.approx(1.1 * pose.origin[2])


def told(**arrays: np.ndarray) -> HeadFit:
    """The bundled mean head with a network of zeros but for these arrays."""
    names = ("basis", "inner", "inner_bias", "outer", "bias")
    return replace(FIT, **{name: np.zeros_like(getattr(FIT, name)) for name in names} | arrays)


def one(name: str, place: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    array = np.zeros_like(getattr(FIT, name))
    array[place] = value
    return {name: array}


def test_the_network_corrects_as_computed_by_hand():
    mesh = mesh_seen(camera(20.0, 5.0))
    plain = FIT.fit_mean(mesh)
    far = told(**one("bias", (5,), np.log(1.5))).fit(mesh)
    assert far.origin[2] == pytest.approx(1.5 * plain.origin[2], rel=1e-6) and np.array_equal(
        far.rotation, plain.rotation
    )
    # 2 / (1 + e^-2) = 1.761594
    hidden = told(**one("inner_bias", (7,), 2.0), **one("outer", (7, 5), 0.1)).fit(mesh)
    assert hidden.origin[2] == pytest.approx(np.exp(0.1761594) * plain.origin[2], rel=1e-6)
    # From 20 degrees aside and 5 from above one sees by their sines; the features are four times these.
    place = FIT.features(FIT.mean.astype(float), plain)[COMPONENTS:]
    assert np.abs(place) == pytest.approx([4.0 * 0.34202 * 0.99619, 4.0 * 0.08716], abs=0.03)


def test_an_unusual_face_reaches_no_farther_than_four_deviations():
    mesh = mesh_seen(camera())
    face = FIT.turned(mesh, FIT.fit_mean(mesh))
    odd = replace(told(**one("basis", (0, 3), 1.0)), mean=(face - np.eye(1434)[0] * 9.0).astype(np.float32))
    features = odd.features(face, FIT.fit_mean(mesh))
    assert features[3] == 4.0 and not features[[0, 1, 2, 4]].any()


def test_wrong_meshes_and_arrays_are_refused():
    with pytest.raises(ValueError, match=r"finite and of shape \(478, 3\)"):
        FIT.fit(np.full((478, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="head-fit map: weight must be finite float32"):
        replace(FIT, weight=np.zeros(3, np.float32))
