"""animation/crown.py: hats and hair that the networks do not render move along with the head."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation.crown import CENTRE, Crown, at_home
from export3d.animation.head import HeadLayer, Place
from export3d.animation.person import Person
from export3d.camera import Camera
from export3d.tracking import Crop
from export3d.tracking.head_fit import HeadPose, rotation_of

SIZE = 100
CROP = Crop(50.0, 50.0, 100.0)
HOME = Camera.look_at_head().to_vector()[0].numpy()


def a_disc(x: float, y: float, radius: float) -> np.ndarray:
    down, right = np.mgrid[:SIZE, :SIZE] + 0.5
    return (np.hypot(right - x, down - y) < radius).astype(np.float32)


def a_head() -> HeadLayer:
    opacity = torch.from_numpy(a_disc(50.0, 50.0, 20.0))[None]
    return HeadLayer(200.0 * opacity.expand(3, -1, -1), opacity)


def a_crown(speck: float = 0.0) -> Crown:
    """A hat of level 90 above a rendered head, and perhaps a speck beside it."""
    own = np.maximum.reduce([a_disc(50.0, 50.0, 20.0), a_disc(50.0, 25.0, 12.0), a_disc(80.0, 40.0, speck)])
    picture = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    person = Person(share=own, own=own, plain=picture, spread=picture, crop=CROP)
    return Crown.of(person, CROP, a_head(), HOME)


def middle(opacity: torch.Tensor) -> float:
    """Of the hat's upper part, x in pixels."""
    hat = opacity[0, :26]
    return float((hat * (torch.arange(SIZE) + 0.5)).sum() / hat.sum())


def test_in_its_own_pose_a_hat_stands_where_the_photograph_has_it() -> None:
    made = a_crown().behind(a_head(), HOME)
    hat = torch.from_numpy(a_disc(50.0, 25.0, 11.0)).bool() & (a_head().opacity[0] == 0.0)
    assert made.opacity[0][hat].min() > 0.95
    torch.testing.assert_close(made.colours[:, hat], torch.full_like(made.colours[:, hat], 90.0), atol=5.0, rtol=0.0)
    assert made.opacity[0, 70:].equal(a_head().opacity[0, 70:]) and made.opacity[0, :10].max() == 0.0


def test_the_rendered_head_stands_before_it() -> None:
    made, head = a_crown().behind(a_head(), HOME), a_head().opacity[0] == 1.0
    assert made.colours[0][head].min() == 200.0 and made.opacity.max() <= 1.0


def test_a_speck_of_the_segmentation_does_not_fly_along_but_a_bun_does() -> None:
    without, speck, bun = (a_crown(radius).behind(a_head(), HOME).opacity for radius in (0.0, 1.4, 8.0))
    torch.testing.assert_close(speck, without, atol=1e-3, rtol=0.0)
    assert float(bun[0, 40, 75] - without[0, 40, 75]) > 0.5


def crown_of(own: np.ndarray, picture: np.ndarray, head: HeadLayer, room: float = 0.0) -> torch.Tensor:
    """``(4, h, W)``: the light of the crown of a person around a head."""
    person = Person(share=own, own=own, plain=picture, spread=picture, crop=CROP, room=room)
    return Crown.of(person, CROP, head.with_room(room), HOME).light[0]


def test_hair_goes_on_behind_the_face_and_a_rim_of_skin_does_not_stay() -> None:
    picture = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    picture[a_disc(50.0, 50.0, 21.0) > 0.0] = 250  # the face, a pixel wider than it is rendered
    hair, skin = (crown_of(a_disc(50.0, 50.0, radius), picture, a_head()) for radius in (30.0, 21.0))
    inside = torch.from_numpy(a_disc(50.0, 50.0, 19.0)).bool()[: hair.shape[1]]
    inside &= ~torch.from_numpy(a_disc(50.0, 50.0, 14.0)).bool()[: hair.shape[1]]
    inside[55:] = False
    assert hair[3][inside].min() > 0.3
    assert (hair[0] / hair[3])[inside].max() < 120.0  # hair, not skin
    assert skin[3][inside].max() < 0.1


