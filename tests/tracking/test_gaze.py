"""Tests of the gaze map on meshes made by hand: directions, mirror, closed eyes, limits, its file, and the tracker."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from export3d.errors import CheckpointError
from export3d.fitting.mesh_regressor import mirror_indices
from export3d.heads.clips.motion import MAX_GAZE_RAD
from export3d.tracking import Tracker
from export3d.tracking.faces import ExtractorInfo, Face
from export3d.tracking.gaze import EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, GAZE_LIMIT_RAD, NUM_FEATURES, GazeMap, eye_features
from export3d.tracking.standin import MeasuredCoefficients, face_from_landmarks

FLIP = np.array([-1.0, 1.0, 1.0], dtype=np.float32)


@pytest.fixture(scope="module")
def bundled() -> GazeMap:
    return GazeMap.load()


def face_mesh(gaze_map: GazeMap, right: float = 0.0, down: float = 0.0, close: tuple[bool, bool] = (False, False)):
    """The map's own mean face, 200 units large, with mean eyes; irises moved by shares of the eye's width."""
    mesh = gaze_map.template.copy()
    for eye, outward, shut in ((EYE_IMAGE_LEFT, -1.0, close[0]), (EYE_IMAGE_RIGHT, 1.0, close[1])):
        corners = mesh[[eye[0], eye[8]]]
        width = np.linalg.norm(corners[0, :2] - corners[1, :2])
        offset = gaze_map.mean.reshape(-1, 3) * [outward, 1.0, 1.0] * width
        if shut:
            offset[1:8] = offset[9:16][::-1]  # the upper lid lies on the lower one
        offset[16:] += np.array([right, down, 0.0]) * width
        mesh[list(eye)] = corners.mean(0) + offset
    return (mesh * 200.0).astype(np.float32)


def turned(mesh: np.ndarray, yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return (mesh @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)


def test_irises_to_the_image_right_are_a_gaze_to_the_image_right(bundled):
    assert abs(bundled.read(face_mesh(bundled))[0]) < 0.02
    right, left = bundled.read(face_mesh(bundled, right=0.1)), bundled.read(face_mesh(bundled, right=-0.1))
    assert right[0] > 0.1 and left[0] < -0.1


def test_raised_irises_are_a_gaze_upwards(bundled):
    up, down = bundled.read(face_mesh(bundled, down=-0.08)), bundled.read(face_mesh(bundled, down=0.08))
    assert up[1] - down[1] > 0.05


def test_a_mirrored_mesh_gives_the_mirrored_gaze(bundled):
    mesh = face_mesh(bundled, right=0.07, down=0.03)
    mesh += np.random.default_rng(0).normal(size=mesh.shape).astype(np.float32)
    mirrored = (mesh * FLIP)[mirror_indices(torch.from_numpy(bundled.template)).numpy()]
    np.testing.assert_allclose(bundled.read(mirrored), bundled.read(mesh) * [-1.0, 1.0], atol=1e-4)


def test_place_size_and_turn_of_the_head_do_not_change_the_gaze(bundled):
    mesh = face_mesh(bundled, right=0.07)
    moved = turned(mesh, 0.4) * 3.0 + np.array([400.0, 300.0, 0.0], dtype=np.float32)
    # The irises' own weight in the turning is small but not zero.
    np.testing.assert_allclose(bundled.read(moved), bundled.read(mesh), atol=2e-3)


def test_closed_eyes_have_no_gaze_and_a_single_open_one_is_read_alone(bundled):
    assert np.isnan(bundled.read(face_mesh(bundled, close=(True, True)))).all()
    for close in ((True, False), (False, True)):
        assert bundled.read(face_mesh(bundled, right=0.1, close=close))[0] > 0.1
    features, openings = eye_features(
        face_mesh(bundled, close=(True, False))[None], bundled.template, bundled.steadiness
    )
    assert features.shape == (1, 2, NUM_FEATURES) and openings[0, 0] < 0.05 < 0.15 < openings[0, 1]


def test_the_answer_stops_at_the_limit_of_the_synthetic_eyes(bundled):
    assert GAZE_LIMIT_RAD == MAX_GAZE_RAD
    strong = replace(bundled, weight=bundled.weight * np.float32(50.0))
    assert strong.read(face_mesh(bundled, right=0.3))[0] == np.float32(GAZE_LIMIT_RAD)
    assert strong.read(face_mesh(bundled, right=-0.3))[0] == np.float32(-GAZE_LIMIT_RAD)


def test_a_mesh_that_is_not_finite_is_unknown_and_another_shape_is_refused(bundled):
    mesh = face_mesh(bundled)
    mesh[5, 0] = np.nan
    assert np.isnan(bundled.read(mesh)).all()
    with pytest.raises(ValueError, match=r"mesh must have shape \(478, 3\)"):
        bundled.read(mesh[:468])


def test_a_saved_map_comes_back(bundled, tmp_path):
    bundled.save(tmp_path / "g.safetensors")
    mesh = face_mesh(bundled, right=0.05)
    assert np.array_equal(GazeMap.load(tmp_path / "g.safetensors").read(mesh), bundled.read(mesh))


def test_bad_files_are_refused(bundled, tmp_path):
    path = tmp_path / "g.safetensors"
    with pytest.raises(CheckpointError, match="no such gaze file"):
        GazeMap.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        GazeMap.load(path)
    bundled.save(path)
    arrays = load_file(path)
    with safe_open(path, framework="numpy") as opened:
        metadata = dict(opened.metadata())
    save_file(arrays, path, {**metadata, "version": "9"})
    with pytest.raises(
        CheckpointError, match="expected format 'export3d-gaze', version 1; got 'export3d-gaze', version 9"
    ):
        GazeMap.load(path)
    save_file({**arrays, "bias": arrays["bias"][:1]}, path, metadata)
    with pytest.raises(CheckpointError, match="bias must be finite float32 of shape"):
        GazeMap.load(path)


class GivenMeshes:
    """A face tracker that answers with one mesh after another; None is a face without a mesh."""

    def __init__(self, meshes: list) -> None:
        self.info, self._meshes, self._next = ExtractorInfo("given-meshes", "1", "", ""), meshes, 0

    def detect(self, frame: np.ndarray) -> list[Face]:
        mesh = self._meshes[self._next % len(self._meshes)]
        self._next += 1
        points = np.random.default_rng(0).uniform(100.0, 300.0, (68, 2)).astype(np.float32)
        return [replace(face_from_landmarks(points), mesh=mesh)]

    def reset(self) -> None: ...

    def close(self) -> None: ...


FRAME = np.zeros((400, 400, 3), dtype=np.uint8)


def test_a_blink_keeps_the_last_gaze_of_the_clip_and_a_new_clip_starts_unknown(bundled):
    shut = face_mesh(bundled, close=(True, True))
    tracker = Tracker(GivenMeshes([shut, face_mesh(bundled, right=0.1), shut, None, shut]), MeasuredCoefficients())
    got = [tracker.frame(FRAME).gaze for _ in range(4)]
    assert np.isnan(got[0]).all() and got[1][0] > 0.1
    assert np.array_equal(got[2], got[1]) and np.array_equal(got[3], got[1])
    tracker.reset()
    assert np.isnan(tracker.frame(FRAME).gaze).all()


def test_a_portrait_with_closed_eyes_or_without_a_mesh_has_no_gaze(bundled):
    meshes = [face_mesh(bundled, close=(True, True)), None, face_mesh(bundled, right=-0.1)]
    tracker = Tracker(GivenMeshes(meshes), MeasuredCoefficients())
    first, second, third = (tracker.portrait(FRAME).gaze for _ in range(3))
    assert np.isnan(first).all() and np.isnan(second).all() and third[0] < -0.1
