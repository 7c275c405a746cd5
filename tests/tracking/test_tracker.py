"""Tests of the tracker on given landmarks: errors, following, lost faces, whole clips, smoothing."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from export3d.camera import Camera, rotation_angle_deg
from export3d.errors import (
    FaceCutOffError,
    FaceLostError,
    FaceTooSmallError,
    NoFaceError,
    SeveralFacesError,
    UnreadableVideoError,
    UsageError,
)
from export3d.tracking import EG3D_ALIGNMENT, Tracker, crop_image
from export3d.tracking.clip import track_clip
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.smoothing import nearest_rotation, smooth_motion
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

FRAME = np.zeros((480, 640, 3), dtype=np.uint8)


def face_points(x: float, y: float, height: float) -> np.ndarray:
    """A rough frontal face of 68 points, `height` pixels high, centred at (x, y)."""
    unit = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0.0, 17)
    unit[:17] = np.stack([0.42 * np.cos(angle), 0.1 + 0.4 * np.sin(angle)], axis=1)
    unit[17:27, 0] = np.linspace(-0.33, 0.33, 10)
    unit[17:27, 1] = -0.5
    unit[27:31] = np.stack([np.zeros(4), np.linspace(-0.25, 0.05, 4)], axis=1)
    unit[31:36] = np.stack([np.linspace(-0.1, 0.1, 5), np.full(5, 0.1)], axis=1)
    for start, side in ((36, -0.18), (42, 0.18)):
        turn = np.linspace(np.pi, -np.pi, 7)[:6]
        unit[start : start + 6] = np.stack([side + 0.08 * np.cos(turn), -0.26 - 0.03 * np.sin(turn)], axis=1)
    turn = np.linspace(np.pi, -np.pi, 13)[:12]
    unit[48:60] = np.stack([0.17 * np.cos(turn), 0.26 - 0.06 * np.sin(turn)], axis=1)
    turn = np.linspace(np.pi, -np.pi, 9)[:8]
    unit[60:68] = np.stack([0.14 * np.cos(turn), 0.26 - 0.03 * np.sin(turn)], axis=1)
    return (unit * height + [x, y]).astype(np.float32)


def make(frames, choice=None) -> Tracker:
    return Tracker(GivenLandmarks(frames), MeasuredCoefficients(), choice)


def test_a_portrait_is_cropped_and_measured_by_the_same_crop():
    image = np.random.default_rng(0).integers(0, 256, FRAME.shape, dtype=np.uint8)
    points = face_points(300.0, 240.0, 200.0)
    portrait = make([[points]]).portrait(image)
    assert portrait.image.shape == (256, 256, 3)
    assert np.array_equal(portrait.image, crop_image(image, portrait.crop, 256))
    assert np.allclose(portrait.crop.from_crop(portrait.landmarks), points, atol=1e-3)
    beta, camera = MeasuredCoefficients().coefficients(portrait.landmarks[None])
    assert np.array_equal(portrait.beta, beta[0]) and np.array_equal(portrait.camera, camera[0])
    assert portrait.beta.shape == (64,) and portrait.camera.shape == (25,)


def test_the_crop_is_the_one_the_coefficient_model_asks_for():
    points = face_points(300.0, 240.0, 200.0)
    wide = replace(EG3D_ALIGNMENT, rescale=150.0)
    narrow = make([[points]]).portrait(FRAME)
    portrait = Tracker(GivenLandmarks([[points]]), MeasuredCoefficients(alignment=wide)).portrait(FRAME)
    assert portrait.crop.side == pytest.approx(2.0 * narrow.crop.side)


def test_a_model_that_needs_pixels_is_given_frame_face_and_crop():
    class Observer:
        info = ExtractorInfo("observer", "1", "", "bfm64")
        alignment = EG3D_ALIGNMENT

        def observe(self, frame, face, crop):
            self.seen = (frame, face, crop)
            return np.ones(64, np.float32), np.ones(25, np.float32)

    observer = Observer()
    points = face_points(300.0, 240.0, 200.0)
    portrait = Tracker(GivenLandmarks([[points]]), observer).portrait(FRAME)
    assert observer.seen[0] is FRAME and observer.seen[2] == portrait.crop
    assert np.array_equal(observer.seen[1].landmarks_px, points)
    assert (portrait.beta == 1).all() and (portrait.camera == 1).all()


def test_no_face_in_a_portrait():
    with pytest.raises(NoFaceError, match=r"^me.png: no face was found in this 640x480 image. Use a photo") as caught:
        make([[]]).portrait(FRAME, where="me.png")
    assert caught.value.exit_code == 10


def test_several_faces_in_a_portrait_need_a_choice():
    faces = [face_points(150.0, 240.0, 150.0), face_points(450.0, 240.0, 150.0)]
    with pytest.raises(SeveralFacesError, match=r"me\.png: 2 faces, and no choice was made"):
        make([faces]).portrait(FRAME, where="me.png")
    assert make([faces], "right").portrait(FRAME).crop.center_x > 400.0
    assert make([faces], 0).portrait(FRAME).crop.center_x < 200.0


def test_a_face_that_is_too_small():
    with pytest.raises(FaceTooSmallError, match=r"the face is 30 pixels high.*expected at least 40") as caught:
        make([[face_points(300.0, 240.0, 30.0)]]).portrait(FRAME)
    assert caught.value.exit_code == 12


@pytest.mark.parametrize(
    ("x", "y", "side"), [(10.0, 240.0, "left"), (635.0, 240.0, "right"), (300.0, 20.0, "top"), (300.0, 450.0, "bottom")]
)
def test_a_face_that_is_cut_off_names_the_side(x, y, side):
    with pytest.raises(FaceCutOffError, match=f"cut off at the {side} of the picture") as caught:
        make([[face_points(x, y, 200.0)]]).portrait(FRAME)
    assert caught.value.exit_code == 13


def test_a_chin_just_outside_is_accepted():
    points = face_points(300.0, 385.0, 200.0)  # the chin reaches 485
    assert 0 < (points[:, 1] > 480.0).sum() <= 10
    make([[points]]).portrait(FRAME)


def test_a_choice_that_does_not_exist_is_refused_at_once():
    with pytest.raises(UsageError, match="'biggest' is not known"):
        make([[]], "biggest")


def test_a_clip_follows_the_chosen_face_past_a_larger_one():
    small = [face_points(120.0 + 5.0 * step, 240.0, 100.0) for step in range(10)]
    large = [face_points(450.0 - 5.0 * step, 240.0, 220.0) for step in range(10)]
    tracker = make([[b, a] for a, b in zip(small, large, strict=True)], "left")
    tracker.reset()
    for points in small:
        tracked = tracker.frame(FRAME)
        assert np.allclose(tracked.crop.from_crop(tracked.landmarks), points, atol=1e-2)


def test_bystanders_that_come_later_need_no_choice():
    first, other = face_points(200.0, 240.0, 150.0), face_points(480.0, 240.0, 160.0)
    tracker = make([[first], [other, first]])
    tracker.reset()
    assert tracker.frame(FRAME).found
    assert tracker.frame(FRAME).crop.center_x < 300.0


def test_several_faces_in_the_first_frame_need_a_choice_and_the_frame_is_named():
    faces = [face_points(150.0, 240.0, 150.0), face_points(450.0, 240.0, 150.0)]
    tracker = make([[], faces])
    tracker.reset()
    assert not tracker.frame(FRAME).found
    with pytest.raises(SeveralFacesError, match="frame 1: 2 faces"):
        tracker.frame(FRAME)


def test_a_lost_frame_is_neutral_frontal_and_marked():
    tracker = make([[]])
    lost = tracker.frame(FRAME)
    assert not lost.found and lost.crop is None and lost.confidence == 0.0 and not lost.beta.any()
    frontal = Camera.look_at_head(torch.zeros(1)).to_vector()[0].numpy()
    assert np.array_equal(lost.camera, frontal)


@dataclass
class Shown:
    image: np.ndarray
    time_s: float


def shown(count: int) -> list[Shown]:
    return [Shown(FRAME, index / 25.0) for index in range(count)]


def rising(index: int) -> np.ndarray:
    points = face_points(300.0, 240.0, 200.0)
    points[57] += [0.0, 4.0 * index]  # the lower lip drops
    return points


def test_hold_keeps_every_frame_and_the_last_expression():
    frames = [[], [rising(1)], [rising(2)], [], [], [rising(5)]]
    motion = track_clip(make(frames), shown(6), Fraction(25))
    assert motion.found.tolist() == [False, True, True, False, False, True]
    assert np.array_equal(motion.beta[0], motion.beta[1]), "before the first face: the first face"
    assert np.array_equal(motion.beta[3], motion.beta[2]) and np.array_equal(motion.beta[4], motion.beta[2])
    assert not np.array_equal(motion.beta[5], motion.beta[2])
    assert np.allclose(motion.time_s, np.arange(6) / 25.0)
    assert not motion.crop[3].any() and motion.confidence[3] == 0.0 and motion.crop[2].all()


def test_skip_leaves_frames_out_and_keeps_the_times_of_the_others():
    frames = [[], [rising(1)], [], [rising(3)]]
    motion = track_clip(make(frames), shown(4), Fraction(25), on_lost="skip")
    assert motion.found.all() and np.allclose(motion.time_s, [0.04, 0.12])


def test_abort_names_the_frame_and_the_time():
    frames = [[rising(0)], [rising(1)], []]
    with pytest.raises(FaceLostError, match=r"a.mp4: no face in frame 2 at 0.08 s.*--on-lost hold") as caught:
        track_clip(make(frames), shown(3), Fraction(25), on_lost="abort", name="a.mp4")
    assert caught.value.exit_code == 14


def test_a_clip_without_any_face_or_frame_is_an_error():
    with pytest.raises(NoFaceError, match="no face was found in any of its 3 frames"):
        track_clip(make([[]]), shown(3), Fraction(25))
    with pytest.raises(UnreadableVideoError, match="no frames") as caught:
        track_clip(make([[]]), [], Fraction(25))
    assert caught.value.exit_code == 21
    with pytest.raises(UsageError, match=r"--on-lost: 'holt' is not known\. Did you mean 'hold'"):
        track_clip(make([[]]), [], Fraction(25), on_lost="holt")


def test_tracking_twice_gives_the_same_motion():
    tracker = make([[rising(index)] for index in range(4)])
    first, second = (track_clip(tracker, shown(4), Fraction(25)) for _ in range(2))
    assert np.array_equal(first.beta, second.beta) and np.array_equal(first.camera, second.camera)


def tilting(count: int) -> list[list[np.ndarray]]:
    frames = []
    for index in range(count):
        angle = 0.1 * np.sin(index * 1.3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        frames.append([((rising(index % 3) - [300.0, 240.0]) @ turn.T + [300.0, 240.0]).astype(np.float32)])
    return frames


def test_smoothing_lessens_trembling_keeps_rotations_and_the_distance():
    motion = track_clip(make(tilting(20)), shown(20), Fraction(25))
    smooth = smooth_motion(motion, 0.08)
    assert np.abs(np.diff(smooth.beta, axis=0)).mean() < 0.5 * np.abs(np.diff(motion.beta, axis=0)).mean()
    rotation = smooth.camera[:, :16].reshape(-1, 4, 4)[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-5)
    assert np.allclose(np.linalg.norm(smooth.camera[:, [3, 7, 11]], axis=1), 2.7, atol=1e-4)
    assert np.array_equal(smooth.camera[:, 16:], motion.camera[:, 16:])
    roll = Camera.from_vector(torch.from_numpy(smooth.camera)).head_angles()[:, 2]
    assert roll.abs().max() < 0.06  # the input swings by 0.1


def test_smoothing_equals_a_slow_weighted_mean_and_ignores_lost_frames():
    frames = [[rising(0)], [rising(3)], [], [rising(9)]]
    motion = track_clip(make(frames), shown(4), Fraction(25))
    smooth = smooth_motion(motion, 0.05)
    for index in range(4):
        weights = [np.exp(-0.5 * ((t - index) * 0.04 / 0.05) ** 2) * motion.found[t] for t in range(4)]
        mean = sum(w * b for w, b in zip(weights, motion.beta.astype(np.float64), strict=True)) / sum(weights)
        assert np.allclose(smooth.beta[index], mean, atol=1e-5)


def test_no_smoothing_changes_nothing_and_a_constant_stays_itself():
    motion = track_clip(make([[rising(2)]]), shown(5), Fraction(25))
    assert smooth_motion(motion, 0.0) is motion
    smooth = smooth_motion(motion, 0.1)
    assert np.allclose(smooth.beta, motion.beta, atol=1e-6)
    angle = rotation_angle_deg(*(Camera.from_vector(torch.from_numpy(m.camera)) for m in (smooth, motion)))
    assert angle.max() < 0.1
    with pytest.raises(ValueError, match="must not be negative"):
        smooth_motion(motion, -0.1)


def test_the_nearest_rotation_never_mirrors():
    rotations = nearest_rotation(torch.randn(50, 3, 3, dtype=torch.float64))
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(50, dtype=torch.float64))
    assert torch.allclose(nearest_rotation(rotations * 1.7), rotations)
