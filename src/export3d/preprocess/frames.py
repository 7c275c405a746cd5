"""Decoded frames of a job with exact times, cuts out of them, and resampling to 25 fps by time (Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np

from export3d.errors import ImageSizeError, UnreadableImageError, UnreadableVideoError
from export3d.images import open_picture
from export3d.preprocess.jobs import Cut, VideoJob
from export3d.preprocess.vfhq import FRAME_SUFFIXES, archive_members
from export3d.reading import reading
from export3d.video import VideoReader

MIN_BOX_PX = 32


@dataclass(frozen=True)
class SourceFrame:
    """A picture of the source."""

    image: np.ndarray  # (H, W, 3) uint8
    index: int  # from 0
    time: Fraction  # seconds
    full_size: tuple[int, int]  # width and height before any crop


def read_frames(job: VideoJob) -> Iterator[SourceFrame]:
    """All frames of a job's file in order.

    Raises:
        UnreadableVideoError: Not readable, damaged, or without a frame; perhaps only after some frames.
    """
    if job.kind == "video":
        with VideoReader(job.path, threads=1) as reader:
            for frame in reader:
                size = (frame.image.shape[1], frame.image.shape[0])
                yield SourceFrame(frame.image, frame.index, frame.pts * frame.time_base, size)
            if reader.problems:  # what came before is kept, and the report says the rest
                raise UnreadableVideoError(f"{job.path}: {'; '.join(reader.problems)}.")
        return
    if job.fps is None:
        raise ValueError("a job of single frames needs its native frame rate")
    contents = _folder_frames(job.path) if job.kind == "frames" else _archive_frames(job.path, job.inside)
    first_shape: tuple[int, ...] | None = None
    for index, (name, content) in enumerate(contents):
        try:
            with open_picture(content, name) as picture:
                image = np.array(picture.convert("RGB"))
        except UnreadableImageError as error:
            raise UnreadableVideoError(str(error)) from error
        if first_shape is None:
            first_shape = image.shape
        if image.shape != first_shape:
            raise UnreadableVideoError(
                f"{name}: the frame is {image.shape[1]}x{image.shape[0]}; the first one is "
                f"{first_shape[1]}x{first_shape[0]}."
            )
        yield SourceFrame(image, index, index / job.fps, (image.shape[1], image.shape[0]))
    if first_shape is None:
        raise UnreadableVideoError(f"{job.path}: no frame in it.")


class FrameStream:
    """Frames of a job that several cuts read one after the other: the frame that ends a cut is given again."""

    def __init__(self, frames: Iterator[SourceFrame]) -> None:
        self._frames = frames
        self._returned: SourceFrame | None = None
        self.num_read = 0

    def __iter__(self) -> Iterator[SourceFrame]:
        return self

    def __next__(self) -> SourceFrame:
        if self._returned is not None:
            frame, self._returned = self._returned, None
            return frame
        frame = next(self._frames)
        self.num_read += 1
        return frame

    def give_back(self, frame: SourceFrame) -> None:
        """The next reader starts with this frame."""
        self._returned = frame


def cut_frames(frames: FrameStream, cut: Cut) -> Iterator[SourceFrame]:
    """The frames of one cut, cropped to its box; stops reading after its last frame.

    Raises:
        UnreadableVideoError: The video ends before the cut begins.
        ImageSizeError: The box leaves next to nothing of the picture.
    """
    found = False
    for frame in frames:
        if (cut.last_frame is not None and frame.index > cut.last_frame) or (
            cut.end_s is not None and frame.time >= cut.end_s
        ):
            frames.give_back(frame)
            break
        if (cut.first_frame is not None and frame.index < cut.first_frame) or (
            cut.start_s is not None and frame.time < cut.start_s
        ):
            continue
        found = True
        if cut.box is not None:
            x0, y0, x1, y1 = cut_box(cut, frame.full_size)
            frame = replace(frame, image=np.ascontiguousarray(frame.image[y0:y1, x0:x1]))
        yield frame
    if not found:
        raise UnreadableVideoError("the video ends before this cut begins; is it another version of the video?")


def cut_box(cut: Cut, full_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The cut's box in whole pixels of frames of this size: scaled by actual / listed size, kept inside."""
    width, height = full_size
    if cut.box is None:
        return 0, 0, width, height
    listed_width, listed_height = cut.listed_size or full_size
    x0, x1 = (min(max(int(value * width / listed_width), 0), width) for value in (cut.box[0], cut.box[2]))
    y0, y1 = (min(max(int(value * height / listed_height), 0), height) for value in (cut.box[1], cut.box[3]))
    if x1 - x0 < MIN_BOX_PX or y1 - y0 < MIN_BOX_PX:
        raise ImageSizeError(
            f"the listed box leaves {x1 - x0}x{y1 - y0} pixels of the {width}x{height} frame; expected at least "
            f"{MIN_BOX_PX} on each side."
        )
    return x0, y0, x1, y1


