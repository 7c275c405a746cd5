"""Several drivers as one: pose and mouth from other files, in the main driver's time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.animation.combined import CombinedDriver
from export3d.animation.drivers import DrivingFrame
from export3d.animation.regions import BetaReading
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import load_model


class Played:
    """A driver whose faces and cameras are numbers."""

    problems: tuple[str, ...] = ("a damaged packet",)
    relative_only = False

    def __init__(self, numbers: list[float], fps: int, *, found: list[bool] | None = None, start: int = 0) -> None:
        self.name, self.fps, self.time_base = f"played at {fps}", Fraction(fps), Fraction(1, fps)
        self.num_frames_hint: int | None = len(numbers)
        self.audio: Path | None = Path(f"sound at {fps}")
        self.closed = False
        self._numbers, self._found, self._first = numbers, found or [True] * len(numbers), start

    def __iter__(self) -> Iterator[DrivingFrame]:
        for index, number in enumerate(self._numbers):
            yield DrivingFrame(
                state=FaceState.of(
                    beta=np.full(64, number), weights=np.full(52, number / 100), gaze=np.full(2, number)
                ),
                camera=np.full(25, number, dtype=np.float32),
                found=self._found[index],
                index=index,
                pts=self._first + index,
                duration=1,
            )

    def close(self) -> None:
        self.closed = True


def cameras(driver: CombinedDriver) -> list[float]:
    return [float(frame.camera[0]) for frame in driver]


def test_the_pose_comes_from_the_other_file_at_the_main_ones_times() -> None:
    main, pose = Played([1, 2, 3, 4], 10), Played([50, 60], 5)
    driver = CombinedDriver(main, pose=pose)
    assert cameras(driver) == [50, 50, 60, 60]
    assert [float(frame.state.beta[0, 0]) for frame in CombinedDriver(main, pose=pose)] == [1, 2, 3, 4]


def test_after_its_end_the_last_pose_is_held_and_before_its_first_face_the_main_one_is_shown() -> None:
    assert cameras(CombinedDriver(Played([1, 2, 3, 4], 10), pose=Played([50, 60], 10))) == [50, 60, 60, 60]
    late = Played([50, 60], 5, found=[False, True])
    assert cameras(CombinedDriver(Played([1, 2, 3, 4], 10), pose=late)) == [1, 2, 60, 60]


def test_clocks_that_do_not_begin_at_zero_are_laid_on_each_other() -> None:
    assert cameras(CombinedDriver(Played([1, 2], 10, start=90), pose=Played([50, 60], 10, start=7))) == [50, 60]


def test_the_mouth_takes_lips_and_jaw_and_the_sound_and_nothing_else() -> None:
    main, mouth = Played([10, 20], 10), Played([80, 90], 20)
    driver = CombinedDriver(main, mouth=mouth, reading=BetaReading.of(load_model(None)))
    frames = list(driver)
    for frame, own, other in zip(frames, (10, 20), (80, 90), strict=True):
        assert frame.state.weights is not None and frame.state.gaze is not None
        for name, value in zip(ARKIT_NAMES, frame.state.weights[0].tolist(), strict=True):
            assert value == pytest.approx(
                (other if name.startswith(("mouth", "jaw", "nose", "cheekPuff", "tongue")) else own) / 100
            )
        assert torch.all(frame.state.gaze == own) and frame.camera[0] == own
    assert driver.audio == Path("sound at 20")


def test_all_files_are_closed_and_their_damage_is_told() -> None:
    main, pose, mouth = Played([1], 10), Played([2], 10), Played([3], 10)
    driver = CombinedDriver(main, pose=pose, mouth=mouth, reading=BetaReading.of(load_model(None)))
    list(driver)
    driver.close()
    assert main.closed and pose.closed and mouth.closed
    assert driver.problems == ("a damaged packet",) * 3


def test_a_voices_mouth_is_marked_as_one() -> None:
    reading = BetaReading.of(load_model(None))
    voice = Played([2], 10)
    assert not any(frame.voiced for frame in CombinedDriver(Played([1], 10), mouth=voice, reading=reading))
    voice.relative_only = True
    assert all(frame.voiced for frame in CombinedDriver(Played([1], 10), mouth=voice, reading=reading))
