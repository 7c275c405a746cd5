"""Films as the street gives them: joined recordings, damaged packets, clocks that begin anew, codecs nobody knows."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from export3d.errors import UnreadableVideoError
from export3d.video import VideoReader, VideoWriter

sys.path.insert(0, str(Path(__file__).parents[1]))

from clips import make_clip

PLAIN = {"movflags": "+faststart"}


def joined(tmp_path: Path, audio: str | None) -> Path:
    """Two transport streams of 20 frames one after the other; the clock begins anew in the second."""
    first = make_clip(tmp_path / "a.ts", num_frames=20, audio=audio, audio_s=0.8 if audio else None)
    second = make_clip(tmp_path / "b.ts", num_frames=20, audio=audio, audio_s=0.8 if audio else None)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def test_a_clock_that_begins_anew_goes_on_without_a_gap(tmp_path: Path) -> None:
    with VideoReader(joined(tmp_path, None)) as reader:
        times = [Fraction(frame.pts) * frame.time_base for frame in reader]
    assert len(times) == 40
    steps = np.diff([float(time) for time in times])
    assert steps == pytest.approx(np.full(39, 0.04), abs=0.002)


def test_the_sound_of_joined_recordings_is_kept_in_step(tmp_path: Path) -> None:
    source, target = joined(tmp_path, "aac"), tmp_path / "out.mp4"
    with VideoReader(source) as reader:
        with VideoWriter(target, reader.fps, (160, 160), time_base=reader.time_base, copy_audio_from=source) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts, frame.duration)
    with av.open(str(target)) as container:
        sound = container.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(1.6, abs=0.1)
        assert container.streams.video[0].frames == 40


def test_one_damaged_packet_costs_a_frame_not_the_film(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=20, audio=None)
    with av.open(str(path)) as container:
        entry = list(container.streams.video[0].index_entries)[10]
    content = bytearray(path.read_bytes())
    content[entry.pos : entry.pos + entry.size] = bytes(entry.size)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 10 <= len(frames) <= 20
    assert any("damaged" in problem for problem in reader.problems)
    assert frames[-1].time_s == pytest.approx(19 / 25, abs=0.01)  # the others keep their times


def test_a_codec_that_ffmpeg_does_not_know_is_named_as_the_reason(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=3, audio=None)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    with pytest.raises(UnreadableVideoError, match=r"clip\.mp4: (its codec is not known|.*no frame)"):
        VideoReader(path)


def test_the_best_quality_stays_in_a_profile_that_players_know(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, (64, 64), crf=0) as writer:
        for level in range(4):
            writer.write(np.full((64, 64, 3), 60 * level, np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.profile == "High"
