"""What is shown: the whole photograph where it says more, never black, and a head that stays on its shoulders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import face_points
from export3d.animation import Animator, DrivingFrame, Subject
from export3d.animation import person as person_module
from export3d.animation.framing import (
    ASIDE_RAD,
    FARTHEST_ALONE_RAD,
    FARTHEST_RAD,
    FREE_RAD,
    WANDER,
    WANDER_ALONE,
    ZOOM,
    ZOOM_ALONE,
    anchored,
    beyond,
    facing,
    inside,
)
from export3d.animation.person import continued
from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.portrait import PortraitModel, build_model, preset
from export3d.tracking import Crop, Tracker
from export3d.tracking.head_fit import HeadPose
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

MakeTracker = Callable[..., Tracker]
STATE = FaceState(beta=torch.zeros(1, 64))
HOME = Camera.look_at_head(0.3).to_vector()[0].numpy()


def a_frame(x: float, depth: float = 2.7, found: bool = True) -> DrivingFrame:
    pose = HeadPose(rotation=HeadPose.of_camera(HOME).rotation.T, origin=np.array([x, 0.05, depth]))
    return DrivingFrame(state=STATE, camera=pose.camera(), found=found, index=0, pts=0, duration=1)


def test_a_head_begins_where_the_portrait_has_it_and_never_leaves_its_shoulders() -> None:
    given = [a_frame(0.2), a_frame(0.25), a_frame(0.9), a_frame(0.2, 2.0), a_frame(0.2, 9.0)]
    home = HeadPose.of_camera(HOME).origin
    poses = [HeadPose.of_camera(frame.camera) for frame in anchored(given, HOME)]
    away = np.array([pose.origin - home for pose in poses])
    assert away[0] == pytest.approx([0.0, 0.0, 0.0], abs=1e-5)
    assert (
        away[1, 0] == pytest.approx(WANDER * math.tanh(0.05 / WANDER), rel=1e-4)
        and 0.9 * WANDER < away[2, 0] <= 1.001 * WANDER
    )
    assert [poses[i].origin[2] / home[2] for i in (3, 4)] == pytest.approx([1.0 / ZOOM, ZOOM])


@pytest.mark.parametrize("relative", [False, True])
def test_a_face_alone_stays_in_its_square(relative: bool) -> None:
    home = HeadPose.of_camera(HOME).origin
    shifts, depths = (0.02, 0.9), (0.5 * home[2], 2.0 * home[2])
    given = [a_frame(home[0] + x, home[2]) for x in shifts] + [a_frame(home[0], depth) for depth in depths]
    poses = [HeadPose.of_camera(frame.camera) for frame in facing(given, HOME, relative=relative)]
    away = np.array([pose.origin[:2] - home[:2] for pose in poses])
    lengths = [math.hypot(x, 0.05 - home[1]) for x in shifts]
    assert np.hypot(*away[:2].T) == pytest.approx(
        [WANDER_ALONE * math.tanh(x / WANDER_ALONE) for x in lengths], rel=1e-4
    )
    assert [pose.origin[2] / home[2] for pose in poses] == pytest.approx([1.0, 1.0, 1.0 / ZOOM_ALONE, ZOOM_ALONE])


def test_a_relative_motion_of_a_face_alone_starts_from_the_portraits_own_turn() -> None:
    aside = Camera.look_at_head(math.radians(40.0)).to_vector()[0].numpy()
    (moved,) = facing([replace(a_frame(0.0), camera=aside)], aside, relative=True)
    assert HeadPose.of_camera(moved.camera).rotation == pytest.approx(HeadPose.of_camera(aside).rotation, abs=1e-5)


def a_turn(yaw: float, home: float, *, strength: float = 1.0, alone: bool = False) -> float:
    """Yaw in degrees of a driven head in a photograph that has it at `home`, both positive to one side."""
    given, own = (Camera.look_at_head(math.radians(angle)).to_vector()[0].numpy() for angle in (yaw, home))
    frame = replace(a_frame(0.0), camera=given)
    (moved,) = (facing if alone else anchored)([frame], own, strength)
    yaw_of = Camera.from_vector(torch.from_numpy(moved.camera)[None]).head_angles()
    assert yaw_of[0, 1:].abs().max() < 1e-4
    return math.degrees(float(yaw_of[0, 0]))


def test_a_head_turns_no_farther_than_the_photograph_shows_it() -> None:
    limit, free = math.degrees(FARTHEST_RAD), math.degrees(FREE_RAD)
    assert a_turn(10.0, home=5.0) == pytest.approx(15.0, abs=0.01)  # as far from there as the driver's from the camera
    assert a_turn(0.0, home=40.0) == pytest.approx(40.0, abs=0.01)
    assert a_turn(-5.0, home=40.0) - a_turn(0.0, home=40.0) == pytest.approx(-5.0, abs=0.01)
    assert free < a_turn(30.0, home=0.0) < 30.0 and limit - 1.5 < a_turn(80.0, home=0.0) < limit
    assert a_turn(-80.0, home=40.0) == pytest.approx(40.0 - limit, abs=0.5)


def test_a_face_alone_turns_farther_and_starts_from_the_portraits_own_turn() -> None:
    limit = math.degrees(FARTHEST_ALONE_RAD)
    assert a_turn(18.0, home=5.0, alone=True) == pytest.approx(18.0, abs=0.01)
    assert a_turn(0.0, home=40.0, alone=True) == pytest.approx(40.0 - math.degrees(ASIDE_RAD), abs=0.01)
    assert limit - 1.5 < a_turn(80.0, home=0.0, alone=True) < limit


@pytest.mark.parametrize("alone", [False, True])
def test_a_head_that_does_not_go_with_the_driver_stays_as_the_photograph_has_it(alone: bool) -> None:
    assert a_turn(40.0, home=40.0, strength=0.0, alone=alone) == pytest.approx(40.0, abs=0.01)
    half = a_turn(20.0, home=40.0, strength=0.5, alone=alone)  # half way to a driver who faces the camera
    assert half == pytest.approx(20.0 + (40.0 - alone * math.degrees(ASIDE_RAD)) / 2, abs=0.01)


@pytest.mark.parametrize("alone", [False, True])
def test_a_nod_is_told_larger_than_it_shall_be_seen_and_where_a_head_rests_stays(alone: bool) -> None:
    own, angle = Camera.look_at_head(0.0).to_vector()[0].numpy(), torch.full((1,), 0.1)
    for axis, gain in enumerate((1.27, 1.4, 1.0)):  # turn, nod, tilt
        turns = [torch.zeros(1), torch.zeros(1), torch.zeros(1)]
        turns[axis] = angle
        aside, ahead = (
            replace(a_frame(0.0), camera=Camera.look_at_head(*by).to_vector()[0].numpy())
            for by in (turns, [torch.zeros(1)] * 3)
        )
        moved = list((facing if alone else anchored)([aside, aside, ahead, aside], own))
        told = [float(Camera.from_vector(torch.from_numpy(f.camera)[None]).head_angles()[0, axis]) for f in moved]
        assert told[0] == pytest.approx(0.1, abs=1e-4) and told[1] == pytest.approx(0.1, abs=1e-4)
        # By hand: the third frame lies 1/15 before the mean so far, the fourth 1/40 behind it.
        assert told[2] == pytest.approx(-(gain - 1.0) * 0.2 / 3.0, abs=1e-3)
        assert told[3] == pytest.approx(0.1 + (gain - 1.0) * 0.1 / 4.0, abs=1e-3)


@pytest.mark.parametrize("roll", [10.0, 90.0, -170.0])
def test_a_face_alone_turns_freely_in_the_pictures_plane(roll: float) -> None:
    own = Camera.look_at_head(0.0).to_vector()[0].numpy()
    turn = Camera.look_at_head(torch.zeros(1), torch.zeros(1), torch.tensor([math.radians(roll)]))
    (moved,) = facing([replace(a_frame(0.0), camera=turn.to_vector()[0].numpy())], own)
    found = Camera.from_vector(torch.from_numpy(moved.camera)[None]).head_angles()[0]
    assert math.degrees(float(found[2])) == pytest.approx(roll, abs=0.01) and found[:2].abs().max() < 1e-4


def test_a_lost_beginning_does_not_say_where_the_head_begins() -> None:
    moved = list(anchored([a_frame(0.0, found=False), a_frame(0.3), a_frame(0.35)], HOME))
    home = HeadPose.of_camera(HOME).origin
    assert HeadPose.of_camera(moved[1].camera).origin == pytest.approx(home, abs=1e-5)


def test_a_relative_motion_is_held_to_the_shoulders_too_and_counted_from_the_portraits_own_pose() -> None:
    own = HeadPose.of_camera(HOME)
    shifts = (0.05, 0.4)
    poses = [HeadPose(rotation=own.rotation, origin=own.origin + np.array([x, 0.0, 0.0])) for x in shifts]
    given = [replace(a_frame(0.0), camera=pose.camera()) for pose in poses]
    moved = [HeadPose.of_camera(frame.camera) for frame in anchored(given, HOME, relative=True)]
    for pose, shift in zip(moved, shifts, strict=True):
        away = WANDER * math.tanh(shift / WANDER)
        np.testing.assert_allclose(pose.origin - own.origin, [away, 0.0, 0.0], atol=1e-5)
        np.testing.assert_allclose(pose.rotation, own.rotation, atol=1e-5)
    far = replace(a_frame(0.0), camera=Camera.look_at_head(0.3 + math.radians(50.0)).to_vector()[0].numpy())
    (turned,) = anchored([far], HOME, relative=True)
    angle = math.acos((np.trace(HeadPose.of_camera(turned.camera).rotation @ own.rotation.T) - 1.0) / 2.0)
    assert FREE_RAD < angle <= FARTHEST_RAD + 1e-6


def test_what_is_shown_of_a_crop_lies_inside_the_photo() -> None:
    shape = (100, 80, 3)
    assert beyond(shape, Crop(40, 50, 80)) == 0.0 and beyond(shape, Crop(40, 50, 100)) == pytest.approx(0.1)
    assert beyond(shape, Crop(40, 10, 80)) == pytest.approx(30 / 80)
    assert inside(shape, Crop(40, 50, 80, 0.5)) == Crop(40, 50, 80)
    assert inside(shape, Crop(40, 50, 82)) == Crop(40, 50, 82)  # hardly more than there is
    assert inside(shape, Crop(40, 50, 100)) == Crop(40, 50, 80)
    assert inside(shape, Crop(40, 10, 60)) == Crop(40, 20, 40)  # rows 0 to 40 of it exist
    assert inside(shape, Crop(70, 50, 60)) == Crop(60, 50, 40)


def test_beyond_the_photo_its_border_goes_on_ever_softer() -> None:
    photo = np.random.default_rng(0).integers(100, 200, (60, 60, 3), dtype=np.uint8)
    crop = Crop(30.0, 30.0, 100.0)
    wide, moved = continued(photo, crop)
    assert wide.shape == (100, 100, 3) and moved == Crop(50.0, 50.0, 100.0)
    np.testing.assert_array_equal(wide[20:80, 20:80], photo)
    assert wide.min() >= 95
    np.testing.assert_allclose(wide[19, 20:80].astype(int), photo[0].astype(int), atol=25)
    assert wide[5].std(axis=0).mean() < 0.6 * photo[0].std(axis=0).mean()
    assert continued(photo, Crop(30.0, 30.0, 60.0))[0] is photo


def test_the_picture_of_a_crop_is_cut_to_what_the_photo_has() -> None:
    photo = np.zeros((60, 80, 3), dtype=np.uint8)
    subject = Subject(image=photo, crop=Crop(40.0, 30.0, 80.0), state=STATE, camera=HOME, code=None)
    y, x = np.mgrid[:160, :160]
    shown = subject.turned_back(np.stack([x, y, x], axis=-1).astype(np.uint8))
    assert (
        shown.shape == (120, 120, 3)
        and shown[0, 0].tolist() == [20, 20, 20]
        and shown[-1, -1].tolist() == [139, 139, 139]
    )


@pytest.fixture
def found_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmentation that takes the middle of any picture for a person."""

    def share(image: np.ndarray, crop: Crop) -> np.ndarray:
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        return (np.hypot(x - crop.center_x, y - crop.center_y) < 0.4 * crop.side).astype(np.float32)

    monkeypatch.setattr(person_module, "find_person", share)