def test_a_hat_that_the_crop_cuts_moves_with_all_that_the_photograph_shows_of_it() -> None:
    picture = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    own, crop = a_disc(50.0, 50.0, 30.0), Crop(50.0, 60.0, 70.0)
    person = Person(share=own, own=own, plain=picture, spread=picture, crop=crop, room=0.15)
    crown = Crown.of(person, crop, HeadLayer(200.0 * torch.ones(3, 70, 70), torch.ones(1, 70, 70)), HOME)
    assert crown.light.shape[-1] == 70  # a head without room has none
    opacity = torch.from_numpy(a_disc(35.0, 28.0, 20.0)[:70, :70])[None]
    head = HeadLayer(200.0 * opacity.expand(3, -1, -1), opacity).with_room(0.15)
    light = Crown.of(person, crop, head, HOME).light[0]
    assert head.opacity.shape == (1, 80, 90) and light.shape[-1] == 90
    assert light[3, 6:9, 45].min() > 0.9  # rows 21 to 23 of the photograph; the crop begins at 25


def test_hair_that_the_photograph_cuts_ends_beyond_it_as_a_dome() -> None:
    own = np.zeros((SIZE, SIZE), dtype=np.float32)
    own[:, 40:60] = 1.0  # cut by the upper border of the photograph, at the crop's row 25
    crop = Crop(50.0, 25.0, 100.0)
    picture = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    person = Person(share=own, own=own, plain=picture, spread=picture, crop=crop)
    light = Crown.of(person, crop, a_head(), HOME).light[0, 3]
    widths = [int((light[row] > 0.5).sum()) for row in (26, 21, 17, 12)]
    assert widths[0] == 20 and widths[0] > widths[1] > widths[2] > widths[3] == 0


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_hat_goes_with_the_head(factor: float) -> None:
    pose = HeadPose.of_camera(HOME)
    moved = HeadPose(rotation=pose.rotation, origin=pose.origin * [1.0, 1.0, factor] + [0.1, 0.0, 0.0])
    at = [np.append((x := each.rotation @ CENTRE + each.origin)[:2] / x[2], x[2]) for each in (pose, moved)]
    before, after = (middle(a_crown().behind(a_head(), each.camera()).opacity) for each in (pose, moved))
    assert after - before == pytest.approx(100.0 * _focal() * (at[1][0] - at[0][0]), abs=0.7)


def test_a_hat_tilts_with_the_head() -> None:
    pose = HeadPose.of_camera(HOME)
    roll = HeadPose(rotation=rotation_of(np.array([0.0, 0.0, math.radians(20.0)])) @ pose.rotation, origin=pose.origin)
    before, after = (middle(a_crown().behind(a_head(), each.camera()).opacity) for each in (pose, roll))
    assert after - before > 2.0  # clockwise: to the right


def test_a_picture_goes_with_the_skull_and_shows_it_where_the_photograph_has_it() -> None:
    home = HeadPose.of_camera(Camera.look_at_head(0.2, 0.1).to_vector()[0].numpy())
    turn = rotation_of(np.array([0.2, 0.4, 0.1]))
    moved = HeadPose(rotation=turn @ home.rotation, origin=home.origin * [1.0, 1.0, 0.9] + [0.1, -0.05, 0.0])
    camera, place = at_home(moved.camera(), home.camera())
    seen = []
    for pose in (home, moved, HeadPose.of_camera(camera)):
        x, y, z = pose.rotation @ CENTRE + pose.origin
        seen.append(np.array([0.5 + _focal() * x / z, 0.5 + _focal() * y / z, z]))
    np.testing.assert_allclose(seen[2], seen[0], atol=1e-5)
    np.testing.assert_allclose(place.scale * seen[1][:2] + [place.x, place.y], seen[0][:2], atol=1e-5)
    assert place.scale == pytest.approx(seen[1][2] / seen[0][2], abs=1e-5)
    np.testing.assert_allclose(HeadPose.of_camera(camera).rotation, moved.rotation, atol=1e-5)


def test_hair_that_a_picture_cuts_goes_on_into_the_crown_and_ends_softly() -> None:
    own, picture = a_disc(50.0, 30.0, 45.0), np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    opacity = torch.from_numpy(a_disc(50.0, 30.0, 45.0))[None]
    rendered = HeadLayer(200.0 * opacity.expand(3, -1, -1), opacity)
    cut, placed = (crown_of(own, picture, replace(rendered, place=place), 0.15)[3] for place in (None, Place()))
    inside = 15 + 4  # rows of room, and four more
    assert cut[inside, 65] < 0.7 and placed[inside, 65] > 0.9  # the photograph's own hair stands behind the cut
    assert placed[15 + 30, 65] == pytest.approx(float(cut[15 + 30, 65]), abs=1e-5)  # farther in nothing changes
    assert placed[0].max() < 0.1


def _focal() -> float:
    return float(Camera.look_at_head().intrinsics[0, 0, 0])
