"""What drives a portrait: a clip tracked on the fly, a photo, a motion file; `takes.py` has more. All give the same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import lcm
from pathlib import Path

import numpy as np

from export3d.animation.driving import Driver, DrivingFrame
from export3d.animation.takes import LiveDriver, TakeDriver
from export3d.errors import UnreadableVideoError
from export3d.images import is_moving, read_image
from export3d.tracking import Crop, Motion, Tracker
from export3d.tracking.live_link import SUFFIX as TAKE_SUFFIX
from export3d.tracking.live_link import Take
from export3d.tracking.vmc import SCHEME
from export3d.video import VideoReader, has_picture

MOTION_SUFFIX = ".safetensors"

MOTION_TICKS = 90_000
"""Ticks per second of motion files, whose times are seconds; refined until the frame period is a whole number."""

STILL_FPS = Fraction(25)

STILL_VIDEO_S = 2.0
"""Length of a video that is driven by a single photo."""


class ClipDriver:
    """Tracks a video while it is played; memory does not depend on its length."""

    relative_only = False

    def __init__(self, path: str | Path, tracker: Tracker, *, threads: int = 0) -> None:
        self.name = str(path)
        self._reader = VideoReader(path, threads=threads)
        self._tracker = tracker
        self.fps = self._reader.fps
        self.time_base = self._reader.time_base
        self.num_frames_hint = self._reader.num_frames_hint
        self.audio: Path | None = Path(path) if self._reader.has_audio else None
        self.problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[DrivingFrame]:
        self._tracker.reset()
        for frame in self._reader:
            where = f"{self.name}, frame {frame.index} at {frame.time_s:.2f} s"
            tracked = self._tracker.frame(frame.image, where=where)
            yield DrivingFrame(
                state=tracked.state,
                camera=tracked.camera,
                found=tracked.found,
                index=frame.index,
                pts=frame.pts,
                duration=frame.duration,
                image=frame.image,
                crop=tracked.crop,
                landmarks=tracked.landmarks,
                cut=tracked.cut,
                other=tracked.other,
            )
        self.problems = tuple(self._reader.problems)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


class MotionDriver:
    """Plays a motion file: the clip itself is not needed, so there is no picture and no sound."""

    audio: Path | None = None
    problems: tuple[str, ...] = ()
    relative_only = False

    def __init__(self, motion: Motion, *, name: str = "the motion file") -> None:
        self.name = name
        self._motion = motion
        self.fps = motion.fps
        self.time_base = Fraction(1, lcm(MOTION_TICKS, motion.fps.numerator))
        self.num_frames_hint: int | None = len(motion)

    def __iter__(self) -> Iterator[DrivingFrame]:
        motion, states = self._motion, self._motion.state
        pts = [round(Fraction(float(time_s)) / self.time_base) for time_s in motion.time_s]
        last = max(round(1 / self.fps / self.time_base), 1)
        durations = [*(int(d) for d in np.diff(np.asarray(pts, dtype=np.int64))), last]
        for index in range(len(motion)):
            yield DrivingFrame(
                state=states[index : index + 1],
                camera=motion.camera[index],
                found=bool(motion.found[index]),
                index=index,
                pts=pts[index],
                duration=durations[index],
                cut=motion.cut is not None and bool(motion.cut[index]),
                crop=None if motion.crop is None or not motion.found[index] else Crop(*motion.crop[index].tolist()),
            )

    def close(self) -> None:
        """Nothing to release."""


class PhotoDriver:
    """A single picture: one frame, or `seconds` of it as a still video."""

    audio: Path | None = None
    problems: tuple[str, ...] = ()
    relative_only = False

    def __init__(self, image: np.ndarray, tracker: Tracker, *, name: str, seconds: float = 0.0) -> None:
        self.name = name
        self._image = image
        self._portrait = tracker.portrait(image, where=name)
        self.fps = STILL_FPS
        self.time_base = 1 / STILL_FPS
        self.num_frames_hint: int | None = max(1, round(seconds * float(STILL_FPS)))

    def __iter__(self) -> Iterator[DrivingFrame]:
        for index in range(self.num_frames_hint or 1):
            yield DrivingFrame(
                state=self._portrait.state,
                camera=self._portrait.camera,
                found=True,
                index=index,
                pts=index,
                duration=1,
                image=self._image,
            )

    def close(self) -> None:
        """Nothing to release."""


def open_driver(
    path: str | Path,
    make_tracker: Callable[[], Tracker],
    *,
    expression_space: str,
    still_seconds: float = 0.0,
    threads: int = 0,
    by_sound: Callable[[Path], Driver] | None = None,
    sound: bool = False,
) -> Driver:
    """Open whatever drives: a sender by its name, a motion file or a take by its suffix, a still picture by its contents, a
    sound, else a video.

    Args:
        make_tracker: called only where a picture must be tracked.
        expression_space: what the model's beta means; a motion file in another space is refused.
        still_seconds: how long a still picture shall last.
        by_sound: makes a driver of a file's sound (`SoundDriver`): of files without pictures, and of all where `sound` is set.

    Raises:
        MotionFileError, UnreadableVideoError, UnreadableImageError, ImageSizeError: The file cannot be used.
        NoFaceError, SeveralFacesError, FaceTooSmallError, FaceCutOffError: A still picture has no usable face.
    """
    if str(path).startswith(f"{SCHEME}:"):
        return LiveDriver(str(path))
    path = Path(path)
    if path.suffix.lower() == TAKE_SUFFIX:
        return TakeDriver(Take.load(path), name=str(path))
    if path.suffix.lower() == MOTION_SUFFIX:
        motion = Motion.load(path)
        motion.require_space(expression_space, where=str(path))
        return MotionDriver(motion, name=str(path))
    if not path.is_file():
        raise UnreadableVideoError(
            f"{path}: no such file. --driving takes a video, a photo, a motion file, a take (.csv) or vmc:PORT."
        )
    moving = is_moving(path)
    if by_sound is not None and (sound or (moving is None and not has_picture(path))):
        return by_sound(path)
    if moving is False:
        return PhotoDriver(read_image(path), make_tracker(), name=str(path), seconds=still_seconds)
    return ClipDriver(path, make_tracker(), threads=threads)
