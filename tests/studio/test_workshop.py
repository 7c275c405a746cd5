"""The workshop alone: turns, portraits that are kept, films that stop, limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from clips import a_motion, clip_facts, make_clip
from conftest import picture_file
from export3d.animation.compose import depth_picture
from export3d.animation.paths import OrbitOptions
from export3d.animation.regions import REGIONS
from export3d.errors import ImageSizeError, SourceNotAllowedError, UnreadableImageError, UsageError
from export3d.face_state import FaceState
from export3d.mesh import head_mesh
from export3d.provenance import AllowedSources
from export3d.studio.face import Wish
from export3d.studio.videos import Limits, Stopped, VideoWish, _motion
from export3d.studio.workshop import Stage, Workshop
from export3d.tracking.live_link import Take

Make = Callable[..., Workshop]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A photo and a motion file of 4 frames, which ends with a lost face."""
    photo, motion = tmp_path / "photo.png", tmp_path / "motion.safetensors"
    photo.write_bytes(picture_file())
    a_motion(4).save(motion)
    return photo, motion


def no_word(done: int, of: int | None) -> None:
    """Nobody listens."""


def test_a_portrait_is_encoded_once_however_many_clients_ask_for_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [workshop.submit(workshop.stage, picture_file(), "a.png").result()]
    monkeypatch.setattr(type(workshop.model), "encode", None)  # another encoding would fail
    stages.append(workshop.submit(workshop.stage, picture_file(), "b.png").result())
    assert stages[0].subject is stages[1].subject
    assert stages[0].animator is not stages[1].animator


def test_the_portrait_that_was_not_used_for_longest_is_dropped(make_workshop: Make) -> None:
    workshop = make_workshop(limits=Limits(portraits=2))
    stages = [workshop.stage(picture_file(seed), f"{seed}.png") for seed in (0, 1, 0, 2)]
    again = workshop.stage(picture_file(0), "0.png")
    dropped = workshop.stage(picture_file(1), "1.png")
    assert again.subject is stages[0].subject
    assert dropped.subject is not stages[1].subject
    assert stages[1].picture(Wish()).shape == stages[0].picture(Wish()).shape  # who has it keeps it


def test_clients_do_not_see_each_others_portraits_or_faces(workshop: Workshop) -> None:
    one, other = (workshop.stage(picture_file(seed), "photo") for seed in (0, 1))
    before = one.picture(Wish())
    other.picture(Wish(weights={"jawOpen": 1.0}))
    np.testing.assert_array_equal(one.picture(Wish()), before)
    assert not np.array_equal(other.picture(Wish()), before)


def test_eight_clients_are_served_in_the_order_in_which_they_asked(workshop: Workshop) -> None:
    held, served = threading.Event(), []
    first = workshop.submit(held.wait, 10.0)
    rest = [workshop.submit(served.append, client) for client in range(8)]
    held.set()
    for one in [first, *rest]:
        one.result(timeout=10)
    assert served == list(range(8))


def test_a_slider_changes_the_picture_and_size_bounds_it(stage: Stage) -> None:
    own = stage.picture(Wish())
    assert np.abs(stage.picture(Wish(weights={"jawOpen": 1.0})).astype(int) - own).max() > 2
    assert stage.picture(Wish(), 16).shape == (16, 16, 3)
    assert stage.picture(Wish(), 4096).shape == own.shape
    assert stage.depth(Wish(orbit=(20.0, 0.0))).shape == own.shape


