"""Films as the street gives them: joined recordings, damaged packets, clocks that begin anew, codecs nobody knows."""

from __future__ import annotations

import contextlib
import io
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from export3d.errors import ImageSizeError, UnreadableVideoError
from export3d.video import VideoReader, VideoWriter

sys.path.insert(0, str(Path(__file__).parents[1]))

from clips import clip_facts, make_clip

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


def test_joined_recordings_whose_clock_goes_on_keep_length_and_sound(tmp_path: Path) -> None:
    """The second one's sound begins 32 ms before the first one's ends, as in joined HLS segments."""
    first = make_clip(tmp_path / "a.ts", num_frames=20, audio="aac", audio_s=0.832)
    second = make_clip(tmp_path / "b.ts", num_frames=20, audio="aac", audio_s=0.8)
    later = tmp_path / "later.ts"
    with av.open(str(second)) as given, av.open(str(later), "w", options={"avoid_negative_ts": "disabled"}) as moved:
        streams = {stream.index: moved.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                shift = round(Fraction(4, 5) / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + shift,
                    packet.dts + shift,
                    streams[packet.stream.index],
                )
                moved.mux(packet)
    source, target = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(first.read_bytes() + later.read_bytes())
    with VideoReader(source) as reader:
        with VideoWriter(target, reader.fps, (160, 160), time_base=reader.time_base, copy_audio_from=source) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts, frame.duration)
    facts = clip_facts(target)
    assert facts.num_frames == 40
    assert float(facts.times[-1] - facts.times[0]) == pytest.approx(39 / 25, abs=0.01)
    assert facts.audio_duration_s == pytest.approx(1.6, abs=0.1)


def motion_jpeg(path: Path, pictures: list[bytes]) -> Path:
    """A film of JPEG files as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, content in enumerate(pictures):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), index, index
            container.mux(packet)
    return path


def jpeg(level: int) -> bytes:
    """48 x 64 of one grey, with a phone's EXIF."""
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "Phone"
    Image.new("RGB", (64, 48), (level, level, level)).save(content, "JPEG", exif=exif, subsampling=2)
    return content.getvalue()


def test_exif_in_the_frames_of_a_film_is_no_obstacle(tmp_path: Path) -> None:
    with VideoReader(motion_jpeg(tmp_path / "a.avi", [jpeg(level) for level in (40, 80, 120)])) as reader:
        assert [round(float(frame.image.mean())) for frame in reader] == pytest.approx([40, 80, 120], abs=2)


def test_a_frame_far_larger_than_the_header_said_is_left_out(tmp_path: Path) -> None:
    """60,000 x 60,000 pixels would be 10 GB."""
    bomb = jpeg(80)
    at = bomb.index(b"\xff\xc0") + 5
    bomb = bomb[:at] + (60_000).to_bytes(2, "big") * 2 + bomb[at + 4 :]
    with VideoReader(motion_jpeg(tmp_path / "a.avi", [jpeg(40), bomb, jpeg(120)])) as reader:
        levels = [round(float(frame.image.mean())) for frame in reader]
    assert levels == pytest.approx([40, 120], abs=2)
    assert any("damaged" in problem for problem in reader.problems)
    with pytest.raises((UnreadableVideoError, ImageSizeError)):
        VideoReader(motion_jpeg(tmp_path / "b.avi", [bomb]))


def test_a_frame_of_a_size_that_cannot_be_converted_is_left_out(tmp_path: Path) -> None:
    odd = jpeg(80)
    at = odd.index(b"\xff\xc0") + 5
    odd = odd[:at] + (9000).to_bytes(2, "big") + (1).to_bytes(2, "big") + odd[at + 4 :]
    with VideoReader(motion_jpeg(tmp_path / "a.avi", [jpeg(40), odd, jpeg(120)])) as reader:
        levels = [round(float(frame.image.mean())) for frame in reader]
    assert levels == pytest.approx([40, 120], abs=2) and any("damaged" in problem for problem in reader.problems)


def test_a_gif_whose_frames_outgrow_its_screen_costs_no_more_than_the_screen(tmp_path: Path) -> None:
    pages = [Image.new("P", (64, 48), index) for index in range(3)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=40)
    content = bytearray((tmp_path / "a.gif").read_bytes())
    at = content.index(b"\x2c\0\0\0\0") + 5
    content[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(content)
    with contextlib.suppress(UnreadableVideoError), VideoReader(tmp_path / "a.gif") as reader:
        assert {frame.image.shape for frame in reader} <= {(48, 64, 3)}
