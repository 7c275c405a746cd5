"""evaluation/metrics/backends.py: the pose numbers of APD, and the tracker as a back end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.evaluation.metrics.backends import camera_pose
from export3d.evaluation.metrics.pictures import apd


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
