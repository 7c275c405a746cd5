"""Clips, photos and motion files all become the same stream of driving frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import a_motion, make_clip
from export3d.animation import ClipDriver, MotionDriver, PhotoDriver, open_driver
from export3d.cli.animate import AnimateOptions
from export3d.cli.common import parse
from export3d.errors import ImageSizeError, MotionFileError, UnreadableVideoError
from export3d.tracking import ExtractorInfo, Motion, Tracker

TrackerMaker = Callable[..., Tracker]


def test_a_clip_gives_every_frame_with_its_time_and_picture(tmp_path: Path, make_tracker: TrackerMaker) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=6, fps=Fraction(24000, 1001))
    driver = ClipDriver(path, make_tracker(6, lost=[2]))
    frames = list(driver)
    driver.close()
    assert [frame.found for frame in frames] == [True, True, False, True, True, True]
    assert [frame.pts * driver.time_base for frame in frames] == [k * Fraction(1001, 24000) for k in range(6)]
    assert all(frame.image is not None and frame.image.shape == (160, 160, 3) for frame in frames)
    assert driver.fps == Fraction(24000, 1001) and driver.audio == path and driver.num_frames_hint == 6


def test_a_silent_clip_has_no_sound_to_copy(tmp_path: Path, make_tracker: TrackerMaker) -> None:
    driver = ClipDriver(make_clip(tmp_path / "clip.mp4", num_frames=2, audio=None), make_tracker())
    assert driver.audio is None


def test_a_motion_file_gives_its_frames_at_their_times() -> None:
    motion = a_motion()
    driver = MotionDriver(motion)
    frames = list(driver)
    assert [frame.found for frame in frames] == [True, True, True, False]
    assert np.array_equal(frames[1].state.beta[0], motion.beta[1]) and frames[1].image is None
    for frame, time_s in zip(frames, motion.time_s, strict=True):
        assert float(frame.pts * driver.time_base) == pytest.approx(time_s, abs=1 / 180_000)
    # 1001 / 30000 s = 3003 ticks of 1 / 90000 s; 1001 / 24000 s = 15015 ticks of 1 / 360000 s.
    assert [frame.duration for frame in frames] == [3003, 3003, 3003, 3003]
    other = MotionDriver(a_motion(fps=Fraction(24000, 1001)))
    assert [frame.pts for frame in other] == [0, 15015, 30030, 45045] and other.time_base == Fraction(1, 360_000)


def test_a_photo_gives_one_frame_or_a_still_video(make_tracker: TrackerMaker, photo: np.ndarray) -> None:
    assert len(list(PhotoDriver(photo, make_tracker(), name="photo"))) == 1
    still = list(PhotoDriver(photo, make_tracker(), name="photo", seconds=2.0))
    assert len(still) == 50 and all(frame.state.same_as(still[0].state) for frame in still)


def test_the_kind_of_file_decides(tmp_path: Path, make_tracker: TrackerMaker, photo: np.ndarray) -> None:
    def kind(path: Path) -> str:
        driver = open_driver(path, make_tracker, expression_space="ict64")
        driver.close()
        return type(driver).__name__

    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    a_motion().save(tmp_path / "motion.safetensors")
    assert kind(make_clip(tmp_path / "clip.mp4", num_frames=2)) == "ClipDriver"
    assert kind(tmp_path / "photo.jpg") == "PhotoDriver"
    assert kind(tmp_path / "motion.safetensors") == "MotionDriver"


def test_a_moving_gif_is_a_clip(tmp_path: Path, make_tracker: TrackerMaker, photo: np.ndarray) -> None:
    pictures = [Image.fromarray(np.roll(photo, shift, axis=0)) for shift in range(3)]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=40)
    driver = open_driver(tmp_path / "clip.gif", make_tracker, expression_space="ict64")
    assert isinstance(driver, ClipDriver) and len(list(driver)) == 3


def test_a_motion_in_another_expression_space_is_refused(tmp_path: Path, make_tracker: TrackerMaker) -> None:
    a_motion(space="bfm64").save(tmp_path / "motion.safetensors")
    with pytest.raises(MotionFileError, match=r"motion\.safetensors: .*'bfm64'.*expects 'ict64'"):
        open_driver(tmp_path / "motion.safetensors", make_tracker, expression_space="ict64")


def test_a_missing_driving_file_is_named(make_tracker: TrackerMaker) -> None:
    with pytest.raises(UnreadableVideoError, match=r"nothing\.mp4: no such file"):
        open_driver("nothing.mp4", make_tracker, expression_space="ict64")


def test_an_absurdly_large_photo_is_refused(tmp_path: Path, make_tracker: TrackerMaker) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(ImageSizeError, match=r"huge\.png: .*at most 100 megapixels"):
        open_driver(tmp_path / "huge.png", make_tracker, expression_space="ict64")


def test_a_motion_file_gives_its_gaze_and_an_old_one_unknown_gaze() -> None:
    motion = Motion(
        beta=np.zeros((2, 64), np.float32),
        camera=np.zeros((2, 25), np.float32),
        confidence=np.ones(2, np.float32),
        found=np.ones(2, bool),
        landmarks=np.zeros((2, 68, 2), np.float32),
        time_s=np.array([0.0, 0.04]),
        fps=Fraction(25),
        extractor=ExtractorInfo("test", "1", "", "ict64"),
        gaze=np.array([[0.1, 0.0], [0.2, -0.1]], np.float32),
    )
    given = [frame.state.gaze for frame in MotionDriver(motion)]
    np.testing.assert_array_equal(torch.cat([gaze for gaze in given if gaze is not None]), motion.gaze)
    assert all(frame.state.gaze is None for frame in MotionDriver(replace(motion, gaze=None)))


def test_no_gaze_is_an_option_of_animate() -> None:
    given = ["--source", "a.png", "--driving", "b.mp4", "-o", "c.mp4"]
    assert parse(AnimateOptions, given, command="animate").gaze
    assert not parse(AnimateOptions, [*given, "--no-gaze"], command="animate").gaze
