"""Live: a webcam's pictures drive the portrait; recordings; the virtual camera."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clips import clip_facts, make_clip
from conftest import make_tracker, picture_file
from export3d.animation.parallel import threads_of
from export3d.errors import MissingExtraError, OutputError, UnreadableImageError, UsageError
from export3d.studio.face import Wish
from export3d.studio.live import Live, LiveOptions, Recording, jpeg, open_virtual_camera
from export3d.studio.workshop import Stage, Workshop


def driven(live: Live) -> np.ndarray:
    """The portrait after the next picture of the camera."""
    return live.show(live.look(picture_file()))


def test_each_picture_gives_one_and_the_face_changes_it(stage: Stage) -> None:
    live = Live(stage, make_tracker())
    shown = [driven(live) for _ in range(4)]
    assert live.found and {image.shape for image in shown} == {stage.picture(Wish()).shape}
    assert np.abs(shown[3].astype(int) - shown[0]).max() > 0


def test_where_the_face_is_lost_the_last_one_stays(stage: Stage) -> None:
    live = Live(stage, make_tracker(lost=(2,)))
    shown = [driven(live) for _ in range(3)]
    assert not live.found
    np.testing.assert_array_equal(shown[2], shown[1])


def test_with_strength_0_the_portrait_keeps_its_face(stage: Stage) -> None:
    live = Live(stage, make_tracker())
    live.set(LiveOptions(strength=0.0, pose=False))
    shown = [driven(live) for _ in range(3)]
    np.testing.assert_array_equal(shown[0], shown[2])


def test_freezing_shows_the_last_picture_and_tracks_nothing(stage: Stage) -> None:
    live = Live(stage, make_tracker())
    last = driven(live)
    live.set(LiveOptions(freeze=True))
    assert live.show(live.look(b"not even a picture")) is last


def test_live_leaves_half_of_the_threads_to_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    live, used = Live(stage, make_tracker()), []
    real = stage.animator.frame
    monkeypatch.setattr(stage.animator, "frame", lambda *given: used.append(torch.get_num_threads()) or real(*given))
    with threads_of(4):
        driven(live)
        assert (used, torch.get_num_threads()) == ([2], 4)
    with threads_of(1):
        driven(live)
    assert used == [2, 1]


def betas_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the animator is given from now on, less the portrait's own."""
    got: list[np.ndarray] = []
    real, own = stage.animator.frame, stage.subject.state.beta
    monkeypatch.setattr(
        stage.animator, "frame", lambda state, camera: got.append((state.beta - own).numpy()) or real(state, camera)
    )
    return got


def test_relative_motion_begins_at_the_resting_face(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    live, moved = Live(stage, make_tracker()), betas_of(stage, monkeypatch)
    live.set(LiveOptions(relative=True))
    for _ in range(3):
        driven(live)
    live.restart()  # calibrated: the next face rests
    driven(live)
    assert [float(np.abs(change).max()) > 1e-6 for change in moved] == [False, True, True, False]


def test_another_strength_keeps_the_resting_face_and_scales_the_motion(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, moved = Live(stage, make_tracker()), betas_of(stage, monkeypatch)
    live.set(LiveOptions(relative=True))
    for _ in range(2):
        driven(live)
    live.set(LiveOptions(relative=True, strength=1.5))
    driven(live)
    # The mouth opens by the same step from frame to frame.
    np.testing.assert_allclose(moved[2], 1.5 * 2.0 * moved[1], atol=1e-4)


def test_what_is_no_picture_or_too_large_is_refused(stage: Stage) -> None:
    live = Live(stage, make_tracker())
    with pytest.raises(UnreadableImageError, match="the webcam: not an image"):
        live.look(b"nothing")
    with pytest.raises(UsageError, match="2000x2000 are too large"):
        live.look(picture_file(side=2000))


def test_a_recording_keeps_times_and_sound(workshop: Workshop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.1, 10.3, 10.3, 10.6])
    monkeypatch.setattr("export3d.studio.live.time", SimpleNamespace(monotonic=lambda: next(clock)))
    recording = Recording(workshop.new_file(".recording"), 60.0)
    for shade in (0, 80, 120, 160):
        recording.add(jpeg(np.full((64, 64, 3), shade, dtype=np.uint8)))
    sound = make_clip(tmp_path / "sound.mp4", num_frames=20)
    path = workshop.new_file(".mp4")
    assert recording.write_video(path, workshop.finish(), sound) == 3  # two at one moment are one
    facts = clip_facts(path)
    assert [round(float(time), 2) for time in facts.times] == [0.0, 0.2, 0.5]
    assert facts.audio_codec == "aac"


def test_a_recording_ends_at_its_longest_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 1.5])
    monkeypatch.setattr("export3d.studio.live.time", SimpleNamespace(monotonic=lambda: next(clock)))
    recording = Recording(workshop.new_file(".recording"), 1.0)
    for _ in range(2):
        recording.add(jpeg(np.zeros((64, 64, 3), dtype=np.uint8)))
    assert recording.write_video(workshop.new_file(".mp4"), workshop.finish(), None) == 1


def test_an_empty_recording_says_what_to_do_and_leaves_nothing(workshop: Workshop) -> None:
    recording = Recording(workshop.new_file(".recording"), 1.0)
    with pytest.raises(OutputError, match="Start the camera first"):
        recording.write_video(workshop.new_file(".mp4"), workshop.finish(), None)
    recording.close()
    assert list(workshop.folder.iterdir()) == []


def test_a_virtual_camera_is_opened_at_the_asked_size() -> None:
    module = SimpleNamespace(Camera=lambda **given: SimpleNamespace(**given))
    camera = open_virtual_camera(512, module)
    assert (camera.width, camera.height) == (512, 512)


def test_a_virtual_camera_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**given: Any) -> None:
        raise RuntimeError("no device")

    with pytest.raises(OutputError, match=r"no device.*v4l2loopback"):
        open_virtual_camera(512, SimpleNamespace(Camera=none))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(MissingExtraError, match=r"export3d\[virtual-camera\]"):
        open_virtual_camera(512)
