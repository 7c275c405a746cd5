"""The workshop: one model, one queue for short work, one film at a time; knows nothing of browsers.

Portraits and single pictures are made by one thread in the order in which they were asked for, so that every client gets its
turn. A film is made beside them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from export3d.animation import (
    Animator,
    ClipDriver,
    Driver,
    Subject,
    TransferOptions,
    VideoOptions,
    animate_video,
    open_driver,
    orbit_video,
)
from export3d.animation.compose import depth_picture, depth_range, resize
from export3d.animation.paste import DETAIL_PX
from export3d.animation.paths import OrbitOptions
from export3d.errors import Export3DError, ImageSizeError, UsageError
from export3d.images import open_picture, to_uint8
from export3d.portrait import Model
from export3d.provenance import AllowedSources, Facts, Finish, ProvenanceOptions
from export3d.studio.face import Wish, posed
from export3d.tracking import Tracker
from export3d.tracking.smoothing import SIGMA_S
from export3d.video import VideoReader

Result = TypeVar("Result")

STILL_VIDEO_S = 2.0
"""Length of a film that is driven by a photo."""

KEPT_S = 3600
"""How long what was made can be fetched."""

LARGEST_PX = 1024
"""Largest film, pixels a side."""


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


@dataclass(frozen=True, kw_only=True)
class FilmWish:
    """What is asked of a film, in the words of `export3d animate`."""

    side_by_side: bool = False
    relative: bool = False
    take: Literal["both", "expression", "pose"] = "both"
    gaze: bool = True
    shift: bool = True
    smooth: bool = False
    whole_photo: bool = False
    size: int = 256
    on_lost: Literal["hold", "skip", "abort"] = "hold"


@dataclass
class Stage:
    """One client's animator and its portrait; its pictures go through the workshop's queue."""

    animator: Animator
    finish: Finish

    @property
    def subject(self) -> Subject:
        """The client's portrait."""
        if self.animator.subject is None:
            raise UsageError("choose a portrait first.")
        return self.animator.subject

    def picture(self, wish: Wish, size: int | None = None) -> np.ndarray:
        """The portrait as wished, labelled and marked, uint8 ``(S, S, 3)``; at its own size, at most `size`."""
        return self.finish.frame(self.bare(wish, size))

    def bare(self, wish: Wish, size: int | None = None) -> np.ndarray:
        """The same without label and mark."""
        state, camera = posed(self.animator.model, self.subject, wish)
        return self.shrunk(self.animator.frame(state, camera), size)

    def depth(self, wish: Wish) -> np.ndarray:
        """The depth of that view as a picture, light is near; the range is that of the photo's own view."""
        own = self.animator.render(self.subject.state, self.subject.camera)
        near, far = depth_range(*(part[0, 0].float().cpu().numpy() for part in (own.depth, own.opacity)))
        seen = self.animator.render(*posed(self.animator.model, self.subject, wish))
        depth, opacity = (part[0, 0].float().cpu().numpy() for part in (seen.depth, seen.opacity))
        assert seen.image is not None
        side = to_uint8(seen.image[0]).shape[0]
        return self.finish.frame(resize(depth_picture(depth, opacity, near, far), side, side))

    @staticmethod
    def shrunk(image: np.ndarray, size: int | None) -> np.ndarray:
        """The picture with at most so many pixels a side."""
        return image if size is None or image.shape[0] <= size else resize(image, size, size)


