"""Tests of movement in the plane and of tilt: the driver's place in its frame, cuts, gaps, limits; photos turned back."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from export3d.animation.drivers import DrivingFrame
from export3d.animation.framing import NECK_ROLL_RAD, turned_by
from export3d.animation.subject import Subject
from export3d.animation.transfer import DISTANCES, FARTHEST_ASIDE, TransferOptions, move_in_plane, transfer
from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.tracking import Crop, crop_image
from export3d.tracking.head_fit import HeadPose

STATE = FaceState(beta=torch.zeros(1, 64))
FRONTAL = Camera.look_at_head(0.0).to_vector()[0].numpy()


def frames(crops: Sequence[Crop | None], cuts: Sequence[int] = ()) -> list[DrivingFrame]:
    """Frontal faces in these squares; None is a frame without the face."""
    return [
        DrivingFrame(
            state=STATE,
            camera=FRONTAL,
            found=crop is not None,
            index=index,
            pts=index,
            duration=1,
            crop=crop,
            cut=index in cuts,
        )
        for index, crop in enumerate(crops)
    ]


def places(moved: Sequence[DrivingFrame]) -> np.ndarray:
    """Where the head's origin is seen, ``(T, 2)`` in [0, 1] of the picture, y down."""
    cameras = Camera.from_vector(torch.from_numpy(np.stack([frame.camera for frame in moved])))
    return cameras.project(torch.zeros(len(moved), 1, 3))[0][:, 0].numpy()


def distances(moved: Sequence[DrivingFrame]) -> np.ndarray:
    return np.array([HeadPose.of_camera(frame.camera).origin[2] for frame in moved])


def test_a_driver_who_moves_aside_moves_the_head_by_as_much_of_the_picture():
    moved = list(move_in_plane(frames([Crop(100, 80, 200), Crop(120, 80, 200), Crop(100, 60, 200)])))
    assert np.array_equal(moved[0].camera, FRONTAL) or np.allclose(moved[0].camera, FRONTAL, atol=1e-6)
    assert places(moved) == pytest.approx(np.array([[0.5, 0.5], [0.6, 0.5], [0.5, 0.4]]), abs=1e-5)


def test_a_driver_who_comes_nearer_brings_the_head_nearer():
    moved = list(move_in_plane(frames([Crop(100, 80, 200), Crop(100, 80, 220)])))
    assert distances(moved) == pytest.approx([2.7, 2.7 / 1.1], abs=1e-5)


def test_a_head_goes_no_farther_than_the_limits():
    moved = list(move_in_plane(frames([Crop(100, 80, 200), Crop(900, 80, 200), Crop(100, 80, 900), Crop(100, 80, 20)])))
    aside = np.hypot(*HeadPose.of_camera(moved[1].camera).origin[:2])
    assert aside == pytest.approx(FARTHEST_ASIDE, abs=1e-5)
    assert distances(moved)[2:] == pytest.approx(DISTANCES, abs=1e-5)


def test_while_the_face_is_lost_the_head_stays_where_it_was():
    crops = [Crop(100, 80, 200), Crop(130, 80, 200), None, Crop(140, 80, 200)]
    moved = list(move_in_plane(frames(crops)))
    assert places(moved)[:, 0] == pytest.approx([0.5, 0.65, 0.65, 0.7], abs=1e-5)
    assert not moved[2].found


def test_after_a_cut_the_head_goes_on_from_where_it_was():
    crops = [Crop(100, 80, 200), Crop(120, 80, 200), Crop(700, 300, 50), Crop(705, 300, 50)]
    moved = list(move_in_plane(frames(crops, cuts=[2])))
    assert places(moved)[:, 0] == pytest.approx([0.5, 0.6, 0.6, 0.7], abs=1e-5)
    assert distances(moved) == pytest.approx([2.7] * 4, abs=1e-4)


def test_a_cut_into_a_frame_without_the_face_counts_when_it_is_back():
    crops = [Crop(100, 80, 200), None, Crop(700, 300, 50)]
    moved = list(move_in_plane(frames(crops, cuts=[1])))
    assert places(moved)[:, 0] == pytest.approx([0.5, 0.5, 0.5], abs=1e-5)


def test_frames_of_which_no_place_is_known_stay_as_they_are():
    given = [replace(frame, crop=None) for frame in frames([Crop(100, 80, 200), Crop(120, 80, 200)])]
    assert [frame.camera is other.camera for frame, other in zip(move_in_plane(given), given, strict=True)] == [
        True,
        True,
    ]


def test_no_shift_leaves_the_movement_out():
    given = frames([Crop(100, 80, 200), Crop(120, 80, 200)])
    for shift, wanted in ((True, 0.6), (False, 0.5)):
        out = transfer(given, TransferOptions(shift=shift), own=STATE, camera=FRONTAL, time_base=Fraction(1, 25))
        assert places(list(out))[1, 0] == pytest.approx(wanted, abs=1e-5)


def rolled(degrees: float) -> np.ndarray:
    return Camera.look_at_head(roll=-np.radians(degrees)).to_vector()[0].numpy()


@pytest.mark.parametrize(("degrees", "neck"), [(20.0, 20.0), (-25.0, -25.0), (90.0, 30.0), (-120.0, -30.0)])
def test_a_neck_bends_no_further_than_it_can_and_the_body_tilts_with_the_rest(degrees, neck):
    turn = turned_by(STATE, rolled(degrees)).turn
    assert turn is not None and np.degrees(NECK_ROLL_RAD) == pytest.approx(30.0)
    assert turn[0].numpy() == pytest.approx(np.array([0.0, 0.0, -np.radians(neck)]), abs=1e-5)


def subject(photo: np.ndarray, angle: float) -> Subject:
    side = float(photo.shape[0])
    return Subject(image=photo, crop=Crop(side / 2, side / 2, side, angle), state=STATE, camera=FRONTAL, code=None)


def test_a_photo_on_its_side_is_turned_back_exactly_by_quarters():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    upright = subject(picture, 0.0)
    assert upright.turned_back(picture) is picture
    aside = subject(picture, np.radians(-87.0))
    assert np.array_equal(aside.turned_back(picture), np.rot90(picture))
    assert np.array_equal(subject(picture, np.pi).turned_back(picture), picture[::-1, ::-1])


def test_the_corners_of_a_tilted_result_show_the_photo():
    photo = np.full((64, 64, 3), 200, np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    back = subject(photo, np.radians(45.0)).turned_back(black)
    assert back[0, 0].tolist() == [200, 200, 200] and back[32, 32].tolist() == [0, 0, 0]


def test_levelling_a_tilted_photo_and_turning_it_back_gives_the_photo():
    y, x = np.mgrid[:96, :96]
    photo = np.stack([x * 2, y * 2, 60 + 0 * x], axis=-1).astype(np.uint8)
    tilted = subject(photo, np.radians(30.0))
    level = crop_image(photo, tilted.crop, 96)
    back = tilted.turned_back(level)
    middle = slice(24, 72)
    assert np.abs(back[middle, middle].astype(float) - photo[middle, middle]).max() <= 4.0
