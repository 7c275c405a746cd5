"""Writing clips: exact times, sound, odd sizes, and no half-written file whatever goes wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clips import clip_facts, make_clip, panned_frames
from export3d.errors import OutputError, UsageError
from export3d.rendering.fused import fused_status, rgb_to_yuv
from export3d.video import VideoReader, VideoWriter, check_writable


def copy_clip(source: Path, target: Path, audio: bool = True) -> Path:
    with VideoReader(source) as reader:
        size = (reader.width, reader.height)
        sound = source if audio else None
        with VideoWriter(target, reader.fps, size, time_base=reader.time_base, copy_audio_from=sound) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts, frame.duration)
    return target


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30)])
def test_count_rate_times_and_sound_survive(tmp_path: Path, fps: Fraction) -> None:
    source = make_clip(tmp_path / "in.mp4", fps=fps, num_frames=15)
    given, got = clip_facts(source), clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert (got.num_frames, got.rate, got.times) == (given.num_frames, fps, given.times)
    assert (got.num_samples, got.audio_codec) == (given.num_samples, "aac")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_frame_rate_survives_in_every_container(tmp_path: Path, suffix: str) -> None:
    pts = [0, 40, 90, 100, 170, 200, 260, 300, 310, 360]
    source = make_clip(tmp_path / "in.mp4", num_frames=10, pts=pts, time_base=Fraction(1, 1000))
    got = clip_facts(copy_clip(source, tmp_path / f"out{suffix}"))
    # Matroska knows no negative times, so the encoder's lead-in of the sound (23 ms) shifts everything alike.
    assert [(time - got.times[0]) * 1000 for time in got.times] == pts
    assert got.times[0] <= (Fraction(23, 1000) if suffix == ".mkv" else 0)
    assert got.num_samples - clip_facts(source).num_samples == (1024 if suffix == ".mkv" else 0)


def test_sound_that_mp4_cannot_hold_is_encoded_again_at_the_same_length(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mov", audio="pcm_s16le", num_frames=30)
    given, got = clip_facts(source), clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert given.audio_codec == "pcm_s16le" and got.audio_codec == "aac"
    # AAC works in blocks of 1024 samples, and its encoder adds one block in front that players skip.
    assert abs(got.num_samples - given.num_samples) <= 2 * 1024


@pytest.mark.slow
def test_opus_is_copied_into_mp4(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.webm", codec="libvpx", audio="libopus", audio_rate_hz=48_000)
    got = clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert got.audio_codec == "opus"
    assert got.audio_duration_s == pytest.approx(clip_facts(source).audio_duration_s, abs=0.02)


def test_the_offset_between_picture_and_sound_survives(tmp_path: Path) -> None:
    # The picture starts 200 ms after the sound.
    source = make_clip(tmp_path / "in.mp4", num_frames=10, pts=range(200, 600, 40), time_base=Fraction(1, 1000))
    got = clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert [time * 1000 for time in got.times] == list(range(200, 600, 40))


@pytest.mark.parametrize(("name", "audio"), [("in.mp4", "aac"), ("in.ts", "aac"), ("in.mkv", "pcm_s16le")])
def test_sound_that_begins_after_the_picture_does_so_in_the_result(tmp_path: Path, name: str, audio: str) -> None:
    # AAC is copied, PCM encoded again. The clock of the clip itself begins at 2 s (in a transport stream later still).
    clock = {"pts": range(2000, 2400, 40), "time_base": Fraction(1, 1000)}
    source = make_clip(tmp_path / name, num_frames=10, audio=audio, audio_start_s=2.3, audio_s=0.4, **clock)
    given, got = clip_facts(source), clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert given.audio_start_s - float(given.times[0]) == pytest.approx(0.3, abs=0.03)  # the clip is what it should be
    assert got.audio_start_s - float(got.times[0]) == pytest.approx(0.3, abs=0.03)
    assert float(got.times[0]) == pytest.approx(0.0, abs=0.05)


def test_sound_longer_than_the_picture_is_kept(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", num_frames=5, audio_s=1.5)
    got = clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    assert got.num_samples == clip_facts(source).num_samples


def test_a_transport_stream_that_starts_late_is_shifted_to_zero(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", num_frames=10)
    assert clip_facts(source).times[0] > 0
    given, got = clip_facts(source), clip_facts(copy_clip(source, tmp_path / "out.mp4"))
    steps = [b - a for a, b in pairwise(got.times)]
    assert steps == [Fraction(1, 25)] * 9 and got.times[0] < Fraction(1, 10)
    assert got.audio_duration_s == pytest.approx(given.audio_duration_s, abs=1024 / 44100)


CONVERTERS = [None, *([rgb_to_yuv] if fused_status()[0] else [])]


@pytest.mark.parametrize("to_yuv", CONVERTERS)
def test_odd_sizes_are_padded_by_one(tmp_path: Path, to_yuv: Callable | None) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25, (65, 49), to_yuv=to_yuv) as writer:
        for _ in range(3):
            writer.write(np.full((49, 65, 3), 128, dtype=np.uint8))
    assert clip_facts(tmp_path / "out.mp4").size == (66, 50)


@pytest.mark.parametrize("to_yuv", CONVERTERS)
def test_colours_come_back_as_they_were_written(tmp_path: Path, to_yuv: Callable | None) -> None:
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [128, 128, 128]], dtype=np.uint8)
    image = np.repeat(np.repeat(colours[None], 64, axis=0), 32, axis=1)
    with VideoWriter(tmp_path / "out.mp4", 25, (128, 64), crf=4, to_yuv=to_yuv) as writer:
        writer.write(image)
    with VideoReader(tmp_path / "out.mp4") as reader:
        got = next(iter(reader)).image
    for index in range(4):
        assert np.abs(got[32, 16 + 32 * index].astype(int) - colours[index]).max() <= 4


def test_frames_without_times_follow_at_the_nominal_rate(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", Fraction(30000, 1001), (64, 64)) as writer:
        for frame in panned_frames(5, (64, 64)):
            writer.write(frame)
    facts = clip_facts(tmp_path / "out.mp4")
    assert facts.times == [index * Fraction(1001, 30000) for index in range(5)]


def test_an_error_leaves_neither_target_nor_temporary_file(tmp_path: Path) -> None:
    for error in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), VideoWriter(tmp_path / "out.mp4", 25, (64, 64)) as writer:
            writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
            raise error
        assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_an_older_file_of_that_name_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"older")
    with pytest.raises(RuntimeError), VideoWriter(target, 25, (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] and target.read_bytes() == b"older"


def test_the_target_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with VideoWriter(target, 25, (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", 25, (64, 64))


def test_a_folder_as_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        VideoWriter(tmp_path / "out.mp4", 25, (64, 64))


def test_a_folder_without_rights_is_refused(tmp_path: Path) -> None:
    # The kernel's own folders refuse even the superuser, who may run the tests.
    folder = Path("/proc/self") if Path("/proc/self").is_dir() else tmp_path
    if folder == tmp_path:
        tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(folder / "out.mp4")


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.xyz: .*\.mp4, \.m4v, \.mov, \.mkv"):
        VideoWriter(tmp_path / "out.xyz", 25, (64, 64))


def test_no_frames_means_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frame was written"):
        VideoWriter(tmp_path / "out.mp4", 25, (64, 64)).close()
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_picture_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"image must be uint8 \(64, 64, 3\); got uint8 \(32, 64, 3\)"),
        VideoWriter(tmp_path / "out.mp4", 25, (64, 64)) as writer,
    ):
        writer.write(np.zeros((32, 64, 3), dtype=np.uint8))


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_is_reported_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """A limit on the file size stands in for the full disk: the same failed write() in the same place."""
    code = textwrap.dedent(
        f"""
        import numpy as np
        from export3d.errors import OutputError
        from export3d.video import VideoWriter
        noise = np.random.default_rng(0).integers(0, 255, (40, 256, 256, 3), dtype=np.uint8)
        try:
            with VideoWriter({str(tmp_path / "out.mp4")!r}, 25, (256, 256), crf=1) as writer:
                for image in noise:
                    writer.write(image)
        except OutputError as error:
            print(error)
        """
    )
    limit = 300_000

    def limit_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit_size, check=False
    )
    assert "cannot be written" in done.stdout and "No file was left behind" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