class Workshop:
    """Everything that clients share.

    Args:
        model: from `load_model`.
        make_tracker: a new tracker with a face finder of its own.
        limits: what one client may ask for.
        allowed: the only portraits that are taken; all when None.
        provenance: label, mark and manifest of what is made.
        model_path: goes into manifests by its hash.
    """

    def __init__(
        self,
        model: Model,
        make_tracker: Callable[[], Tracker],
        *,
        limits: Limits | None = None,
        allowed: AllowedSources | None = None,
        provenance: ProvenanceOptions | None = None,
        model_path: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.allowed = allowed
        self.make_tracker = make_tracker
        self.folder = Path(tempfile.mkdtemp(prefix="export3d-studio-"))
        self._provenance = provenance or ProvenanceOptions(label="AI-generated")
        self._model_path = model_path
        self._tracker = make_tracker()
        self._animator = Animator(model, self._tracker, detail=DETAIL_PX, allowed=allowed)
        self._portraits: OrderedDict[str, Subject] = OrderedDict()
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="studio")
        self._film = threading.Lock()
        self.clients = 0
        """Pages that are open."""
        self._film_tracker: Tracker | None = None

    @property
    def model(self) -> Model:
        """The one model."""
        return self._animator.model

    @property
    def extractor(self) -> Any:
        """What made beta, for motion files."""
        return self._tracker.info

    @property
    def filming(self) -> bool:
        """Whether a film is being made."""
        return self._film.locked()

    def submit(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Short work at the end of the queue."""
        return self._queue.submit(work, *given)

    def stage(self, photo: bytes, name: str) -> Stage:
        """A client's stage with the portrait in this picture file; in the queue's thread.

        Raises:
            Export3DError: The file or its face cannot be used, or this portrait is not allowed.
        """
        key = hashlib.sha256(photo).hexdigest()
        own = self._animator.twin()
        if key not in self._portraits:
            path = self.new_file(".picture")
            try:
                path.write_bytes(photo)
                self.check_photo(path, name)
                self._portraits[key] = own.portrait(path, where=name)
            except Export3DError as error:
                raise type(error)(str(error).replace(str(path), name)) from error
            finally:
                path.unlink(missing_ok=True)
        self._portraits.move_to_end(key)
        own.subject = self._portraits[key]
        while len(self._portraits) > self.limits.portraits:
            self._portraits.popitem(last=False)
        return Stage(own, self.finish())

    def finish(self, **facts: Any) -> Finish:
        """Label, mark and manifest of one output."""
        return Finish(self._provenance, Facts(model=self._model_path, consent=self._provenance.consent or "", **facts))

    def new_file(self, suffix: str) -> Path:
        """A name in the workshop's folder that nobody has; what is older than an hour goes."""
        for path in self.folder.iterdir():
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()
        return self.folder / f"{uuid.uuid4().hex}{suffix}"

    def film(
        self,
        source: Path,
        driving: Path,
        wish: FilmWish,
        tell: Callable[[int, int | None], None],
        stop: threading.Event,
    ) -> tuple[Path, list[str]]:
        """The portrait, driven by the file, as an .mp4 in the workshop's folder, and what there is to say of it.

        Raises:
            Export3DError: As `export3d animate` does, and for what is over the limits.
            Stopped: `stop` was set.
        """
        self.check_photo(source, source.name)
        with self._film:
            animator = self._for_film(wish.size, apart=wish.whole_photo)
            animator.portrait(source, where=source.name)
            driver = self._driver(driving)
            finish = self.finish(source=source, driver=driving, composite=wish.side_by_side)
            try:
                made = self._animate(animator, driver, wish, finish, tell=self._teller(tell, driver, stop))
            finally:
                driver.close()
        said = list(driver.problems) + list(made.warnings)
        return made.path, said + ([f"no face in {made.lost} frames of the clip"] if made.lost else [])

    def turning(
        self,
        source: Path,
        orbit: OrbitOptions,
        size: int,
        *,
        depth: bool,
        tell: Callable[[int, int | None], None],
        stop: threading.Event,
    ) -> tuple[Path, list[str]]:
        """The portrait from a camera that goes round it, as an .mp4; raises as `film` does."""
        self.check_photo(source, source.name)
        with self._film:
            animator = self._for_film(size)
            animator.portrait(source, where=source.name)
            path, finish = self.new_file(".mp4"), self.finish(source=source)

            def check(done: int) -> None:
                if stop.is_set():
                    raise Stopped
                tell(done, orbit.num_frames)

            how = {"orbit": orbit, "video": VideoOptions(size=size), "fps": Fraction(25), "with_depth": depth}
            made = orbit_video(animator, path, **how, finish=finish, progress=check)
        return made.path, list(made.warnings)

    def check_photo(self, path: Path, name: str) -> None:
        """Refuse a photo with too many pixels before it is decoded."""
        with open_picture(path, name) as opened:
            width, height = opened.size
        if width * height > self.limits.megapixels * 1e6:
            raise ImageSizeError(
                f"{name}: {width}x{height} pixels; this studio takes photos of at most {self.limits.megapixels:g} "
                "megapixels. Make it smaller first."
            )

    def close(self) -> None:
        """End the queue, free the trackers and remove all files."""
        self._queue.shutdown(cancel_futures=True)
        for tracker in (self._tracker, self._film_tracker):
            if tracker is not None:
                tracker.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _for_film(self, size: int, apart: bool = False) -> Animator:
        if not 64 <= size <= LARGEST_PX:
            raise UsageError(f"size must be from 64 to {LARGEST_PX} pixels; got {size}.")
        if self._film_tracker is None:
            self._film_tracker = self.make_tracker()
        animator = self._animator.twin()
        animator.tracker, animator.subject = self._film_tracker, None
        animator.detail, animator.apart = (DETAIL_PX if apart else size), apart
        return animator

    def _driver(self, driving: Path) -> Driver:
        tracker = self._film_tracker
        assert tracker is not None
        driver = open_driver(
            driving,
            lambda: Tracker(tracker.face_tracker, tracker.coefficients, choice="largest"),
            expression_space=self.model.config.expression.space,
            still_seconds=STILL_VIDEO_S,
        )
        try:
            self._check_length(driver, driving)
        except BaseException:
            driver.close()
            raise
        return driver

    def _check_length(self, driver: Driver, driving: Path) -> None:
        limit = self.limits.seconds
        if driver.num_frames_hint is not None and driver.num_frames_hint / float(driver.fps) > limit:
            seconds = driver.num_frames_hint / float(driver.fps)
            raise UsageError(
                f"{driving.name}: {seconds:.0f} seconds long; this studio takes clips of at most {limit:g}. Cut it first."
            )
        if isinstance(driver, ClipDriver):
            with VideoReader(driving) as reader:
                size = (reader.width, reader.height)
            if size[0] * size[1] > self.limits.megapixels * 1e6 / 5:
                raise UsageError(
                    f"{driving.name}: frames of {size[0]}x{size[1]} pixels are too large for this studio. "
                    "Make the clip smaller first."
                )

    def _teller(
        self, tell: Callable[[int, int | None], None], driver: Driver, stop: threading.Event
    ) -> Callable[[int], None]:
        longest = self.limits.seconds * float(driver.fps)

        def told(done: int) -> None:
            if stop.is_set():
                raise Stopped
            if done > longest:
                raise UsageError(f"the clip is longer than {self.limits.seconds:g} seconds. Cut it first.")
            tell(done, driver.num_frames_hint)

        return told

    def _animate(
        self, animator: Animator, driver: Driver, wish: FilmWish, finish: Finish, *, tell: Callable[[int], None]
    ) -> Any:
        framing: Literal["photo", "face"] = "photo" if wish.whole_photo else "face"
        return animate_video(
            animator,
            driver,
            self.new_file(".mp4"),
            video=VideoOptions(
                size=None if wish.whole_photo else wish.size, framing=framing, side_by_side=wish.side_by_side
            ),
            motion=TransferOptions(
                expression_only=wish.take == "expression",
                pose_only=wish.take == "pose",
                relative=wish.relative,
                gaze=wish.gaze,
                shift=wish.shift,
                smooth_s=SIGMA_S if wish.smooth else 0.0,
            ),
            on_lost=wish.on_lost,
            finish=finish,
            progress=tell,
        )
