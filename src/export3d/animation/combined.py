"""Several drivers as one: the head's pose or the mouth from another file, in the main driver's time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.regions import MOUTH, REGIONS, BetaReading, mixed_state


class CombinedDriver:
    """The main driver's frames with the pose or the mouth of others.

    Each other driver gives its newest frame with a face that is not later than the main one's; before its first, the main
    driver's own is shown, and after its end its last.

    Args:
        pose, mouth: take the camera, or lips and jaw, from here; None from `main`. The sound is `mouth`'s.
        reading: tells the mouth's part of beta from the rest (`BetaReading.of`).
    """

    def __init__(
        self,
        main: Driver,
        *,
        pose: Driver | None = None,
        mouth: Driver | None = None,
        reading: BetaReading | None = None,
    ) -> None:
        self._main, self._pose, self._mouth, self._reading = main, pose, mouth, reading
        self.name, self.fps, self.time_base = main.name, main.fps, main.time_base
        self.num_frames_hint = main.num_frames_hint
        self.audio: Path | None = main.audio if mouth is None else mouth.audio
        self.problems: tuple[str, ...] = ()
        self.relative_only = main.relative_only

    def __iter__(self) -> Iterator[DrivingFrame]:
        strengths = {region: float(region in MOUTH) for region in REGIONS}
        pose = None if self._pose is None else Clock(self._pose, self._pose.time_base)
        mouth = None if self._mouth is None else Clock(self._mouth, self._mouth.time_base)
        start: int | None = None
        for frame in self._main:
            start = frame.pts if start is None else start
            time_s = float((frame.pts - start) * self.time_base)
            other = pose.at(time_s) if pose is not None else None
            if other is not None:
                frame = replace(frame, camera=other.camera, crop=other.crop, cut=other.cut)
            other = mouth.at(time_s) if mouth is not None else None
            if other is not None:
                mixed = mixed_state(frame.state, other.state, strengths, self._reading)
                voiced = self._mouth is not None and self._mouth.relative_only
                frame = replace(frame, state=replace(mixed, gaze=frame.state.gaze), voiced=voiced)
            yield frame
        self.problems = tuple(line for driver in self._drivers() for line in driver.problems)

    def close(self) -> None:
        """Release the files."""
        for driver in self._drivers():
            driver.close()

    def _drivers(self) -> list[Driver]:
        return [driver for driver in (self._main, self._pose, self._mouth) if driver is not None]


class Clock:
    """Driving frames, read on as time goes on, from 0 at the first one.

    Args:
        time_base: seconds per unit of their `pts`.
    """

    def __init__(self, frames: Iterable[DrivingFrame], time_base: Fraction) -> None:
        self._frames, self._base = iter(frames), time_base
        self._next = next(self._frames, None)
        self._start = 0 if self._next is None else self._next.pts
        self._end = self._start
        self._now: DrivingFrame | None = None

    def at(self, time_s: float) -> DrivingFrame | None:
        """The newest frame with a face at this time; times must not fall. Its `cut` tells of the frames passed over."""
        cut = False
        while self._next is not None and self._since(self._next.pts) <= time_s + 1e-6:
            cut = cut or self._next.cut
            self._now = self._next if self._next.found else self._now
            self._end = self._next.pts + self._next.duration
            self._next = next(self._frames, None)
        return None if self._now is None else replace(self._now, cut=cut)

    def is_over(self, time_s: float) -> bool:
        """Whether the last frame has ended by a time that `at` was asked for."""
        return self._next is None and self._since(self._end) <= time_s + 1e-6

    def _since(self, pts: int) -> float:
        return float((pts - self._start) * self._base)
