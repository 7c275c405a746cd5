"""evaluation/metrics/backends.py: the pose numbers of APD, and the tracker as a back end."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.evaluation.metrics import backends
from export3d.evaluation.metrics.backends import RememberedFaces, TrackerBackend, camera_pose
from export3d.evaluation.metrics.pictures import apd
from export3d.tracking import Crop, ExtractorInfo
from export3d.tracking.tracker import TrackedFrame, lost_frame

INFO = ExtractorInfo("stand-in", "1", "", "ict64")


def test_the_pose_of_a_camera_is_what_it_was_made_from() -> None:
    angles, shift = torch.tensor([[0.3, -0.2, 0.1]]), torch.tensor([[0.02, -0.03, 0.1]])
    p = Camera.look_at_head(*angles.unbind(-1), shift=shift).to_vector().numpy()
    assert camera_pose(p)[0] == pytest.approx([0.3, -0.2, 0.1, 0.02, -0.03, 0.1], abs=1e-6)


def test_the_apd_of_a_turned_head_is_its_rotation() -> None:
    still, turned = (Camera.look_at_head(yaw).to_vector().numpy() for yaw in (0.0, math.radians(12)))
    distance = apd(camera_pose(turned), camera_pose(still))
    assert distance.rotation[0] == pytest.approx(math.radians(12) / 3, abs=1e-6)
    assert distance.translation[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(distance.apd).all()


class Readings:
    """A tracker that gives one reading after another; counts its starts."""

    info = INFO
    face_tracker = SimpleNamespace(info=INFO)

    def __init__(self, *readings: TrackedFrame) -> None:
        self.readings, self.resets, self.looks = readings, 0, 0

    def reset(self) -> None:
        self.resets += 1

    def frame(self, image: np.ndarray) -> TrackedFrame:
        self.looks += 1
        return self.readings[(self.looks - 1) % len(self.readings)]


def reading(found: bool = True) -> TrackedFrame:
    camera = Camera.look_at_head(0.2).to_vector()[0].numpy()
    points = np.linspace(0.0, 1.0, 136, dtype=np.float32).reshape(68, 2)
    seen = {"landmarks": points, "beta": np.arange(64, dtype=np.float32), "camera": camera}
    return replace(lost_frame(), found=found, crop=Crop(20.0, 30.0, 16.0), **seen)


def test_landmarks_are_carried_from_the_crop_to_a_frame_of_256_pixels_and_lost_frames_have_none() -> None:
    backend = TrackerBackend(Readings(reading(), reading(found=False), replace(reading(), crop=None)))  # type: ignore[arg-type]
    found = backend.measure(np.zeros((3, 64, 64, 3), np.uint8))
    # The crop's corner lies at (12, 22); its points are a share of 16 pixels; 64 pixels become 256.
    wanted = (np.array([12.0, 22.0]) + 16.0 * reading().landmarks) * 4.0
    assert found.landmarks[0] == pytest.approx(wanted, abs=1e-4)
    assert found.expression[0].tolist() == list(range(64))
    assert found.pose[0, :3] == pytest.approx([0.2, 0.0, 0.0], abs=1e-6)
    for lost in (1, 2):
        assert all(np.isnan(part[lost]).all() for part in (found.landmarks, found.expression, found.pose))


def test_the_clip_that_was_not_asked_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_KEPT", 2)
    tracker = Readings(reading())
    faces = RememberedFaces(TrackerBackend(tracker))  # type: ignore[arg-type]
    a, b, c = (np.full((1, 8, 8, 3), level, np.uint8) for level in (1, 2, 3))
    for clip in (a, b, a, c):  # b goes
        faces.measure(clip)
    assert tracker.looks == tracker.resets == 3
    faces.measure(a), faces.measure(c)
    assert tracker.looks == 3
    faces.measure(b)
    assert tracker.looks == 4
