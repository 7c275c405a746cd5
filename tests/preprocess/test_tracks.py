"""Following faces, dividing tracks, measuring quality, seeing shot changes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from clips import face_points, panned_frames
from export3d.camera import Camera
from export3d.preprocess import PrepareOptions
from export3d.preprocess.following import FaceFollower
from export3d.preprocess.quality import POSE_BINS, count_angles, face_sharpness, measure, outside_share, why_dropped
from export3d.preprocess.tracks import Track, TrackedFace, fixed_crop, gaze_of, measure_clip, moved_camera
from export3d.tracking import Crop, Face, crop_transform
from export3d.tracking.shots import ShotDetector, color_histogram, histogram_distance, reduced
from export3d.tracking.standin import MeasuredCoefficients, face_from_landmarks


def face(x: float, y: float = 100.0, scale: float = 40.0) -> Face:
    return face_from_landmarks(face_points((x, y), scale))


def tracked(number: int, x: float = 100.0, scale: float = 40.0) -> TrackedFace:
    found = face(x, scale=scale)
    crop = crop_transform(found.landmarks_px)
    return TrackedFace(number=number, time=Fraction(number, 25), face=found, crop=crop, outside=0.0, observed=None)


def test_the_largest_face_is_followed_even_when_another_grows_larger() -> None:
    follower = FaceFollower()
    first = follower.update([face(100, scale=40), face(300, scale=30)])
    second = follower.update([face(102, scale=40), face(300, scale=60)])
    assert list(first) == list(second) == [0]
    assert second[0].box[0] < 200


def test_a_lost_face_ends_its_track_and_another_begins() -> None:
    follower = FaceFollower()
    assert list(follower.update([face(100)])) == [0]
    assert follower.update([]) == {}
    assert list(follower.update([face(100)])) == [1]
    assert list(follower.update([face(400)])) == [2]  # a jump is another face
    follower.reset()
    assert list(follower.update([face(400)])) == [3]


def test_every_face_keeps_its_number_while_they_pass_in_any_order() -> None:
    follower = FaceFollower(every_face=True)
    assert {number: round(f.box[0]) for number, f in follower.update([face(300), face(100)]).items()} == {
        0: round(face(100).box[0]),
        1: round(face(300).box[0]),
    }
    second = follower.update([face(305), face(200), face(105)])
    assert {number: round(f.box[0] + 40) for number, f in second.items()} == {0: 105, 1: 305, 2: 200}


def test_a_guide_overrides_size_and_refuses_far_faces() -> None:
    follower = FaceFollower()
    guide = np.full((5, 2), [300.0, 110.0])
    chosen = follower.update([face(100, scale=60), face(300, scale=30)], guide)
    assert chosen[0].box[0] > 200
    assert follower.update([face(100, scale=60)], guide) == {}


def test_long_tracks_are_divided_without_losing_a_frame() -> None:
    options = PrepareOptions(min_frames=10, max_frames=40)
    track, pieces = Track(), []
    for number in range(95):
        track.frames.append(tracked(number))
        full = track.take_full(options)
        if full:
            pieces.append(full)
    pieces += track.take_rest(options)
    # 40 are taken as soon as 10 more are there (at 50 and at 90); the rest of 15 is a clip of its own
    assert [len(piece) for piece in pieces] == [40, 40, 15]
    assert [frame.number for piece in pieces for frame in piece] == list(range(95))
    track.frames = [tracked(number) for number in range(49)]  # too long for one clip, too short to be taken before
    assert [len(piece) for piece in track.take_rest(options)] == [25, 24]
    assert Track().take_rest(options) == []


def test_coefficients_are_asked_for_in_the_aligned_crop() -> None:
    frames = [tracked(number, 100.0 + number) for number in range(4)]
    measured = measure_clip(frames, MeasuredCoefficients(), None)
    landmarks = np.stack([f.crop.to_crop(f.face.landmarks_px) for f in frames])
    beta, camera = MeasuredCoefficients().coefficients(landmarks)
    assert np.array_equal(measured.arrays["beta"], beta) and np.array_equal(measured.arrays["camera"], camera)
    assert np.array_equal(measured.arrays["landmarks"], landmarks)
    assert np.allclose(
        measured.arrays["crop"][1], [frames[1].crop.center_x, frames[1].crop.center_y, frames[1].crop.side]
    )
    assert all(array.dtype == np.float32 for array in measured.arrays.values())


def test_a_fixed_crop_changes_intrinsics_so_that_every_point_stays_on_its_pixel() -> None:
    camera = Camera.look_at_head(0.3, -0.1, 0.2).to_vector()[0].numpy()
    aligned, other = Crop(110.0, 90.0, 100.0), Crop(130.0, 100.0, 240.0)
    moved = moved_camera(camera, aligned, other)
    points = torch.tensor([[[0.1, 0.2, 0.3], [-0.2, 0.0, 0.1], [0.0, -0.3, 0.0]]])
    before = Camera.from_vector(torch.from_numpy(camera)[None]).project(points)[0][0].numpy()
    after = Camera.from_vector(torch.from_numpy(moved)[None]).project(points)[0][0].numpy()
    assert np.allclose(aligned.from_crop(before), other.from_crop(after), atol=1e-3)
    assert np.allclose(moved[:16], camera[:16])


def test_a_fixed_crop_holds_the_face_in_every_frame() -> None:
    frames = [tracked(number, 100.0 + 10 * number) for number in range(5)]
    square = fixed_crop(frames)
    measured = measure_clip(frames, MeasuredCoefficients(), square)
    assert (measured.arrays["crop"] == np.float32([square.center_x, square.center_y, square.side])).all()
    assert measured.arrays["landmarks"].min() > 0.1 and measured.arrays["landmarks"].max() < 0.9
    # union: x from 60 to 180 (five faces 10 px apart, 80 px wide), so the side is 1.6 * 120
    assert square.side == pytest.approx(1.6 * 120, rel=0.02) and square.center_x == pytest.approx(120, abs=1)


def test_sharpness_falls_with_blur_and_does_not_depend_on_the_stored_size() -> None:
    photo = panned_frames(1, (200, 200))[0]
    landmarks = np.stack(np.meshgrid([0.3, 0.7], [0.3, 0.7]), -1).reshape(4, 2).repeat(17, 0)
    values = [
        face_sharpness(np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius))), landmarks)
        for radius in (0, 1, 2, 4)
    ]
    assert values == sorted(values, reverse=True) and values[0] > 20 * values[2]
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    assert face_sharpness(np.ascontiguousarray(ramp), landmarks) == 0.0  # a plane has no Laplacian
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    board = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    # each pixel differs from its four neighbours by 255: the Laplacian is +-1020, its variance 1020^2
    assert face_sharpness(board, landmarks) == pytest.approx(1020.0**2, rel=1e-3)


def test_the_share_outside_is_an_area() -> None:
    assert outside_share(Crop(50, 50, 40), 100, 100) == 0.0
    assert outside_share(Crop(0, 50, 40), 100, 100) == pytest.approx(0.5)
    assert outside_share(Crop(0, 0, 40), 100, 100) == pytest.approx(0.75)
    assert outside_share(Crop(-100, 50, 40), 100, 100) == 1.0
    assert outside_share(Crop(50, 50, 200), 100, 100) == pytest.approx(0.75)


def test_angles_are_counted_in_bins_of_five_degrees() -> None:
    counts = count_angles(np.array([-90.0, -0.1, 0.0, 4.9, 5.0, 120.0]))
    assert sum(counts) == 6
    assert {POSE_BINS[i]: n for i, n in enumerate(counts) if n} == {-90: 1, -5: 1, 0: 2, 5: 1, 85: 1}


def test_each_rule_names_its_number_and_its_option() -> None:
    camera = Camera.look_at_head(torch.zeros(2)).to_vector().numpy()

    def quality(sharpness=50.0, face_px=100.0, confidence=1.0, outside=0.0):
        two = np.ones(2)
        return measure(
            sharpness=sharpness * two,
            face_px=face_px * two,
            confidence=confidence * two,
            outside=outside * two,
            camera=camera,
        )

    options = PrepareOptions()
    assert why_dropped(quality(), options) is None
    assert why_dropped(quality(face_px=79), options) == "face too small (79 px; --min-face-px 80)"
    assert why_dropped(quality(confidence=0.4), options) == "face uncertain (confidence 0.40; --min-confidence 0.5)"
    assert (
        why_dropped(quality(outside=0.6), options) == "face at the border (60% of the crop outside; --max-outside 0.5)"
    )
    assert why_dropped(quality(sharpness=9.9), options) == "blurred (sharpness 9.9; --min-sharpness 10)"


def test_a_moving_picture_is_one_shot_and_another_place_is_the_next() -> None:
    detector = ShotDetector()
    frames = panned_frames(20)
    assert not any(detector.is_cut(frame) for frame in frames)
    other = np.zeros_like(frames[0])
    other[..., 2] = np.linspace(0, 255, other.shape[1])
    assert detector.is_cut(other)
    assert not detector.is_cut(other)
    assert detector.is_cut(frames[0])


def test_a_slow_change_of_light_is_no_cut() -> None:
    detector = ShotDetector()
    photo = panned_frames(1)[0].astype(float)
    assert not any(detector.is_cut((photo * (1 - 0.02 * n)).astype(np.uint8)) for n in range(40))


def test_histogram_distance_runs_from_equal_to_nothing_in_common() -> None:
    black, white = (color_histogram(reduced(np.full((72, 128, 3), value, np.uint8))) for value in (0, 255))
    assert black.sum() == pytest.approx(1.0)
    assert histogram_distance(black, black) == 0.0 and histogram_distance(black, white) == pytest.approx(1.0)


def _faces(*gazes: float | None) -> list[TrackedFace]:
    """Faces whose scores say where they look; None is a face without scores."""
    frames = []
    for number, gaze in enumerate(gazes):
        seen = tracked(number)
        scores = None if gaze is None else np.full(52, gaze, dtype=np.float32)
        frames.append(replace(seen, face=replace(seen.face, blendshapes=scores)))
    return frames


def _read(scores: np.ndarray) -> np.ndarray:
    return scores[:2]


def test_closed_eyes_keep_the_gaze_before_them_and_the_first_ones_take_the_first_known() -> None:
    gaze = gaze_of(_faces(np.nan, 0.1, np.nan, np.nan, 0.3, np.nan), _read)
    assert gaze is not None
    assert gaze.tolist() == np.float32([[g, g] for g in (0.1, 0.1, 0.1, 0.1, 0.3, 0.3)]).tolist()


def test_a_clip_without_any_gaze_stores_none() -> None:
    assert gaze_of(_faces(np.nan, np.nan), _read) is None
    assert gaze_of(_faces(0.1, None), _read) is None
    frames = [replace(frame, image=np.zeros((64, 64, 3), np.uint8)) for frame in _faces(0.1, 0.2)]
    assert "gaze" not in measure_clip(frames, MeasuredCoefficients(), None).arrays
    stored = measure_clip(frames, MeasuredCoefficients(), None, _read).arrays["gaze"]
    assert stored.shape == (2, 2) and stored.dtype == np.float32 and stored[1, 0] == np.float32(0.2)
