"""What drives `export3d animate`: which files, which regions of the face, from which neutral face."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from export3d.errors import UsageError

if TYPE_CHECKING:
    from export3d.animation import Driver, DrivingFrame, TransferOptions
    from export3d.portrait import Model
    from export3d.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class DrivingOptions:
    """What drives, and how far the portrait follows."""

    driving: tuple[Path, ...]
    """Video, photo, motion file (.safetensors), sound (wav, mp3, m4a, ...), take (.csv) or vmc:PORT whose expression and head
    pose are taken over. With several faces one for all of them, or one for each from left to right."""

    from_: Annotated[Literal["picture", "sound"], tyro.conf.arg(name="from")] = "picture"
    """What of a film drives: the face in its pictures, or its sound. A file without pictures always drives by sound."""

    seed: int = 0
    """Of the blinks, brows, glances and head of a portrait that is driven by sound."""

    expression_only: bool = False
    """Take over expression and gaze; keep the portrait's own head pose."""

    pose_only: bool = False
    """Take over the head pose; keep the portrait's own expression and gaze."""

    regions: str | None = None
    """What follows the driver: any of lips,jaw,eyes,brows,gaze,pose, with commas. All when left out; lips and jaw where the
    source is a film, which keeps its pose."""

    strength: str = "1"
    """How far they follow: 0 not at all, 1 as the driver, up to 2; for all, or for some: lips=1.2,brows=0.8."""

    relative: bool = False
    """Add the driver's changes since its neutral face to the portrait's own expression, pose and gaze."""

    neutral: str | None = None
    """The driver's neutral face, from which relative motion starts: a time in seconds, or 'auto' to look for it (the clip
    is read twice). Its first face when left out."""

    pose_from: Path | None = None
    """Take the head's pose from this video, photo or motion file instead."""

    lips_from: Path | None = None
    """Take lips, jaw and sound from this file instead."""

    gaze: bool = True
    """Let the eyes follow the driver's; --no-gaze leaves them as the portrait has them."""

    shift: bool = True
    """Let the head move in the picture as the driver's does from its first frame on; --no-shift keeps it in the middle."""

    smooth: bool = False
    """Calm tracking jitter with a short Gaussian over time, without delay."""

    driving_face: str | None = None
    """Which face of the driving file: largest, left, right, or a number (0 is the leftmost)."""

    def strengths(self, default: str | None = None) -> dict[str, float]:
        """The strength of every region; the short options are regions too, and `default` is taken where none is named.

        Raises:
            UsageError: Options that exclude each other, or words that are none.
        """
        from export3d.animation.regions import FACE_REGIONS, parse_strengths

        short = {"--expression-only": self.expression_only, "--pose-only": self.pose_only}
        given = [name for name, on in short.items() if on] + (["--regions"] if self.regions is not None else [])
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other; leave all of them out for the whole driver.")
        regions = (
            ",".join(FACE_REGIONS) if self.expression_only else "pose" if self.pose_only else self.regions or default
        )
        strengths = parse_strengths(regions, self.strength)
        return strengths if self.gaze else {**strengths, "gaze": 0.0}

    def neutral_time(self) -> float | None:
        """Seconds of the neutral face; NaN for one that is to be looked for, None for the first one.

        Raises:
            UsageError: Not a time, or without --relative.
        """
        if self.neutral is None:
            return None
        if not self.relative:
            raise UsageError("--neutral names the face that --relative starts from; give --relative too.")
        try:
            time_s = math.nan if self.neutral == "auto" else float(self.neutral)
        except ValueError:
            time_s = -1.0
        if time_s < 0.0 or math.isinf(time_s):
            raise UsageError(f"--neutral: a time in seconds, or 'auto'; got '{self.neutral}'.")
        return time_s


class Drivers:
    """Opens the files that drive a portrait.

    Args:
        tracker: finds the portrait's face; the drivers' trackers share its networks.
        still: a photo drives one frame instead of two seconds.
    """

    def __init__(
        self, options: DrivingOptions, model: Model, tracker: Tracker, *, still: bool = False, threads: int = 0
    ) -> None:
        self._options, self._model, self._tracker = options, model, tracker
        from export3d.animation.drivers import STILL_VIDEO_S

        self._still_s, self._threads = 0.0 if still else STILL_VIDEO_S, threads

    def open(self, path: Path) -> Driver:
        """One file as a driver."""
        from export3d.animation import SoundDriver, open_driver
        from export3d.tracking import Tracker

        tracker = self._tracker
        return open_driver(
            path,
            lambda: Tracker(
                tracker.face_tracker, tracker.coefficients, choice=self._options.driving_face, option="--driving-face"
            ),
            expression_space=self._model.config.expression.space,
            still_seconds=self._still_s,
            threads=self._threads,
            by_sound=lambda path: SoundDriver(path, self._model, seed=self._options.seed),
            sound=self._options.from_ == "sound",
        )

    def combined(self, driving: Path) -> Driver:
        """A driver, with the parts that are to come from other files."""
        from export3d.animation.combined import CombinedDriver
        from export3d.animation.regions import BetaReading

        options = self._options
        if options.pose_from is None and options.lips_from is None:
            return self.open(driving)
        with ExitStack() as opened:  # a file that cannot be read must not leave the others open
            files = (driving, options.pose_from, options.lips_from)
            main, pose, mouth = (
                None if path is None else opened.enter_context(closing(self.open(path))) for path in files
            )
            assert main is not None
            driver = CombinedDriver(main, pose=pose, mouth=mouth, reading=BetaReading.of(self._model))
            opened.pop_all()
        return driver

    def motion(self, driving: Path, strengths: dict[str, float]) -> TransferOptions:
        """How a driver's motion reaches the portrait; the clip is read where its neutral face is asked for."""
        from export3d.animation import TransferOptions
        from export3d.tracking.smoothing import SIGMA_S

        options, time_s = self._options, self._options.neutral_time()
        return TransferOptions(
            strengths=strengths,
            relative=options.relative,
            neutral=None if time_s is None else self._neutral(driving, time_s),
            shift=options.shift,
            smooth_s=SIGMA_S if options.smooth else 0.0,
        )

    def _neutral(self, driving: Path, time_s: float) -> DrivingFrame:
        from export3d.animation.transfer import neutral_face

        with closing(self.combined(driving)) as driver:
            at_s = None if math.isnan(time_s) else time_s
            return neutral_face(driver, time_base=driver.time_base, shift=self._options.shift, at_s=at_s)
