"""Drivers that tell single weights alone: a take of ARKit weights, and a live sender of the Virtual Motion Capture protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from export3d.animation.driving import DrivingFrame, told_state
from export3d.tracking.live_link import Take
from export3d.tracking.vmc import VmcListener

TICKS = 90_000
"""Ticks per second of a take."""

LIVE_RATE = 30
"""Pictures per second of a live film, at most: a slower computer leaves some out, and the others keep their times."""

SILENT_S = 1.0
"""After so long without a message the face counts as lost."""

_POLL_S = 0.002


class TakeDriver:
    """Plays a take of ARKit weights (`live_link.py`). It tells no beta: that is NaN, and the portrait's own takes its place."""

    audio: Path | None = None
    problems: tuple[str, ...] = ()
    relative_only = False

    def __init__(self, take: Take, *, name: str = "the take") -> None:
        self.name, self._take = name, take
        self.fps = take.fps
        self.time_base = Fraction(1, TICKS)
        self.num_frames_hint: int | None = len(take)

    def __iter__(self) -> Iterator[DrivingFrame]:
        take, cameras = self._take, self._take.cameras
        pts = np.rint(take.time_s * TICKS).astype(np.int64)
        durations = np.append(np.diff(pts), round(TICKS / self.fps))
        for index in range(len(take)):
            yield DrivingFrame(
                state=told_state(take.weights[index], take.gaze[index]),
                camera=cameras[index],
                found=True,
                index=index,
                pts=int(pts[index]),
                duration=int(durations[index]),
            )

    def close(self) -> None:
        """Nothing to release."""


class LiveDriver:
    """What a sender says, as often as a picture is asked for, until `finish` is called (from a signal handler, say).

    Args:
        name: see `VmcListener`.
    """

    audio: Path | None = None
    problems: tuple[str, ...] = ()
    relative_only = False
    fps = Fraction(LIVE_RATE)
    time_base = Fraction(1, LIVE_RATE)
    num_frames_hint: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self._listener = VmcListener(name)
        self._finished = False

    def __iter__(self) -> Iterator[DrivingFrame]:
        started: float | None = None
        index, last = 0, -1
        while not self._finished:
            heard = self._listener.listen()
            now = time.monotonic()
            started = now if started is None and heard is not None else started
            pts = -1 if started is None else int((now - started) * LIVE_RATE)
            if heard is None or pts <= last:
                time.sleep(_POLL_S)
                continue
            listener = self._listener
            yield DrivingFrame(
                state=told_state(listener.weights, listener.gaze),
                camera=listener.camera,
                found=now - heard < SILENT_S,
                index=index,
                pts=pts,
                duration=1,
            )
            index, last = index + 1, pts
        if self._listener.damaged:
            self.problems = (f"{self._listener.damaged} packets that are no OSC were passed over",)

    def finish(self) -> None:
        """Let the film end with the frame that is being made."""
        self._finished = True

    def close(self) -> None:
        """Free the port."""
        self._listener.close()
