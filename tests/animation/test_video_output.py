"""Whole videos: count, rate, times and sound of the driving clip survive; nothing half-written stays."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import a_motion, clip_facts, make_clip
from export3d.animation import (
    Animator,
    ClipDriver,
    MotionDriver,
    PhotoDriver,
    TransferOptions,
    animate_video,
    orbit_video,
)
from export3d.animation.framing import turned_by
from export3d.animation.paths import OrbitOptions
from export3d.animation.regions import parse_strengths
from export3d.animation.video_output import VideoOptions, VideoReport
from export3d.camera import Camera
from export3d.errors import FaceLostError, NoFaceError, OutputError, UsageError
from export3d.provenance import Finish, ProvenanceOptions, verify_file
from export3d.tracking import Tracker
from export3d.video import VideoReader

TrackerMaker = Callable[..., Tracker]


def unfinished() -> Finish:
    """Frames as the animator makes them."""
    return Finish(ProvenanceOptions(no_mark=True, no_manifest=True))


def make_video(animator: Animator, clip: Path, target: Path, tracker: Tracker, **options: object) -> VideoReport:
    on_lost = str(options.pop("on_lost", "hold"))
    motion = TransferOptions(**options.pop("motion", {}))  # type: ignore[arg-type]
    driver = ClipDriver(clip, tracker)
    try:
        chosen = VideoOptions(**options)  # type: ignore[arg-type]
        return animate_video(
            animator, driver, target, video=chosen, motion=motion, on_lost=on_lost, finish=unfinished()
        )
    finally:
        driver.close()


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30)])
def test_count_rate_times_and_sound_equal_the_driving_clips(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker, fps: Fraction
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", fps=fps, num_frames=12)
    report = make_video(animator, clip, tmp_path / "out.mp4", make_tracker(12))
    given, got = clip_facts(clip), clip_facts(tmp_path / "out.mp4")
    assert (got.num_frames, got.rate, got.times) == (12, fps, given.times)
    assert (got.num_samples, got.audio_codec) == (given.num_samples, given.audio_codec)
    assert (report.frames, report.lost, report.fps, report.width, report.height) == (12, 0, fps, 32, 32)


def test_a_variable_frame_rate_keeps_every_time_and_the_sound(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    pts = [0, 33, 100, 117, 240, 251, 300, 420, 421, 500]
    clip = make_clip(tmp_path / "clip.mp4", num_frames=10, pts=pts, time_base=Fraction(1, 1000))
    make_video(animator, clip, tmp_path / "out.mp4", make_tracker(10))
    got = clip_facts(tmp_path / "out.mp4")
    assert [time * 1000 for time in got.times] == pts
    assert got.num_samples == clip_facts(clip).num_samples


def test_hold_keeps_count_and_sound_and_reports_the_lost_frames(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=10)
    report = make_video(animator, clip, tmp_path / "out.mp4", make_tracker(10, lost=[3, 4, 5]))
    got = clip_facts(tmp_path / "out.mp4")
    assert (report.lost, got.num_frames, got.times) == (3, 10, clip_facts(clip).times)
    assert got.num_samples == clip_facts(clip).num_samples


def test_skip_keeps_the_times_of_the_other_frames_and_the_sound(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=10)
    report = make_video(animator, clip, tmp_path / "out.mp4", make_tracker(10, lost=[3, 4, 5]), on_lost="skip")
    given, got = clip_facts(clip), clip_facts(tmp_path / "out.mp4")
    assert got.times == [time for index, time in enumerate(given.times) if index not in (3, 4, 5)]
    assert (report.frames, report.lost, got.num_samples) == (7, 3, given.num_samples)


def test_abort_and_faceless_clips_leave_nothing_behind(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=6)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(FaceLostError, match=r"frame 4 at 0\.16 s"):
        make_video(animator, clip, folder / "out.mp4", make_tracker(6, lost=[4]), on_lost="abort")
    with pytest.raises(NoFaceError, match="any of its 6 frames"):
        make_video(animator, clip, folder / "out.mp4", make_tracker(6, lost=range(6)))
    assert list(folder.iterdir()) == []


def test_side_by_side_shows_portrait_driver_and_result(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=2, size=(192, 96))
    report = make_video(animator, clip, tmp_path / "out.mp4", make_tracker(2), side_by_side=True, size=64)
    assert (report.width, report.height) == (64 + 128 + 64, 64)
    assert clip_facts(tmp_path / "out.mp4").size == (256, 64)


def test_pose_only_and_expression_only_differ_in_the_video(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=3)
    pictures = {}
    for name, regions in (("pose_only", "pose"), ("expression_only", "lips,jaw,eyes,brows,gaze")):
        target = tmp_path / f"{name}.png"
        # The first face of the driver is its third, whose mouth is open wider than the portrait's.
        make_video(
            animator, clip, target, make_tracker(3, lost=[0, 1]), motion={"strengths": parse_strengths(regions, "1")}
        )
        pictures[name] = np.asarray(Image.open(target)).astype(int)
    assert pictures["pose_only"].shape == (32, 32, 3)
    assert np.abs(pictures["pose_only"] - pictures["expression_only"]).max() > 0


def test_a_still_shows_the_first_face(tmp_path: Path, animator: Animator, make_tracker: TrackerMaker) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=4)
    report = make_video(animator, clip, tmp_path / "out.png", make_tracker(4, lost=[0]))
    tracker = make_tracker(4, lost=[0])
    tracked = [tracker.frame(np.zeros((160, 160, 3), dtype=np.uint8)) for _ in range(2)][1]
    wanted = animator.frame(turned_by(tracked.state, tracked.camera), tracked.camera)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), wanted)
    assert report.frames == 1


def test_a_series_has_a_picture_of_each_frame_or_none(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=3)
    folder = tmp_path / "frames"
    folder.mkdir()
    with pytest.raises(FaceLostError):
        make_video(animator, clip, folder / "at_%03d.png", make_tracker(3, lost=[2]), on_lost="abort")
    assert list(folder.iterdir()) == []
    report = make_video(animator, clip, folder / "at_%03d.png", make_tracker(3))
    assert sorted(path.name for path in folder.iterdir()) == ["at_001.png", "at_002.png", "at_003.png"]
    make_video(animator, clip, folder / "still.png", make_tracker(3))
    first, last, still = (np.asarray(Image.open(folder / name)) for name in ("at_001.png", "at_003.png", "still.png"))
    assert np.array_equal(first, still) and not np.array_equal(first, last) and report.frames == 3


def test_a_photo_drives_a_still_video(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker, photo: np.ndarray
) -> None:
    driver = PhotoDriver(photo, make_tracker(), name="photo.jpg", seconds=1.0)
    animate_video(animator, driver, tmp_path / "out.mp4", video=VideoOptions(), motion=TransferOptions())
    assert clip_facts(tmp_path / "out.mp4").num_frames == 25


def test_a_motion_file_drives_without_its_clip(tmp_path: Path, animator: Animator, make_tracker: TrackerMaker) -> None:
    target = tmp_path / "out.mp4"
    animate_video(animator, MotionDriver(a_motion()), target, video=VideoOptions(), motion=TransferOptions())
    facts = clip_facts(target)
    assert facts.rate == Fraction(30000, 1001) and facts.num_frames == 4 and facts.audio_codec is None
    with pytest.raises(UsageError, match="--side-by-side needs the driving clip"):
        animate_video(
            animator,
            MotionDriver(a_motion()),
            tmp_path / "two.mp4",
            video=VideoOptions(side_by_side=True),
            motion=TransferOptions(),
        )


def test_an_orbit_has_its_frames_and_depth_beside_it(tmp_path: Path, animator: Animator) -> None:
    report = orbit_video(
        animator,
        tmp_path / "orbit.mp4",
        orbit=OrbitOptions(num_frames=6),
        video=VideoOptions(size=48),
        fps=Fraction(25),
        with_depth=True,
    )
    facts = clip_facts(tmp_path / "orbit.mp4")
    assert (facts.num_frames, facts.size, facts.rate) == (6, (96, 48), Fraction(25))
    assert (report.width, report.height, report.frames) == (96, 48, 6)


def test_the_orbits_first_view_can_be_a_picture(tmp_path: Path, animator: Animator) -> None:
    orbit_video(
        animator, tmp_path / "view.jpg", orbit=OrbitOptions(num_frames=6), video=VideoOptions(), fps=Fraction(25)
    )
    assert Image.open(tmp_path / "view.jpg").size == (32, 32)


def test_progress_counts_every_frame(tmp_path: Path, animator: Animator, make_tracker: TrackerMaker) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=5)
    seen: list[int] = []
    driver = ClipDriver(clip, make_tracker(5))
    animate_video(
        animator,
        driver,
        tmp_path / "out.mp4",
        video=VideoOptions(),
        motion=TransferOptions(),
        progress=seen.append,
    )
    assert seen == [1, 2, 3, 4, 5]


def test_frames_made_side_by_side_are_those_made_one_after_the_other(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip, before = make_clip(tmp_path / "clip.mp4", num_frames=12), torch.get_num_threads()
    for workers in (1, 3):
        make_video(animator, clip, tmp_path / f"video{workers}-%02d.png", make_tracker(12), workers=workers)
        path, options = tmp_path / f"orbit{workers}-%02d.png", VideoOptions(workers=workers)
        orbit = {"orbit": OrbitOptions(num_frames=6), "fps": Fraction(25), "with_depth": True}
        orbit_video(animator, path, video=options, finish=unfinished(), **orbit)
        assert torch.get_num_threads() == before
    for name, count in (("video", 12), ("orbit", 6)):
        one, three = (_pictures(tmp_path, f"{name}{workers}-*.png") for workers in (1, 3))
        assert len(one) == len(three) == count and not np.array_equal(one[0], one[3])
        assert np.array_equal(one, three)


def _pictures(folder: Path, pattern: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob(pattern))])


def test_rotated_phone_clips_are_tracked_and_shown_upright(
    tmp_path: Path, animator: Animator, make_tracker: TrackerMaker
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=2, size=(160, 96), audio=None, display_rotation=-90)
    with VideoReader(clip) as reader:
        assert (reader.width, reader.height) == (96, 160)
    report = make_video(animator, clip, tmp_path / "out.mp4", make_tracker(2), side_by_side=True, size=80)
    assert report.width == 80 + 48 + 80


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(UsageError, match="--size must be from 16 to 4096 pixels; got 5"):
        VideoOptions(size=5)
    with pytest.raises(UsageError, match="--crf must be from 0"):
        VideoOptions(crf=99)
    with pytest.raises(UsageError, match="workers must be 0"):
        VideoOptions(workers=-1)


def test_a_picture_into_a_missing_folder_is_refused(tmp_path: Path, animator: Animator) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        orbit_video(
            animator,
            tmp_path / "no" / "view.png",
            orbit=OrbitOptions(),
            video=VideoOptions(),
            fps=Fraction(25),
        )


@pytest.mark.parametrize("rigid", [False, True])
def test_the_head_turns_on_its_neck_unless_the_video_is_rigid(
    tmp_path: Path, animator: Animator, monkeypatch: pytest.MonkeyPatch, rigid: bool
) -> None:
    asked = []
    monkeypatch.setattr(
        Animator,
        "frame",
        lambda self, state, camera: asked.append((camera, state.turn)) or np.zeros((32, 32, 3), np.uint8),
    )
    options = VideoOptions(rigid=rigid, workers=1)
    animate_video(animator, MotionDriver(a_motion()), tmp_path / "out.mp4", video=options, motion=TransferOptions())
    assert len(asked) == 4
    for camera, turn in asked:
        wanted = Camera.from_vector(torch.from_numpy(camera)[None]).head_turn()
        assert turn is None if rigid else torch.equal(turn, wanted)


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_videos_and_pictures_are_marked_and_signed_unless_asked_otherwise(
    tmp_path: Path, animator: Animator, name: str
) -> None:
    pytest.importorskip("c2pa")
    driver, options = MotionDriver(a_motion()), VideoOptions(size=256)
    report = animate_video(animator, driver, tmp_path / name, video=options, motion=TransferOptions())
    found = verify_file(tmp_path / name)
    assert report.warnings == () and found.exit_code == 0
    orbit_video(animator, tmp_path / name, orbit=OrbitOptions(num_frames=3), video=options, fps=Fraction(25))
    again = verify_file(tmp_path / name)
    assert again.exit_code == 0 and again.mark.run != found.mark.run  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == [name]
