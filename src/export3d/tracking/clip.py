"""A whole clip to a motion: tracking frame by frame, and what happens where the face is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from export3d.errors import UnreadableVideoError
from export3d.tracking.lost import LostFaces
from export3d.tracking.motion import SIGNALS, Motion
from export3d.tracking.tracker import TrackedFrame, Tracker


class TimedFrame(Protocol):
    """A frame of a clip, as `export3d.video.VideoReader` yields them."""

    @property
    def image(self) -> np.ndarray:
        """uint8 ``(H, W, 3)`` RGB."""
        ...

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        ...


def track_clip(
    tracker: Tracker,
    frames: Iterable[TimedFrame],
    fps: Fraction,
    *,
    on_lost: str = "hold",
    name: str = "the clip",
    progress: Callable[[int], None] | None = None,
) -> Motion:
    """Track every frame of a clip.

    Args:
        on_lost: a policy of `LostFaces`. What is held are the values of the frame before (before the first face: of the
            first face); the frame is marked as not found.
        name: the clip's name, for error texts.
        progress: called with the number of frames done.

    Raises:
        NoFaceError: No frame has a face.
        FaceLostError: A frame has none, and `on_lost` is `abort`.
        SeveralFacesError: Several faces and no choice.
        UnreadableVideoError: No frames at all.
    """
    lost = LostFaces(on_lost, name=name)
    tracker.reset()
    tracked: list[TrackedFrame] = []
    cut = False  # a shot may begin with a frame that is left out
    times: list[float] = []
    for frame in frames:
        done = lost.num_found + lost.num_lost
        found = tracker.frame(frame.image, where=f"{name}, frame {done} at {frame.time_s:.2f} s")
        cut = cut or found.cut
        if lost.keeps(found, index=done, time_s=frame.time_s):
            tracked.append(replace(found, cut=cut))
            cut = False
            times.append(frame.time_s)
        if progress:
            progress(done + 1)
    if lost.num_found + lost.num_lost == 0:
        raise UnreadableVideoError(f"{name}: the clip has no frames. Export it again.")
    lost.require_a_face()
    return _motion(tracked, times, fps, tracker)


def _motion(tracked: list[TrackedFrame], times: list[float], fps: Fraction, tracker: Tracker) -> Motion:
    held: list[TrackedFrame] = []
    last = next(frame for frame in tracked if frame.found)
    for frame in tracked:
        last = frame if frame.found else last
        held.append(last)
    crops = [(f.crop.center_x, f.crop.center_y, f.crop.side) if f.crop else (0.0, 0.0, 0.0) for f in tracked]
    return Motion(
        beta=np.stack([frame.beta for frame in held]),
        camera=np.stack([frame.camera for frame in held]),
        confidence=np.array([frame.confidence for frame in tracked], dtype=np.float32),
        found=np.array([frame.found for frame in tracked]),
        landmarks=np.stack([frame.landmarks for frame in held]),
        time_s=np.array(times, dtype=np.float64),
        fps=fps,
        extractor=tracker.info,
        crop=np.array(crops, dtype=np.float32),
        cut=np.array([frame.cut for frame in tracked]),
        **{name: np.stack([getattr(frame, name) for frame in held]) for name in SIGNALS},
    )