def test_the_whole_photo_is_the_default_where_its_person_is_found_and_of_a_close_up_too(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, found_person: None
) -> None:
    animator = Animator(tiny_model, make_tracker(), framing=None)
    subject = animator.portrait(photo)
    assert subject.whole and subject.person is not None and subject.warnings == ()
    near = round(0.9 * subject.crop.side / 2.0)
    x, y = round(subject.crop.center_x), round(subject.crop.center_y)
    close = photo[y - near : y + near, x - near : x + near]
    moved = replace(subject.crop, center_x=float(near), center_y=float(near))
    again = animator.encode(close, moved, subject.state, subject.camera)
    assert again.whole and again.person is not None
    assert "the photo ends 5% of the square" in again.warnings[0] and "border is continued" in again.warnings[0]
    assert again.shown.side == pytest.approx(2 * near)


def test_behind_a_face_alone_is_the_photographs_own_background(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, found_person: None
) -> None:
    photo = photo.copy()
    photo[:, :80], photo[:, 80:] = (200, 0, 0), (0, 0, 200)
    animator = Animator(tiny_model, make_tracker(), detail=64)
    subject = animator.portrait(photo)
    assert subject.person is None and not subject.whole and subject.warnings == ()
    seen = animator._crop(*continued(photo, subject.crop), 64)[0]
    for behind in (subject.code.maps.photo.background[0], subject.code.maps.background[0]):
        side = behind.shape[-1]
        y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
        beside = torch.from_numpy((np.hypot(x, y) > 0.47) & (np.abs(x) > 0.1))
        shown = torch.nn.functional.interpolate(seen[None], (side, side), mode="area")[0]
        assert (behind - shown)[:, beside].abs().max() < 0.05  # the model's own matte takes all for a head
        middle = behind[:, side // 2, side // 2]
        assert middle[0] == pytest.approx(-0.2, abs=0.15) and middle[2] == pytest.approx(-0.2, abs=0.15)


def test_a_face_alone_whose_person_is_not_found_is_made_without_a_word(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: np.zeros(image.shape[:2], np.float32))
    animator = Animator(tiny_model, make_tracker(), detail=64)
    monkeypatch.setattr(animator, "_matte", lambda image, crop: torch.ones(1, 16, 16))
    assert animator.portrait(photo).warnings == ()


def test_a_person_who_cannot_be_told_from_the_background_is_shown_in_the_square_with_a_warning(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: np.zeros(image.shape[:2], np.float32))
    animator = Animator(tiny_model, make_tracker(), framing=None)
    monkeypatch.setattr(animator, "_matte", lambda image, crop: torch.ones(1, 16, 16))
    subject = animator.portrait(photo)
    assert not subject.whole and subject.person is None
    assert "only the square around the face is shown" in subject.warnings[-1]
    assert "models get person-segmentation" in subject.warnings[-1]


def test_the_papers_model_shows_the_square(make_tracker: MakeTracker, photo: np.ndarray) -> None:
    subject = Animator(build_model(preset("tiny")).eval(), make_tracker(), framing=None).portrait(photo)
    assert not subject.whole and subject.person is None


def test_a_cutout_is_told_from_its_background_by_its_own_opacity(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, tmp_path: Path
) -> None:
    opacity = np.zeros((160, 160), dtype=np.uint8)
    opacity[30:140, 30:130] = 200
    Image.fromarray(np.dstack([photo, opacity])).save(tmp_path / "cut.png")
    subject = Animator(tiny_model, make_tracker(), framing=None).portrait(tmp_path / "cut.png")
    assert subject.person is not None
    np.testing.assert_allclose(subject.person.share, opacity / 255.0, atol=1e-6)


def test_the_tracker_tells_where_the_other_faces_are() -> None:
    faces = [face_points((80.0, 80.0), 40.0, 0.1), face_points((220.0, 60.0), 30.0, 0.1)]
    tracker = Tracker(GivenLandmarks([faces]), MeasuredCoefficients(), choice="left", size=32)
    found = tracker.portrait(np.zeros((160, 300, 3), np.uint8))
    (other,) = found.others
    assert other.center_x - found.crop.center_x == pytest.approx(140.0, abs=2.0)
    assert other.side / found.crop.side == pytest.approx(0.75, rel=0.05)


def test_what_the_network_sees_is_the_whole_crop_also_where_the_photo_ends_before_it() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[47:53, 17:23] = 255
    blank = {"state": FaceState(beta=torch.zeros(1, 64)), "camera": np.zeros(25, np.float32), "code": None}
    seen = Subject(image=photo, crop=Crop(20.0, 50.0, 80.0), **blank).seen(40)
    assert seen.shape == (80, 80, 3)
    assert seen[40, 40].min() == 255 and seen[40, 30].max() == 0