def test_the_range_of_depths_goes_with_the_camera(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[np.ndarray] = []
    monkeypatch.setattr(
        "export3d.studio.workshop.depth_picture",
        lambda depth, opacity, *ends: ranges.append(np.array(ends)) or depth_picture(depth, opacity, *ends),
    )
    for wish in (Wish(), Wish(orbit=(20.0, 0.0)), Wish(nearer=1.25)):
        stage.depth(wish)
    own, aside, near = ranges
    np.testing.assert_allclose(aside, own, atol=1e-5)
    assert (own - near)[0] == pytest.approx((own - near)[1]) and 0.4 < (own - near)[0] < 0.6  # a fifth of 2.7


def test_a_stage_without_a_portrait_says_what_to_do(workshop: Workshop) -> None:
    stage = workshop.stage(picture_file(), "photo")
    stage.animator.subject = None
    with pytest.raises(UsageError, match="choose a portrait first"):
        stage.picture(Wish())


def test_a_film_has_the_frames_of_its_motion_and_says_what_was_lost(
    workshop: Workshop, files: tuple[Path, Path]
) -> None:
    told: list[tuple[int, int | None]] = []
    path, said = workshop.videos.animate(
        *files, VideoWish(size=64, whole_photo=False), lambda *given: told.append(given), threading.Event()
    )
    facts = clip_facts(path)
    assert (facts.num_frames, facts.size) == (4, (64, 64))
    assert told[-1] == (4, 4)
    assert said == ["no face in 1 frames of the clip"]


def test_a_take_and_a_sound_drive_too(workshop: Workshop, files: tuple[Path, Path], tmp_path: Path) -> None:
    weights = np.zeros((5, 52), np.float32)
    take = Take(weights=weights, head=weights[:, :3], gaze=weights[:, :2], time_s=np.arange(5) / 25.0)
    take.save(tmp_path / "take.csv")
    clip = make_clip(tmp_path / "clip.mp4", num_frames=10)
    pytest.importorskip("pocketsphinx")
    for driving, sound, frames in (
        (tmp_path / "take.csv", False, 5),
        (clip, True, 11),
    ):  # the sound ends with its last packet
        wish = VideoWish(size=64, sound=sound)
        path, said = workshop.videos.animate(files[0], driving, wish, no_word, threading.Event())
        assert (clip_facts(path).num_frames, said) == (frames, [])  # a watched clip would have lost its face


def test_a_sound_that_is_too_long_is_refused_before_it_is_heard(
    make_workshop: Make, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=50)
    monkeypatch.setattr("export3d.studio.videos.SoundDriver", None)  # hearing it would fail
    videos = make_workshop(limits=Limits(seconds=1.0)).videos
    with pytest.raises(UsageError, match=r"clip.mp4: 2 seconds long"):
        videos.animate(files[0], clip, VideoWish(sound=True), no_word, threading.Event())


def test_regions_and_strength_are_those_of_the_command_line() -> None:
    assert _motion(VideoWish()).strengths == dict.fromkeys(REGIONS, 1.0)
    some = _motion(VideoWish(regions=("lips", "pose"), strength=0.5)).strengths
    assert some == {**dict.fromkeys(REGIONS, 0.0), "lips": 0.5, "pose": 0.5}
    with pytest.raises(UsageError, match="'ears' is no region"):
        _motion(VideoWish(regions=("ears",)))


def test_a_mesh_is_made_and_one_that_nobody_wants_is_not(
    workshop: Workshop, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr("export3d.mesh.files.head_mesh", partial(head_mesh, level=0.3))  # a tiny model is thin
    stop = threading.Event()
    path, said = workshop.videos.mesh(files[0], "ply", shapes=False, tell=no_word, stop=stop)
    assert path.read_bytes()[:3] == b"ply" and "triangles" in said[0]
    stop.set()
    path.unlink()
    with pytest.raises(Stopped):
        workshop.videos.mesh(files[0], "glb", shapes=False, tell=no_word, stop=stop)
    assert list(workshop.folder.iterdir()) == []
    for kind, shapes, text in (("stl", False, "kind must be one of glb, ply, obj"), ("obj", True, "only a .glb")):
        with pytest.raises(UsageError, match=text):
            workshop.videos.mesh(files[0], kind, shapes=shapes, tell=no_word, stop=stop)


def test_a_turning_head_has_the_asked_frames_with_depth_beside_it(workshop: Workshop, files: tuple[Path, Path]) -> None:
    orbit = OrbitOptions(num_frames=5)
    path, _ = workshop.videos.turn(files[0], orbit, 64, depth=True, tell=no_word, stop=threading.Event())
    assert (clip_facts(path).num_frames, clip_facts(path).size) == (5, (128, 64))


def test_a_film_that_nobody_wants_stops_and_leaves_no_file(workshop: Workshop, files: tuple[Path, Path]) -> None:
    stop = threading.Event()

    def gone_after_two(done: int, of: int | None) -> None:
        if done == 2:
            stop.set()

    with pytest.raises(Stopped):
        workshop.videos.animate(*files, VideoWish(size=64), gone_after_two, stop)
    assert list(workshop.folder.iterdir()) == []
    path, _ = workshop.videos.animate(*files, VideoWish(size=64), no_word, threading.Event())
    assert path.exists()  # the next one gets its turn


def test_clips_that_are_too_long_or_too_large_are_refused_with_what_to_do(
    make_workshop: Make, files: tuple[Path, Path], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=50, audio=None)
    short = make_workshop(limits=Limits(seconds=1.0))
    with pytest.raises(UsageError, match=r"clip.mp4: 2 seconds long; this studio takes clips of at most 1"):
        short.videos.animate(files[0], clip, VideoWish(), no_word, threading.Event())
    small = make_workshop(limits=Limits(megapixels=0.03))
    with pytest.raises(UsageError, match=r"frames of 160x160 pixels are too large"):
        small.videos.animate(files[0], clip, VideoWish(), no_word, threading.Event())
    with pytest.raises(UsageError, match="size must be from 64 to 1024"):
        short.videos.animate(files[0], files[1], VideoWish(size=4000), no_word, threading.Event())


def test_errors_name_the_file_as_its_owner_does(workshop: Workshop) -> None:
    with pytest.raises(UnreadableImageError, match=r"^my photo.jpg: not an image") as caught:
        workshop.stage(b"no picture", "my photo.jpg")
    assert str(workshop.folder) not in str(caught.value)


def test_photos_of_too_many_pixels_are_refused(make_workshop: Make) -> None:
    workshop = make_workshop(limits=Limits(megapixels=0.01))
    with pytest.raises(ImageSizeError, match=r"big.png: 160x160 pixels; this studio takes photos of at most 0.01"):
        workshop.stage(picture_file(), "big.png")


def test_only_allowed_portraits_are_taken(make_workshop: Make, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture_file(0))
    workshop = make_workshop(allowed=AllowedSources.load(tmp_path))
    assert workshop.stage(picture_file(0), "one.png").subject is not None
    with pytest.raises(SourceNotAllowedError, match=r"two.png: this portrait is not among the allowed ones"):
        workshop.stage(picture_file(1), "two.png")


def test_closing_removes_all_files(make_workshop: Make) -> None:
    workshop = make_workshop()
    workshop.new_file(".png").write_bytes(b"x")
    workshop.close()
    assert not workshop.folder.exists()


def test_what_is_older_than_an_hour_goes(workshop: Workshop) -> None:
    import os

    old, new = workshop.new_file(".mp4"), workshop.new_file(".mp4")
    old.write_bytes(b"x"), new.write_bytes(b"x")
    os.utime(old, (1.0, 1.0))
    workshop.new_file(".mp4")
    assert (old.exists(), new.exists()) == (False, True)


def test_the_wish_for_a_face_is_the_state_that_the_animator_gets(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[FaceState] = []
    real = stage.animator.frame
    monkeypatch.setattr(stage.animator, "frame", lambda state, camera: got.append(state) or real(state, camera))
    stage.picture(Wish(gaze=(10.0, 0.0)))
    assert got[0].gaze is not None and float(got[0].gaze[0, 0]) == pytest.approx(np.radians(10.0), abs=1e-6)
