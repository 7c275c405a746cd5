"""Several drivers as one: the head's pose or the mouth from another file, in the main driver's time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.regions import REGIONS, BetaReading, mixed_state

MOUTH = ("lips", "jaw")


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

    def __iter__(self) -> Iterator[DrivingFrame]:
        strengths = {region: float(region in MOUTH) for region in REGIONS}
        pose = None if self._pose is None else _Clock(self._pose)
        mouth = None if self._mouth is None else _Clock(self._mouth)
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
                frame = replace(frame, state=replace(mixed, gaze=frame.state.gaze))
            yield frame
        self.problems = tuple(line for driver in self._drivers() for line in driver.problems)

    def close(self) -> None:
        """Release the files."""
        for driver in self._drivers():
            driver.close()

    def _drivers(self) -> list[Driver]:
        return [driver for driver in (self._main, self._pose, self._mouth) if driver is not None]


class _Clock:
    """A driver, read on as time goes on."""

    def __init__(self, driver: Driver) -> None:
        self._frames, self._base = iter(driver), driver.time_base
        self._next = next(self._frames, None)
        self._start = 0 if self._next is None else self._next.pts
        self._now: DrivingFrame | None = None

    def at(self, time_s: float) -> DrivingFrame | None:
        """The newest frame with a face at this time; times must not fall. Its `cut` tells of the frames passed over."""
        cut = False
        while self._next is not None and float((self._next.pts - self._start) * self._base) <= time_s + 1e-6:
            cut = cut or self._next.cut
            self._now = self._next if self._next.found else self._now
            self._next = next(self._frames, None)
        return None if self._now is None else replace(self._now, cut=cut)
