"""Blendshape scores as coefficients, and the camera of a facial matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from export3d.camera import Camera, head_rotation
from export3d.errors import UsageError
from export3d.tracking.alignment import Crop
from export3d.tracking.arkit import BlendshapeModel, camera_from_matrix
from export3d.tracking.faces import ExtractorInfo, Face, ObservingModel

TRACKER = ExtractorInfo("mediapipe-face-landmarker", "0.10.21", "ab" * 32, "")


def matrix_of(yaw: float, pitch: float, roll: float, position: tuple[float, float, float]) -> np.ndarray:
    """A facial matrix as MediaPipe gives it, with a scale of 1.1."""
    matrix = np.eye(4)
    angles = (torch.tensor([a], dtype=torch.float64) for a in (yaw, pitch, roll))
    matrix[:3, :3] = 1.1 * head_rotation(*angles)[0].numpy()
    matrix[:3, 3] = position
    return matrix


def test_beta_is_the_scores_padded_with_zeros_and_the_extractor_is_the_trackers_file() -> None:
    model = BlendshapeModel(TRACKER)
    assert isinstance(model, ObservingModel)
    assert model.info == ExtractorInfo("mediapipe-face-landmarker-blendshapes", "0.10.21", "ab" * 32, "arkit52")
    scores = np.linspace(0, 1, 52).astype(np.float32)
    face = Face(
        box=np.zeros(4),
        landmarks_px=np.zeros((68, 2), np.float32),
        confidence=1.0,
        blendshapes=scores,
        matrix=np.eye(4, dtype=np.float32),
    )
    beta, camera = model.observe(np.zeros((8, 8, 3), np.uint8), face, Crop(4, 4, 8))
    assert beta.shape == (64,) and camera.shape == (25,) and camera.dtype == np.float32
    assert np.array_equal(beta[:52], scores) and not beta[52:].any()


def test_a_face_without_blendshapes_says_what_to_pass() -> None:
    face = Face(box=np.zeros(4), landmarks_px=np.zeros((68, 2), np.float32), confidence=1.0)
    with pytest.raises(UsageError, match="Choose --coefficients regressor"):
        BlendshapeModel(TRACKER).observe(np.zeros((8, 8, 3), np.uint8), face, Crop(4, 4, 8))


def test_a_face_on_the_axis_gives_the_camera_of_its_angles() -> None:
    camera = camera_from_matrix(matrix_of(0.3, -0.2, 0.1, (0.0, 0.0, -50.0)))
    expected = Camera.look_at_head(0.3, -0.2, 0.1).to_vector()[0].numpy()
    assert np.abs(camera - expected).max() < 1e-6


def test_a_face_that_looks_at_the_camera_from_the_side_of_the_picture_counts_as_frontal() -> None:
    # At x = 20, z = -40 the line of sight is atan(20 / 40) to the right; a head turned left by that angle looks at us.
    camera = camera_from_matrix(matrix_of(-math.atan2(20.0, 40.0), 0.0, 0.0, (20.0, 0.0, -40.0)))
    angles = Camera.from_vector(torch.from_numpy(camera)[None]).head_angles()
    assert angles.abs().max() < 1e-5


def test_distance_is_always_egs() -> None:
    camera = camera_from_matrix(matrix_of(0.5, 0.1, 0.0, (3.0, -7.0, -90.0)))
    assert abs(np.linalg.norm(camera[[3, 7, 11]]) - 2.7) < 1e-5