def guide_points(cut: Cut, frame: SourceFrame, first_time: Fraction) -> np.ndarray | None:
    """Where the meant face is in this frame: ``(5, 2)`` in pixels of the cut's picture, or None without a guide.

    Args:
        first_time: time of the cut's first frame.
    """
    if not cut.guide:
        return None
    place = 0
    if cut.guide_fps is not None:
        start = cut.start_s if cut.start_s is not None else first_time
        place = round((frame.time - start) * cut.guide_fps)
    guide = np.frombuffer(cut.guide, dtype=np.float32).reshape(-1, 5, 2)
    listed = cut.listed_size or frame.full_size
    points = guide[min(max(place, 0), len(guide) - 1)] * [
        frame.full_size[0] / listed[0],
        frame.full_size[1] / listed[1],
    ]
    x0, y0, _, _ = cut_box(cut, frame.full_size)
    return points - [x0, y0]


def resample(frames: Iterable[SourceFrame], fps: Fraction) -> Iterator[tuple[int, SourceFrame]]:
    """Frames at a constant rate, chosen by time: output k is the source frame nearest to first time + k / fps.

    At a constant source rate f this is source frame round(k f / fps). Between two equally near frames the earlier one
    is taken. Where the source is slower, or stands still, a frame is given several times.

    Yields:
        ``(k, frame)``.
    """
    number = 0
    first_time = Fraction(0)
    previous: SourceFrame | None = None
    period = 1 / fps  # of the source; how long its last frame is shown
    for frame in frames:
        if previous is None:
            first_time = frame.time
        else:
            period = frame.time - previous.time
            middle = previous.time + period / 2
            while first_time + number / fps <= middle:
                yield number, previous
                number += 1
        previous = frame
    if previous is not None:
        while first_time + number / fps <= previous.time + period / 2:
            yield number, previous
            number += 1


def passes(cuts: tuple[Cut, ...]) -> list[list[Cut]]:
    """Group cuts so that those of one group follow each other in time: each group needs one decoding of the video."""
    groups: list[list[Cut]] = []
    for cut in sorted(
        cuts, key=lambda cut: (float(cut.first_frame or 0 if cut.start_s is None else cut.start_s), cut.name)
    ):
        for group in groups:
            if _ends_before(group[-1], cut):
                group.append(cut)
                break
        else:
            groups.append([cut])
    return groups


def _ends_before(first: Cut, second: Cut) -> bool:
    if first.end_s is not None and second.start_s is not None:
        return first.end_s <= second.start_s
    if first.last_frame is not None and second.first_frame is not None:
        return first.last_frame < second.first_frame
    return False


def _folder_frames(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith("."):
            yield str(path), path.read_bytes()


def _archive_frames(path: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    members = archive_members(path)
    while True:
        with reading(path, "the archive is damaged", UnreadableVideoError):
            name, content = next(members, ("", None))
            if content is None:
                return
            inner = PurePosixPath(name)
            wanted = inner.parent.as_posix() == inside and inner.suffix.lower() in FRAME_SUFFIXES
            picture = content() if wanted else None
        if picture is not None:
            yield f"{path}:{name}", picture
