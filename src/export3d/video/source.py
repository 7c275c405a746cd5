"""Opening a video file and the checks that can be made before a frame is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.stream import Disposition

from export3d.errors import ImageSizeError, UnreadableVideoError

MIN_SIDE_PX = 32
"""Smaller frames cannot hold a face that any tracker finds."""

MAX_PIXELS = 8192 * 8192
"""Larger frames are refused before they are decoded."""

MAX_FPS = 1000

CLOCK_RESTART_S = Fraction(1, 2)
"""A jump back by more is a clock that began anew (joined recordings): the film goes on without a gap."""

_NOT_VIDEO_FORMATS = {
    "tty",
    "hls",
    "concat",
    "ffmetadata",
}  # text that FFmpeg would otherwise open as "video"


def open_input(path: Path) -> Any:
    if not path.is_file():
        raise UnreadableVideoError(f"{path}: no such video file.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{path}: the file is empty. Download or export it again.")
    with open(path, "rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        raise UnreadableVideoError(
            f"{path}: an animated WebP picture, which FFmpeg cannot read. Convert it to mp4 or GIF, for example on the web "
            "or with ImageMagick: magick a.webp a.gif"
        )
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


def video_stream(container: Any, path: Path) -> Any:
    for stream in video_streams(container):
        if stream.codec_context is None:
            raise UnreadableVideoError(
                f"{path}: its codec is not known to this FFmpeg. Convert the clip, for example to H.264 in an mp4."
            )
        return stream
    raise UnreadableVideoError(f"{path}: the file has no video stream (is it sound only?). Give a clip with a picture.")


def video_streams(container: Any) -> Iterator[Any]:
    """The streams of pictures that are no cover of a music file."""
    return (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)


def has_picture(path: Path) -> bool:
    """Whether a media file is a film, not a sound alone.

    Raises:
        UnreadableVideoError: Not a media file.
    """
    with closing(open_input(path)) as container:
        return next(video_streams(container), None) is not None


def audio_stream(container: Any) -> Any | None:
    """The first sound track that can be handled, or None (phones add a second one in a codec of their own)."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) <= 0:
        raise UnreadableVideoError(
            f"{path}: the size of its frames cannot be read (damaged, or far too large). Export the clip again."
        )
    if min(width, height) < MIN_SIDE_PX or width * height > MAX_PIXELS:
        raise ImageSizeError(
            f"{path}: the frames are {width}x{height}; expected at least {MIN_SIDE_PX} pixels on each side "
            f"and at most {MAX_PIXELS // 1_000_000} megapixels. Resize the clip first."
        )


def index_problem(stream: Any, path: Path) -> str | None:
    """An mp4 lists the place of every sample: one beyond the end of the file proves that it was cut off."""
    entries = getattr(stream, "index_entries", ())  # PyAV 17 and later
    size = path.stat().st_size
    if "mp4" in stream.container.format.name and len(entries):
        beyond = sum(1 for entry in entries if entry.pos + entry.size > size)
        if beyond:
            return f"the file is truncated: {beyond} of its {len(entries)} frames lie beyond its end"
    return None


def frame_rate(stream: Any) -> Fraction | None:
    """The average rate, else a guess; None where a file names none that a film can have."""
    return next((rate for rate in (stream.average_rate, stream.guessed_rate) if rate and 0 < rate <= MAX_FPS), None)


def start_time(container: Any) -> Fraction:
    """Earliest start of the picture and sound streams, in seconds: the zero of all times handed out here."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0))


def stream_duration_s(stream: Any, container: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / av.time_base
    return None
