"""Streaming video: decode upright RGB frames with exact times, encode H.264 with copied sound (no paper section).

Memory does not grow with the length of a clip: one frame is decoded, handed out and forgotten, audio packets
are copied in step with the pictures. Times are exact fractions of a second in the source's own clock, so a frame
rate of 30000/1001, a variable frame rate and the offset between picture and sound all survive the trip.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from export3d.errors import Export3DError, ImageSizeError, OutputError, UnreadableVideoError, UsageError

MIN_SIDE_PX = 32
"""Smaller frames cannot hold a face that any tracker finds."""

MAX_PIXELS = 8192 * 8192
"""Larger frames are refused before they are decoded."""

FALLBACK_FPS = Fraction(25)
"""Used only where a file names no frame rate at all."""

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Output suffix -> container; all hold H.264."""

COPYABLE_AUDIO = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "mp2"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"},
    "matroska": {
        "aac",
        "mp3",
        "ac3",
        "eac3",
        "alac",
        "opus",
        "flac",
        "mp2",
        "vorbis",
        "pcm_s16le",
        "pcm_s24le",
        "dts",
    },
}
"""Audio codecs whose packets a container takes unchanged; anything else is re-encoded to AAC."""

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_NOT_VIDEO_FORMATS = {
    "tty",
    "hls",
    "concat",
    "ffmetadata",
}  # text that FFmpeg would otherwise open as "video"
_COARSE_CLOCK = Fraction(1, 1000)  # Matroska counts whole milliseconds
_UNSPECIFIED_COLORSPACE = 2
_HD_HEIGHT_PX = 720


@dataclass(frozen=True, kw_only=True)
class VideoFrame:
    """One decoded picture.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB, upright, square pixels.
        index: number of the frame in the clip, from 0.
        pts: presentation time in units of `time_base`, counted from the earliest start of picture and sound.
        time_base: seconds per unit of `pts`.
        duration: in units of `time_base`; the frame period where the file does not say.
    """

    image: np.ndarray
    index: int
    pts: int
    time_base: Fraction
    duration: int

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)


