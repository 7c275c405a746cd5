"""Frames without a face: hold, skip or abort, and always counted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from export3d.animation import DrivingFrame
from export3d.animation.lost import hold_lost
from export3d.errors import FaceLostError, NoFaceError, UsageError
from export3d.face_state import FaceState
from export3d.tracking import LostFaces

OWN, OWN_CAMERA = FaceState.of(beta=np.full(64, -1.0), gaze=np.full(2, -0.1)), np.full(25, -2.0, dtype=np.float32)


class GivenFrames:
    """A driver that shows beta = its frame's number wherever a face is found."""

    name = "clip.mp4"
    fps = Fraction(25)
    time_base = Fraction(1, 25)
    audio: Path | None = None
    relative_only = False

    def __init__(self, found: str) -> None:
        self.found = found
        self.num_frames_hint: int | None = len(found)

    def __iter__(self) -> Iterator[DrivingFrame]:
        for index, letter in enumerate(self.found):
            value = float(index) if letter == "x" else 0.0
            yield DrivingFrame(
                state=FaceState.of(beta=np.full(64, value), gaze=np.full(2, 0.1 * index)),
                camera=np.full(25, value, dtype=np.float32),
                found=letter == "x",
                index=index,
                pts=index,
                duration=1,
            )

    def close(self) -> None: ...


def run(found: str, policy: str) -> tuple[list[DrivingFrame], LostFaces]:
    lost = LostFaces(policy, name=GivenFrames.name)
    return list(hold_lost(GivenFrames(found), lost, OWN, OWN_CAMERA)), lost


def test_hold_repeats_the_last_expression_and_camera() -> None:
    frames, lost = run("xx..x.", "hold")
    assert [frame.state.beta[0, 0] for frame in frames] == [0, 1, 1, 1, 4, 4]
    assert [frame.camera[0] for frame in frames] == [0, 1, 1, 1, 4, 4]
    assert [frame.pts for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert (lost.num_found, lost.num_lost, lost.gaps) == (3, 3, [(2, 3), (5, 5)])


def test_hold_repeats_every_field_of_the_last_face() -> None:
    frames, _ = run(".x..x", "hold")
    assert frames[0].state is OWN
    assert [round(float(f.state.gaze[0, 0]), 3) for f in frames if f.state.gaze is not None] == [
        -0.1,
        0.1,
        0.1,
        0.1,
        0.4,
    ]


def test_hold_shows_the_portrait_at_rest_until_a_face_appears() -> None:
    frames, _ = run("..x", "hold")
    assert [frame.state.beta[0, 0] for frame in frames] == [-1, -1, 2]
    assert [frame.camera[0] for frame in frames] == [-2, -2, 2]


def test_skip_leaves_frames_out_and_keeps_the_times_of_the_others() -> None:
    frames, lost = run(".x..x", "skip")
    assert [frame.pts for frame in frames] == [1, 4] and lost.num_lost == 3


def test_abort_names_the_frame_and_its_time() -> None:
    with pytest.raises(FaceLostError, match=r"clip\.mp4: no face in frame 2 at 0\.08 s.*--on-lost hold"):
        run("xx.x", "abort")


@pytest.mark.parametrize("policy", ["hold", "skip"])
def test_a_clip_without_any_face_is_an_error(policy: str) -> None:
    with pytest.raises(NoFaceError, match=r"clip\.mp4: no face was found in any of its 3 frames"):
        run("...", policy)


def test_an_unknown_policy_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"--on-lost: 'holdd' is not known\. Did you mean 'hold'"):
        LostFaces("holdd", name="clip.mp4")
