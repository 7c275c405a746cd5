"""Films and meshes of the studio: one at a time, within limits, stopped when nobody wants them any more."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from export3d.animation import (
    Animator,
    ClipDriver,
    Driver,
    SoundDriver,
    TransferOptions,
    VideoOptions,
    animate_video,
    open_driver,
    orbit_video,
)
from export3d.animation.drivers import STILL_VIDEO_S
from export3d.animation.paths import OrbitOptions
from export3d.animation.regions import REGIONS, STRONGEST, parse_strengths
from export3d.errors import ImageSizeError, UsageError
from export3d.face_state import ARKIT_NAMES
from export3d.images import open_picture
from export3d.mesh import write_head
from export3d.provenance import Finish
from export3d.tracking import Tracker
from export3d.tracking.smoothing import SIGMA_S
from export3d.video import VideoReader
from export3d.video.source import open_input

LARGEST_PX = 1024
"""Largest film, pixels a side."""

MESHES = ("glb", "ply", "obj")

Tell = Callable[[int, "int | None"], None]
"""Told after each frame how many are done, and of how many, if that is known."""

Made = tuple[Path, list[str]]
"""A film and what there is to say of it."""


class Stopped(Exception):
    """The client that wanted a film has gone, or wants it no more."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask for."""

    upload_mb: int = 200
    """Largest file."""
    megapixels: float = 50.0
    """Largest photo; films may have a fifth of it in each frame."""
    seconds: float = 120.0
    """Longest clip, and longest recording."""
    clients: int = 16
    """Pages that are open at once."""
    portraits: int = 16
    """Encoded portraits that are kept; the one that was not used for longest goes first."""

    def check_photo(self, path: Path, name: str) -> None:
        """Refuse a photo with too many pixels before it is decoded."""
        with open_picture(path, name) as opened:
            width, height = opened.size
        if width * height > self.megapixels * 1e6:
            raise ImageSizeError(
                f"{name}: {width}x{height} pixels; this studio takes photos of at most {self.megapixels:g} "
                "megapixels. Make it smaller first."
            )


@dataclass(frozen=True, kw_only=True)
class VideoWish:
    """What is asked of a film, in the words of `export3d animate`; `sound`: of a video with pictures its sound drives."""

    sound: bool = False
    regions: Annotated[tuple[str, ...], Meta(min_length=1)] = REGIONS
    strength: Annotated[float, Meta(ge=0.0, le=STRONGEST)] = 1.0
    side_by_side: bool = False
    relative: bool = False
    shift: bool = True
    smooth: bool = False
    whole_photo: bool = True
    size: int = 256
    on_lost: Literal["hold", "skip", "abort"] = "hold"


