"""Reading clips: times, rotation, and every way in which a file can be bad."""

from __future__ import annotations

import struct
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import clip_facts, make_clip, panned_frames
from export3d.errors import ImageSizeError, UnreadableVideoError
from export3d.video import VideoReader
from export3d.video.orientation import apply_display_matrix


def read(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30)])
def test_frame_rate_and_times_are_exact(tmp_path: Path, fps: Fraction) -> None:
    with VideoReader(make_clip(tmp_path / "clip.mp4", fps=fps, num_frames=12)) as reader:
        frames = list(reader)
    assert reader.fps == fps
    assert [frame.pts * frame.time_base for frame in frames] == [index / fps for index in range(12)]
    assert reader.num_frames_hint == 12
    assert (reader.width, reader.height, reader.has_audio) == (160, 160, True)
    assert reader.audio_duration_s == pytest.approx(12 / float(fps), abs=1024 / 44100)


def test_pictures_come_out_as_they_went_in(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=3, audio=None)
    for got, wanted in zip(read(path), panned_frames(3), strict=True):
        assert np.abs(got.astype(int) - wanted.astype(int)).mean() < 6.0  # lossy codec, chroma at half size


def test_a_millisecond_clock_is_brought_back_to_the_frame_grid(tmp_path: Path) -> None:
    # Matroska stores 0, 33, 67, 100 ms ... for 29.97 fps; the true times are multiples of 1001 / 30000 s.
    fps = Fraction(30000, 1001)
    with VideoReader(make_clip(tmp_path / "clip.mkv", fps=fps, num_frames=10)) as reader:
        times = [frame.pts * frame.time_base for frame in reader]
    assert times == [index / fps for index in range(10)]


def test_variable_frame_rate_keeps_every_time(tmp_path: Path) -> None:
    pts = [0, 40, 90, 100, 170, 200, 260, 300, 301, 360]
    path = make_clip(tmp_path / "clip.mp4", num_frames=10, pts=pts, time_base=Fraction(1, 1000))
    with VideoReader(path) as reader:
        assert [frame.pts * frame.time_base * 1000 for frame in reader] == pts


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int) -> None:
    """A phone stores the sensor's picture and says how to turn it: negative is clockwise in FFmpeg's words."""
    upright = panned_frames(2, (192, 128))
    stored = [np.ascontiguousarray(np.rot90(frame, k=degrees // 90)) for frame in upright]  # counter-clockwise
    path = make_clip(tmp_path / "clip.mp4", frames=stored, audio=None, display_rotation=-degrees)
    with VideoReader(path) as reader:
        frames = [frame.image for frame in reader]
    assert (reader.width, reader.height) == (192, 128)
    assert np.abs(frames[0].astype(int) - upright[0].astype(int)).mean() < 6.0


def test_display_matrix_moves_a_marked_corner_where_the_standard_says() -> None:
    # shown x = a p + c q, y = b p + d q; (a, b, c, d) = (0, 1, -1, 0) sends the stored top right corner
    # (p large, q = 0) to x = 0 (the left end of -q .. 0 is q large), y large: the bottom right corner.
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 2] = 255
    shown = apply_display_matrix(image, (0, 1, -1, 0))
    assert shown.shape == (3, 2, 3)
    assert (shown[2, 1] == 255).all() and shown.sum() == 3 * 255


def test_mirroring_matrix_flips_left_and_right() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(apply_display_matrix(image, (-1, 0, 0, 1)), image[:, ::-1])


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".avi", ".ts"])
def test_common_containers_give_all_frames(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"clip{suffix}", num_frames=8)
    assert len(read(path)) == 8 == clip_facts(path).num_frames


def test_webm_gives_all_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.webm", num_frames=8, codec="libvpx", audio="libopus", audio_rate_hz=48_000)
    assert len(read(path)) == 8


def test_names_that_look_like_a_protocol_are_read_as_files(tmp_path: Path) -> None:
    assert len(read(make_clip(tmp_path / "plain.mp4", num_frames=2).rename(tmp_path / "http:a b.mp4"))) == 2


def test_missing_file_is_named() -> None:
    with pytest.raises(UnreadableVideoError, match=r"nowhere\.mp4: no such video file"):
        VideoReader("nowhere.mp4")


def test_text_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just some words\n" * 100)
    with pytest.raises(UnreadableVideoError, match=r"notes\.txt: .*not a video"):
        VideoReader(path)


def test_random_bytes_are_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(UnreadableVideoError, match="not a video that FFmpeg can read"):
        VideoReader(path)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    with pytest.raises(UnreadableVideoError, match="the file is empty"):
        VideoReader(path)


def test_a_playlist_cannot_reach_out(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", num_frames=4)
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnreadableVideoError):
        VideoReader(path)


@pytest.mark.parametrize("faststart", [False, True])
def test_a_truncated_mp4_gives_what_it_holds_or_is_refused(tmp_path: Path, faststart: bool) -> None:
    options = {"movflags": "+faststart"} if faststart else {}
    path = make_clip(tmp_path / "clip.mp4", num_frames=20, options=options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    if not faststart:  # the index at the end is gone
        with pytest.raises(UnreadableVideoError, match="truncated"):
            VideoReader(path)
        return
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 0 < len(frames) < 20 and "of its 20 frames lie beyond its end" in reader.problems[0]


def test_a_truncated_matroska_says_so_after_its_last_frame(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", num_frames=100)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 20 < len(frames) < 100 and "truncated: it announces 4." in " ".join(reader.problems)


def test_sound_without_picture_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    with pytest.raises(UnreadableVideoError, match="no video stream"):
        VideoReader(path)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", num_frames=1, audio_s=0.5)
    damaged = path.read_bytes().replace(b"\x00\x00\x00\x01", b"\x00\x00\x00\x00")
    path.write_bytes(_without_video_blocks(damaged))
    with pytest.raises(UnreadableVideoError, match=r"no frame|damaged"):
        VideoReader(path)


def _without_video_blocks(content: bytes) -> bytes:
    """Turn the simple blocks of track 1 (element A3, track byte 81) into blocks of an unknown track."""
    return content.replace(b"\x81\x00\x00\x80", b"\x8f\x00\x00\x80")


def test_tiny_frames_are_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", size=(16, 16), num_frames=2)
    with pytest.raises(ImageSizeError, match=r"the frames are 16x16; expected at least 32 pixels"):
        VideoReader(path)


def test_absurdly_large_frames_are_refused_before_decoding(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.avi", codec="rawvideo", audio=None, num_frames=1)
    content = bytearray(path.read_bytes())
    header = content.index(b"strf") + 8 + 4  # chunk name and size, then the header's own size
    content[header : header + 8] = struct.pack("<II", 10_000, 10_000)
    path.write_bytes(content)
    with pytest.raises(ImageSizeError, match=r"10000x10000; .*at most 67 megapixels"):
        VideoReader(path)


@pytest.mark.slow
def test_a_picture_too_large_for_ffmpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableVideoError, match="size of its frames"):
        VideoReader(path)