class VideoReader:
    """Decode a clip frame by frame, once, in presentation order.

    Rotation and mirroring by the file's display matrix are applied, non-square pixels are made square.

    Attributes:
        fps: average frame rate, exact.
        time_base: clock of `VideoFrame.pts`.
        width, height: of the upright frames, pixels.
        num_frames_hint: number of frames by the file's header or its duration; None where unknown.
        has_audio, audio_duration_s: the first sound track.

    Raises:
        UnreadableVideoError: Not a video, truncated or damaged, no video stream, or no frame. Damage and some
            missing ends are noticed only while iterating.
        ImageSizeError: Frames under 32 pixels on a side or over 67 megapixels.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.path = Path(path)
        self._container = _open_input(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._stream.codec_context.thread_count = threads
            self._stream.thread_type = "AUTO"
            _check_size(self.path, self._stream.codec_context.width, self._stream.codec_context.height)
            _check_index_inside_file(self._stream, self.path)
            audio = next(iter(self._container.streams.audio), None)
            self.has_audio = audio is not None
            self.audio_duration_s = _stream_duration_s(audio, self._container) if audio is not None else None
            self.fps: Fraction = self._stream.average_rate or self._stream.guessed_rate or FALLBACK_FPS
            self._clock: Fraction = self._stream.time_base or 1 / self.fps
            self.time_base = _finer_clock(self._clock, self.fps)
            self._start = start_time(self._container)
            self.num_frames_hint = self._stream.frames or _frames_from_duration(
                _stream_duration_s(self._stream, self._container), self.fps
            )
            self._last_packet_end = Fraction(0)
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise UnreadableVideoError(f"{self.path}: the video holds no frame. Export the clip again.")
        except BaseException:
            self._container.close()
            raise
        self._first: VideoFrame | None = first
        self.height, self.width = first.image.shape[:2]

    def __iter__(self) -> Iterator[VideoFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _decode(self) -> Iterator[VideoFrame]:
        index, previous_pts = 0, None
        try:
            for packet in self._container.demux():
                self._note_end(packet)
                if packet.stream.index != self._stream.index:
                    continue
                for picture in self._stream.decode(packet if packet.size else None):
                    pts = self._exact_pts(picture.pts, index)
                    if previous_pts is not None and pts <= previous_pts:
                        pts = previous_pts + 1  # a broken clock must not cost frames
                    length = self._on_grid((picture.duration or 0) * self._clock) or 1 / self.fps
                    duration = max(round(length / self.time_base), 1)
                    image = _to_upright_rgb(picture, self._stream)
                    yield VideoFrame(
                        image=image, index=index, pts=pts, time_base=self.time_base, duration=duration
                    )
                    index, previous_pts = index + 1, pts
        except av.error.FFmpegError as error:
            at = f" after {index} frames" if index else ""
            raise UnreadableVideoError(
                f"{self.path}: the video is damaged or truncated{at} ({error.strerror}). "
                "Export or download it again."
            ) from error
        self._check_reached_end(index)

    def _exact_pts(self, pts: int | None, index: int) -> int:
        """Time of a frame on the clock that is handed out."""
        if pts is None:
            return round(index / self.fps / self.time_base)
        return round(self._on_grid(pts * self._clock - self._start) / self.time_base)

    def _on_grid(self, seconds: Fraction) -> Fraction:
        """The nearest multiple of the frame period, where a clock of whole milliseconds had to round it."""
        if self.time_base == self._clock:
            return seconds
        near = round(seconds * self.fps) / self.fps
        return near if abs(near - seconds) <= self._clock else seconds

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base - self._start
            self._last_packet_end = max(self._last_packet_end, end)

    def _check_reached_end(self, num_frames: int) -> None:
        """A container that announces a duration but stops long before it was cut off."""
        if num_frames == 0 or not self._container.duration:
            return
        announced = Fraction(self._container.duration, av.time_base)
        missing = announced - self._last_packet_end
        if missing > 1 and missing > announced / 20:
            raise UnreadableVideoError(
                f"{self.path}: the file is truncated: it announces {float(announced):.2f} s but ends after "
                f"{float(self._last_packet_end):.2f} s ({num_frames} frames). Download or export it again."
            )


class VideoWriter:
    """Encode H.264 (yuv420p, BT.709), copy the sound of another file; the target appears only when complete.

    Frames go to a temporary file beside the target, which is renamed by a clean exit and removed by any error,
    Ctrl-C included. Odd sizes are padded by one repeated row or column, because yuv420p has no odd sizes.

    Args:
        path: target, `.mp4`, `.m4v`, `.mov` or `.mkv`.
        fps: nominal frame rate (exact).
        size: (width, height) of the images that will be written.
        time_base: clock of `pts`; 1 / fps when None.
        copy_audio_from: file whose first sound track is copied packet by packet, or re-encoded to AAC where
            the container cannot hold its codec.
        crf: constant quality, 0 (lossless) to 51 (worst).
        threads: encoder threads; 0 lets the encoder choose.

    Raises:
        OutputError: Folder missing or not writable, or the disk is full.
        UsageError: Unknown suffix or quality.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | int,
        size: tuple[int, int],
        *,
        time_base: Fraction | None = None,
        copy_audio_from: str | Path | None = None,
        crf: int = 18,
        preset: str = "veryfast",
        threads: int = 0,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.num_frames = 0
        self._next_pts = 0
        self.fps = Fraction(fps)
        self.time_base = time_base or 1 / self.fps
        container = check_video_target(self.path)
        if not 0 <= crf <= 51:
            raise UsageError(f"--crf must be from 0 (lossless) to 51 (worst); got {crf}.")
        self._temporary = self.path.with_name(
            f".{self.path.stem}.{uuid.uuid4().hex[:8]}.part{self.path.suffix}"
        )
        self._audio: _AudioCopy | None = None
        self._output: Any = None
        try:
            options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
            self._output = av.open(
                f"file:{self._temporary.absolute()}", "w", format=container, options=options
            )
            stream = self._output.add_stream(
                "libx264", rate=self.fps, options={"crf": str(crf), "preset": preset}
            )
            width, height = size
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            codec = stream.codec_context
            codec.time_base = self.time_base
            codec.thread_count = threads
            codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc = (
                1,
                1,
                1,
                1,
            )  # BT.709, TV range
            self._video = stream
            if copy_audio_from is not None:
                self._audio = _AudioCopy.open(Path(copy_audio_from), self._output, container)
        except av.error.FFmpegError as error:
            self._discard()
            raise self._output_error(error) from error
        except BaseException:
            self._discard()
            raise

    def write(self, image: np.ndarray, pts: int | None = None, duration: int | None = None) -> None:
        """Encode one uint8 ``(H, W, 3)`` image at `pts`, in units of `time_base`; None: one period after the last."""
        width, height = self.size
        if image.dtype != np.uint8 or image.shape != (height, width, 3):
            raise ValueError(f"image must be uint8 ({height}, {width}, 3); got {image.dtype} {image.shape}")
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        period = max(round(1 / self.fps / self.time_base), 1)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts = self._next_pts if pts is None else pts
        picture.duration = duration or period
        picture.time_base = self.time_base
        self._next_pts = picture.pts + period
        self._guard(lambda: self._mux(self._video.encode(picture)))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._output is None:
            return
        if self.num_frames == 0:
            self._discard()
            raise OutputError(f"{self.path}: no frame was written, so no file was made.")
        self._guard(self._finish)

    def abort(self) -> None:
        """Throw the unfinished file away."""
        self._discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._audio is not None and packet.dts is not None:
                self._audio.copy_until(packet.dts * packet.time_base)
            self._output.mux(packet)

    def _finish(self) -> None:
        self._mux(self._video.encode(None))
        if self._audio is not None:
            self._audio.copy_until(None)
        output, self._output = self._output, None
        output.close()
        with open(self._temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(self._temporary, self.path)
        if self._audio is not None:
            self._audio.close()

    def _guard(self, action: Any) -> None:
        """Run one step; a failure removes the unfinished file and becomes a typed error."""
        try:
            action()
        except Export3DError:
            self._discard()
            raise
        except (av.error.FFmpegError, OSError) as error:
            self._discard()
            raise self._output_error(error) from error
        except BaseException:
            self._discard()
            raise

    def _output_error(self, error: BaseException) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(
            f"{self.path}: writing the video failed ({reason}). Free some disk space or choose another folder. "
            "No file was left behind."
        )

    def _discard(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            with suppress(av.error.FFmpegError, OSError, ValueError):
                output.close()
        if self._audio is not None:
            self._audio.close()
        self._temporary.unlink(missing_ok=True)


class _AudioCopy:
    """The first sound track of a file, moved into an output container in step with the pictures."""

    def __init__(self, container: Any, source: Any, output: Any, target: Any, *, copy: bool) -> None:
        self._container, self._source, self._output, self._target = container, source, output, target
        self._start = start_time(container)
        self._num_samples: int | None = None  # written so far by re-encoding, the start offset included
        self._copy = copy
        self._resampler = None
        if not copy:
            codec = target.codec_context
            self._resampler = av.AudioResampler(
                format=codec.format, layout=codec.layout, rate=codec.sample_rate, frame_size=1024
            )
        self._packets = self._demux()
        self._waiting: Any = None

    @classmethod
    def open(cls, path: Path, output: Any, container_name: str) -> _AudioCopy | None:
        container = _open_input(path)
        source = next(iter(container.streams.audio), None)
        if source is None:
            container.close()
            return None
        copy = source.codec_context.codec.canonical_name in COPYABLE_AUDIO[container_name]
        if copy:
            target = output.add_stream_from_template(source)
        else:
            given = source.codec_context.sample_rate
            rate = given if given in _AAC_RATES else 48000
            target = output.add_stream("aac", rate=rate)
            target.codec_context.layout = "mono" if source.codec_context.channels == 1 else "stereo"
        return cls(container, source, output, target, copy=copy)

    def copy_until(self, seconds: Fraction | None) -> None:
        """Move every packet that starts at or before `seconds`; all that is left when None."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if seconds is not None and packet.dts * packet.time_base > seconds:
                self._waiting = packet
                return
            self._output.mux(packet)

    def close(self) -> None:
        self._container.close()

    def _demux(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._source):
                if self._copy:
                    if packet.size and packet.dts is not None:
                        offset = round(self._start / packet.time_base)
                        packet.pts = packet.dts - offset if packet.pts is None else packet.pts - offset
                        packet.dts -= offset
                        packet.stream = self._target
                        yield packet
                else:
                    yield from self._encode(self._source.decode(packet if packet.size else None))
        except av.error.FFmpegError as error:
            name = self._container.name
            raise UnreadableVideoError(
                f"{name}: the sound track is damaged ({error.strerror}). Export it again."
            ) from error
        if not self._copy:
            yield from self._encode([None])
            yield from self._target.encode(None)

    def _encode(self, sounds: list[Any]) -> Iterator[Any]:
        """Resample and encode; times are counted in samples, since decoders' own times may jump."""
        assert self._resampler is not None
        rate = self._target.codec_context.sample_rate
        for sound in sounds:
            if sound is not None:
                if self._num_samples is None:
                    seconds = (
                        sound.pts * sound.time_base - self._start if sound.pts is not None else Fraction(0)
                    )
                    self._num_samples = round(seconds * rate)
                sound.pts = None
            for block in self._resampler.resample(sound):
                block.pts, block.time_base = self._num_samples, Fraction(1, rate)
                self._num_samples = (self._num_samples or 0) + block.samples
                yield from self._target.encode(block)


def check_video_target(path: Path) -> str:
    """Check that a video can be written at `path`; returns the container name.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The folder is missing or not writable, or the target is a folder.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise UsageError(
            f"{path}: cannot tell the video format; end the name in one of {', '.join(CONTAINERS)}."
        )
    check_writable(path)
    return container


def check_writable(path: Path) -> None:
    """Check that a file can be made at `path` before any long work starts.

    Raises:
        OutputError: The folder is missing or not writable, or the target is a folder.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(
            f"{path}: the folder {folder} does not exist. Make it first, or choose another name."
        )
    if path.is_dir():
        raise OutputError(f"{path}: this is a folder; give the name of a file.")
    probe = folder / f".{path.stem}.{uuid.uuid4().hex[:8]}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{path}: the folder {folder} cannot be written ({error.strerror}). "
            "Choose another folder or change its rights."
        ) from error


def start_time(container: Any) -> Fraction:
    """Earliest start of the picture and sound streams, in seconds: the zero of all times handed out here."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0))


def _open_input(path: Path) -> Any:
    if not path.is_file():
        raise UnreadableVideoError(f"{path}: no such video file.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{path}: the file is empty. Download or export it again.")
    try:
        # The prefix keeps names such as "a:b.mp4" from being read as a network protocol.
        container = av.open(
            f"file:{path.absolute()}", "r", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableVideoError(
            f"{path}: not a video that FFmpeg can read, or a truncated one ({reason}). "
            "Play it in a video player to check, then export it again as mp4."
        ) from error
    if set(container.format.name.split(",")) & _NOT_VIDEO_FORMATS:
        container.close()
        raise UnreadableVideoError(f"{path}: this is a text file, not a video.")
    return container


def _video_stream(container: Any, path: Path) -> Any:
    for stream in container.streams.video:
        attached = stream.disposition & Disposition.attached_pic  # the cover picture of a music file
        if not attached:
            return stream
    raise UnreadableVideoError(
        f"{path}: the file has no video stream (is it sound only?). Give a clip with a picture."
    )


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX or width * height > MAX_PIXELS:
        raise ImageSizeError(
            f"{path}: the frames are {width}x{height}; expected at least {MIN_SIDE_PX} pixels on each side and "
            f"at most {MAX_PIXELS // 1_000_000} megapixels. Resize the clip first."
        )


def _check_index_inside_file(stream: Any, path: Path) -> None:
    """An mp4 lists the place of every sample: one beyond the end of the file proves that it was cut off."""
    entries = stream.index_entries
    size = path.stat().st_size
    if "mp4" in stream.container.format.name and len(entries):
        beyond = sum(1 for entry in entries if entry.pos + entry.size > size)
        if beyond:
            raise UnreadableVideoError(
                f"{path}: the file is truncated: {beyond} of its {len(entries)} frames lie beyond its end. "
                "Download or export it again."
            )


def _stream_duration_s(stream: Any, container: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / av.time_base
    return None


def _frames_from_duration(duration_s: float | None, fps: Fraction) -> int | None:
    return None if duration_s is None else max(1, round(duration_s * float(fps)))


def _finer_clock(clock: Fraction, fps: Fraction) -> Fraction:
    """A clock that holds both the file's ticks and its frame period, so that nothing is rounded later."""
    if clock != _COARSE_CLOCK or (1 / fps / clock).denominator == 1:
        return clock
    ticks = lcm(clock.denominator, fps.numerator)
    return Fraction(1, ticks) if ticks <= 1_000_000 else clock


def _to_upright_rgb(picture: Any, stream: Any) -> np.ndarray:
    width = None
    aspect = stream.sample_aspect_ratio
    if aspect and aspect > 0 and aspect != 1:
        width = max(2, round(picture.width * aspect))
    colorspace = None
    if picture.colorspace == _UNSPECIFIED_COLORSPACE and picture.height >= _HD_HEIGHT_PX:
        colorspace = "ITU709"  # what players assume for untagged HD
    rgb = picture.reformat(format="rgb24", width=width, src_colorspace=colorspace)
    return np.ascontiguousarray(_apply_display_matrix(rgb.to_ndarray(), _display_matrix(picture)))


def _display_matrix(picture: Any) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of the display matrix, each -1, 0 or 1: shown x = a p + c q, y = b p + d q (y down)."""
    for side_data in picture.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            numbers = struct.unpack("<9i", bytes(side_data)[:36])
            a, b, c, d = (round(numbers[i] / 65536) for i in (0, 1, 3, 4))
            if abs(a * d - b * c) == 1:  # right angles only; anything else is left as it is
                return a, b, c, d
    return None


def _apply_display_matrix(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    if matrix is None:
        return image
    a, b, c, d = matrix
    if a == 0:  # rows and columns change places
        image = image.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
