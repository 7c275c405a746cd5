"""Camera paths: closed, within their limits, and turning the way their names say."""

from __future__ import annotations

import math

import pytest
import torch

from export3d.animation.paths import OrbitOptions, orbit_angles, orbit_cameras
from export3d.camera import RADIUS
from export3d.errors import UsageError


def test_the_sweep_turns_first_and_nods_after() -> None:
    angles = torch.rad2deg(orbit_angles(OrbitOptions(yaw_deg=30, pitch_deg=15, num_frames=120)))
    turning, nodding = angles[:80], angles[80:]  # two thirds, one third
    assert (turning[:, 1] == 0).all() and (nodding[:, 0] == 0).all()
    assert turning[:, 0].max().item() == pytest.approx(30) and turning[:, 0].min().item() == pytest.approx(-30)
    assert nodding[:, 1].max().item() == pytest.approx(15) and nodding[:, 1].min().item() == pytest.approx(-15)


@pytest.mark.parametrize("kind", ["sweep", "circle"])
def test_the_end_of_the_path_meets_its_start(kind: str) -> None:
    angles = orbit_angles(OrbitOptions(kind=kind, num_frames=300))  # type: ignore[arg-type]
    steps = (angles.roll(-1, 0) - angles).abs().max(dim=1).values
    assert steps[-1] <= steps.max() and steps.max() < math.radians(2.0)


def test_the_circle_stays_on_its_ellipse() -> None:
    angles = orbit_angles(OrbitOptions(kind="circle", yaw_deg=20, pitch_deg=10))
    radius = (angles[:, 0] / math.radians(20)) ** 2 + (angles[:, 1] / math.radians(10)) ** 2
    torch.testing.assert_close(radius, torch.ones_like(radius))


def test_cameras_keep_their_distance_and_see_the_head_turned_by_the_path() -> None:
    options = OrbitOptions(num_frames=30)
    cameras = orbit_cameras(options)
    distance = cameras.cam_to_world[:, :3, 3].norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, RADIUS))
    torch.testing.assert_close(cameras.head_angles()[:, :2], orbit_angles(options).float(), atol=1e-5, rtol=0)


def test_views_of_the_back_of_the_head_are_refused() -> None:
    with pytest.raises(UsageError, match="says nothing about the back of the head"):
        OrbitOptions(yaw_deg=120)
    with pytest.raises(UsageError, match="at least one frame; got 0"):
        OrbitOptions(num_frames=0)