class VideoMaker:
    """Makes films one after another, in the threads of those who ask.

    Args:
        animator: whose model is used.
        make_tracker: a new tracker with a face finder of its own.
        new_file: a new name with this suffix.
        finish: label, mark and manifest from the facts.
    """

    def __init__(
        self,
        animator: Animator,
        make_tracker: Callable[[], Tracker],
        limits: Limits,
        *,
        new_file: Callable[[str], Path],
        finish: Callable[..., Finish],
    ) -> None:
        self._animator, self._make_tracker, self._limits = animator, make_tracker, limits
        self._new_file, self._finish = new_file, finish
        self._turn = threading.Lock()
        self._tracker: Tracker | None = None

    @property
    def busy(self) -> bool:
        """Whether a film is being made."""
        return self._turn.locked()

    def animate(self, source: Path, driving: Path, wish: VideoWish, tell: Tell, stop: threading.Event) -> Made:
        """The portrait, driven by the file, as an .mp4.

        Raises:
            Export3DError: As `export3d animate` does, and for what is over the limits.
            Stopped: `stop` was set.
        """
        self._limits.check_photo(source, source.name)
        with self._turn:
            animator = self._with(source, wish.size, whole=wish.whole_photo)
            driver = self._driver(driving, wish.sound)
            finish = self._finish(source=source, drivers=(driving,), composite=wish.side_by_side)
            try:
                options = {"video": _video(wish), "motion": _motion(wish), "on_lost": wish.on_lost, "finish": finish}
                told = _teller(tell, driver.num_frames_hint, stop, self._limits.seconds * float(driver.fps))
                made = animate_video(animator, driver, self._new_file(".mp4"), **options, progress=told)
            finally:
                driver.close()
        said = list(driver.problems) + list(made.warnings)
        return made.path, said + ([f"no face in {made.lost} frames of the clip"] if made.lost else [])

    def turn(
        self, source: Path, orbit: OrbitOptions, size: int, *, depth: bool, tell: Tell, stop: threading.Event
    ) -> Made:
        """The portrait from a camera that goes round it, as an .mp4; raises as `animate` does."""
        self._limits.check_photo(source, source.name)
        with self._turn:
            animator, finish = self._with(source, size), self._finish(source=source)
            how: dict[str, Any] = {"orbit": orbit, "video": VideoOptions(size=size), "fps": Fraction(25)}
            path, told = self._new_file(".mp4"), _teller(tell, orbit.num_frames, stop)
            made = orbit_video(animator, path, **how, with_depth=depth, finish=finish, progress=told)
        return made.path, list(made.warnings)

    def mesh(self, source: Path, kind: str, *, shapes: bool, tell: Tell, stop: threading.Event) -> Made:
        """The portrait's head as a .glb, .ply or .obj; raises as `animate` does."""
        if kind not in MESHES:
            raise UsageError(f"kind must be one of {', '.join(MESHES)}; got {kind}.")
        if shapes and kind != "glb":
            raise UsageError(f"shapes: only a .glb can hold them; got {kind}.")
        self._limits.check_photo(source, source.name)
        with self._turn:
            animator = self._with(source, LARGEST_PX)
            assert animator.subject is not None
            told = _teller(tell, len(ARKIT_NAMES), stop)
            path, seen = self._new_file(f".{kind}"), animator.subject.seen(animator.image_size)
            subject, how = animator.subject, {"shapes": shapes, "progress": told}
            said = write_head(path, animator.model, subject.code, seen, landmarks=subject.landmarks, **how)
        return path, [said]

    def close(self) -> None:
        """Free the tracker."""
        if self._tracker is not None:
            self._tracker.close()

    def _with(self, source: Path, size: int, whole: bool = False) -> Animator:
        """An animator with this portrait."""
        if not 64 <= size <= LARGEST_PX:
            raise UsageError(f"size must be from 64 to {LARGEST_PX} pixels; got {size}.")
        if self._tracker is None:
            self._tracker = self._make_tracker()
        animator = self._animator.twin()
        animator.tracker, animator.detail, animator.framing = self._tracker, size, None if whole else "face"
        animator.portrait(source, where=source.name)
        return animator

    def _driver(self, driving: Path, sound: bool) -> Driver:
        tracker = self._tracker
        assert tracker is not None
        driver = open_driver(
            driving,
            lambda: Tracker(tracker.face_tracker, tracker.coefficients, choice="largest"),
            expression_space=self._animator.model.config.expression.space,
            still_seconds=STILL_VIDEO_S,
            by_sound=self._by_sound,
            sound=sound,
        )
        try:
            self._check(driver, driving)
        except BaseException:
            driver.close()
            raise
        return driver

    def _check(self, driver: Driver, driving: Path) -> None:
        limits = self._limits
        self._check_length((driver.num_frames_hint or 0) / float(driver.fps), driving)
        if isinstance(driver, ClipDriver):
            with VideoReader(driving) as reader:
                width, height = reader.width, reader.height
            if width * height > limits.megapixels * 1e6 / 5:
                raise UsageError(
                    f"{driving.name}: frames of {width}x{height} pixels are too large for this studio. "
                    "Make the clip smaller first."
                )

    def _check_length(self, seconds: float, driving: Path) -> None:
        if seconds > self._limits.seconds:
            raise UsageError(
                f"{driving.name}: {seconds:.0f} seconds long; this studio takes clips of at most "
                f"{self._limits.seconds:g}. Cut it first."
            )

    def _by_sound(self, driving: Path) -> Driver:
        """A driver that listens; it hears all of the sound before the first frame, so the length is looked up before."""
        with closing(open_input(driving)) as container:
            self._check_length((container.duration or 0) / 1e6, driving)
        return SoundDriver(driving, self._animator.model)


def _teller(tell: Tell, of: int | None, stop: threading.Event, longest: float = math.inf) -> Callable[[int], None]:
    """Says how many frames are done; at `longest` or when it is to stop it ends the work."""

    def told(done: int) -> None:
        if stop.is_set():
            raise Stopped
        if done > longest:
            raise UsageError(f"the clip has more than {longest:.0f} frames, too many for this studio. Cut it first.")
        tell(done, of)

    return told


def _video(wish: VideoWish) -> VideoOptions:
    return VideoOptions(size=None if wish.whole_photo else wish.size, side_by_side=wish.side_by_side)


def _motion(wish: VideoWish) -> TransferOptions:
    return TransferOptions(
        strengths=parse_strengths(",".join(wish.regions), str(wish.strength)),
        relative=wish.relative,
        shift=wish.shift,
        smooth_s=SIGMA_S if wish.smooth else 0.0,
    )
