"""Tests of the gaze map: directions, mirror, closed eyes, limits, its file, and the tracker."""

from dataclasses import replace

import numpy as np
import pytest

from export3d.fitting.gaze import MIRROR_SCORES
from export3d.heads.clips.motion import MAX_GAZE_RAD
from export3d.tracking import Tracker
from export3d.tracking.faces import BLENDSHAPE_NAMES, ExtractorInfo, Face
from export3d.tracking.gaze import GAZE_LIMIT_RAD, GazeMap
from export3d.tracking.standin import MeasuredCoefficients, face_from_landmarks


@pytest.fixture(scope="module")
def bundled() -> GazeMap:
    return GazeMap.load()


def scores(**values: float) -> np.ndarray:
    """Scores of open eyes that look straight ahead, but for these."""
    given = {"eyeLookDownLeft": 0.3, "eyeLookDownRight": 0.3, **values}
    return np.array([given.get(name, 0.05) for name in BLENDSHAPE_NAMES], dtype=np.float32)


RIGHT = scores(eyeLookOutLeft=0.6, eyeLookInRight=0.6)
"""To the image right: the person's left."""
SHUT = scores(eyeBlinkLeft=0.8, eyeBlinkRight=0.8)


def test_the_persons_left_is_the_image_right(bundled):
    assert bundled.read(RIGHT)[0] > 0.15
    assert bundled.read(scores(eyeLookInLeft=0.6, eyeLookOutRight=0.6))[0] < -0.15
    assert abs(bundled.read(scores())[0]) < 0.02


def test_eyes_that_look_up_are_a_gaze_upwards(bundled):
    up = bundled.read(scores(eyeLookUpLeft=0.5, eyeLookUpRight=0.5, eyeLookDownLeft=0.0, eyeLookDownRight=0.0))
    down = bundled.read(scores(eyeLookDownLeft=0.8, eyeLookDownRight=0.8))
    assert up[1] - down[1] > 0.1


def test_mirrored_scores_give_the_mirrored_gaze(bundled):
    given = np.random.default_rng(0).uniform(0.0, 0.5, 52).astype(np.float32)
    np.testing.assert_allclose(bundled.read(given[MIRROR_SCORES]), bundled.read(given) * [-1.0, 1.0], atol=1e-3)


def test_closed_eyes_have_no_gaze_and_a_wink_has_one(bundled):
    assert np.isnan(bundled.read(SHUT)).all()
    assert np.isfinite(bundled.read(scores(eyeBlinkLeft=0.8))).all()


def test_many_faces_are_read_at_once(bundled):
    both = bundled.read(np.stack([RIGHT, SHUT]))
    assert both.shape == (2, 2) and np.isnan(both[1]).all()
    np.testing.assert_allclose(both[0], bundled.read(RIGHT), atol=1e-6)


def test_the_answer_stops_at_the_limit_of_the_synthetic_eyes(bundled):
    assert GAZE_LIMIT_RAD == MAX_GAZE_RAD
    strong = replace(bundled, weight=bundled.weight * np.float32(50.0))
    assert strong.read(RIGHT)[0] == np.float32(GAZE_LIMIT_RAD)


def test_another_number_of_scores_is_refused(bundled):
    with pytest.raises(ValueError, match=r"scores must have shape \(\.\.\., 52\)"):
        bundled.read(np.zeros(51, np.float32))


class GivenScores:
    """A face tracker that answers with one face after another; None is a face without scores."""

    def __init__(self, rows: list) -> None:
        self.info, self._rows, self._next = ExtractorInfo("given-scores", "1", "", ""), rows, 0

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        row = self._rows[self._next % len(self._rows)]
        self._next += 1
        points = np.random.default_rng(0).uniform(100.0, 300.0, (68, 2)).astype(np.float32)
        return [replace(face_from_landmarks(points), blendshapes=row)]

    def reset(self) -> None: ...

    def close(self) -> None: ...


FRAME = np.zeros((400, 400, 3), dtype=np.uint8)


def test_a_blink_keeps_the_last_gaze_of_the_clip_and_a_new_clip_starts_unknown():
    tracker = Tracker(GivenScores([SHUT, RIGHT, SHUT, None, SHUT]), MeasuredCoefficients())
    got = [tracker.frame(FRAME).gaze for _ in range(4)]
    assert np.isnan(got[0]).all() and got[1][0] > 0.1
    assert np.array_equal(got[2], got[1]) and np.array_equal(got[3], got[1])
    tracker.reset()
    assert np.isnan(tracker.frame(FRAME).gaze).all()


def test_a_portrait_with_closed_eyes_or_without_scores_has_no_gaze():
    tracker = Tracker(GivenScores([SHUT, None, RIGHT]), MeasuredCoefficients())
    first, second, third = (tracker.portrait(FRAME).gaze for _ in range(3))
    assert np.isnan(first).all() and np.isnan(second).all() and third[0] > 0.1
