"""Decode a clip frame by frame: upright pictures, exact presentation times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from export3d.errors import UnreadableVideoError
from export3d.video.orientation import to_upright_rgb
from export3d.video.source import (
    CLOCK_RESTART_S,
    MAX_PIXELS,
    audio_stream,
    check_size,
    frame_rate,
    index_problem,
    open_input,
    start_time,
    stream_duration_s,
    video_stream,
)

FALLBACK_FPS = Fraction(25)
"""Used only where a file names no frame rate at all."""

MAX_DAMAGED = 10_000
"""Packets; a file that goes on giving nothing else is given up."""

_COARSE_CLOCK = Fraction(1, 1000)  # Matroska counts whole milliseconds


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
        problems: what is damaged or missing, complete after the last frame. Damaged packets are left out: the frame before
            them stays longer.

    Raises:
        UnreadableVideoError: Not a video, no video stream, or not one frame that can be decoded.
        ImageSizeError: Frames under 32 pixels on a side or over 67 megapixels.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.path = Path(path)
        self._container = open_input(self.path)
        try:
            self._stream = video_stream(self._container, self.path)
            self._stream.codec_context.thread_count = threads
            self._stream.thread_type = "AUTO"
            check_size(self.path, self._stream.codec_context.width, self._stream.codec_context.height)
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            cut_off = index_problem(self._stream, self.path)
            self.problems: list[str] = [] if cut_off is None else [cut_off]
            audio = audio_stream(self._container)
            self.has_audio = audio is not None
            self.audio_duration_s = stream_duration_s(audio, self._container) if audio is not None else None
            self.fps: Fraction = frame_rate(self._stream) or FALLBACK_FPS
            self._clock: Fraction = self._stream.time_base or 1 / self.fps
            self.time_base = _finer_clock(self._clock, self.fps)
            self._start = start_time(self._container)
            self.num_frames_hint = self._stream.frames or _frames_from_duration(
                stream_duration_s(self._stream, self._container), self.fps
            )
            self._last_packet_end = Fraction(0)
            self._num_damaged = 0
            self._shape: tuple[int, ...] = ()
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                why = f" ({'; '.join(self.problems)})" if self.problems else ""
                raise UnreadableVideoError(
                    f"{self.path}: the video holds no frame that can be decoded{why}. Export or download it again."
                )
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
        index, shift, previous, size = 0, 0, None, None
        reformatter = VideoReformatter()
        for picture in self._pictures():
            given = self._exact_pts(picture.pts, index)
            length = self._on_grid((picture.duration or 0) * self._clock) or 1 / self.fps
            duration = max(round(length / self.time_base), 1)
            pts = given + shift
            if previous is not None and pts <= previous:  # a broken clock must not cost frames
                if (previous - pts) * self.time_base > CLOCK_RESTART_S:
                    shift = previous + duration - given
                    pts = previous + duration
                else:
                    pts = previous + 1
            size = size or (picture.width, picture.height)
            kept = None if size == (picture.width, picture.height) else size
            try:
                image = to_upright_rgb(picture, self._stream, reformatter, kept)
            except (av.error.FFmpegError, ValueError):  # a size that cannot be brought to the first one's
                self._num_damaged += 1
                continue
            if index and image.shape != self._shape:
                image = np.asarray(Image.fromarray(image).resize((self._shape[1], self._shape[0])))
            self._shape = image.shape
            yield VideoFrame(image=image, index=index, pts=pts, time_base=self.time_base, duration=duration)
            index, previous = index + 1, pts
        if self._num_damaged:
            self.problems.append(f"{self._num_damaged} damaged packets were left out")
        self._check_reached_end(index)

    def _pictures(self) -> Iterator[Any]:
        """Decoded pictures; what cannot be decoded is counted."""
        packets = self._container.demux()
        while self._num_damaged < MAX_DAMAGED:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError) as error:
                self.problems.append(f"the rest cannot be read ({getattr(error, 'strerror', None) or error})")
                return
            if packet is None:
                return
            self._note_end(packet)
            if packet.stream.index != self._stream.index:
                continue
            try:
                yield from self._stream.decode(packet if packet.size else None)
            except (av.error.FFmpegError, ValueError):
                self._num_damaged += 1
        self.problems.append("too much of it is damaged to go on")

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
            self.problems.append(
                f"the file is truncated: it announces {float(announced):.2f} s but ends after "
                f"{float(self._last_packet_end):.2f} s ({num_frames} frames)"
            )


def _frames_from_duration(duration_s: float | None, fps: Fraction) -> int | None:
    return None if duration_s is None else max(1, round(duration_s * float(fps)))


def _finer_clock(clock: Fraction, fps: Fraction) -> Fraction:
    """A clock that holds both the file's ticks and its frame period, so that nothing is rounded later."""
    if clock != _COARSE_CLOCK or (1 / fps / clock).denominator == 1:
        return clock
    ticks = lcm(clock.denominator, fps.numerator)
    return Fraction(1, ticks) if ticks <= 1_000_000 else clock
