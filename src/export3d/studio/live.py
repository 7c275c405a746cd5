"""Live: pictures of a webcam drive the portrait one by one; what is shown can be recorded, and sent out as a camera."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from msgspec import Meta
from PIL import Image

from export3d.animation import DrivingFrame, TransferOptions
from export3d.animation.driven import within_reach
from export3d.animation.framing import turned_by
from export3d.animation.lost import hold_lost
from export3d.animation.parallel import threads_of
from export3d.animation.regions import REGIONS
from export3d.animation.transfer import transfer
from export3d.errors import MissingExtraError, OutputError, UsageError
from export3d.face_state import FaceState
from export3d.images import open_picture
from export3d.provenance import Finish
from export3d.studio.workshop import Stage
from export3d.tracking import LostFaces, TrackedFrame, Tracker
from export3d.video import VideoWriter

CLOCK = Fraction(1, 1000)
MAX_FRAME_PIXELS = 2_100_000
"""A camera picture of full HD."""


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How the webcam reaches the portrait.

    Attributes:
        relative: from the resting face that was shown last, not as it is.
        strength: how far the face goes, 1 is as far as the driver's.
        pose: whether the head turns with the driver's.
        shift: whether it also moves in the picture.
        freeze: show the last picture again.
        size: largest side, pixels.
    """

    relative: bool = False
    strength: Annotated[float, Meta(ge=0.0, le=2.0)] = 1.0
    pose: bool = True
    shift: bool = False
    freeze: bool = False
    size: Annotated[int, Meta(ge=64, le=512)] = 512


class Live:
    """One client's webcam and what it drives: `look` runs in the thread that looks, all else in the queue's."""

    name = "the webcam"
    time_base = CLOCK

    def __init__(self, stage: Stage, tracker: Tracker) -> None:
        self.stage, self.tracker = stage, tracker
        self.options = LiveOptions()
        self.found = False
        self._now: DrivingFrame | None = None
        self._last: np.ndarray | None = None
        self._index = 0
        self.restart()

    def restart(self) -> None:
        """The next face is the resting face of relative motion; also after another portrait or other options."""
        subject, options = self.stage.subject, self.options
        frames = hold_lost(self, LostFaces("hold", name=self.name), subject.state, subject.camera)  # type: ignore[arg-type]
        strengths = {region: 1.0 if options.pose or region != "pose" else 0.0 for region in REGIONS}
        motion = TransferOptions(relative=options.relative, strengths=strengths, shift=options.shift and options.pose)
        portrait = {"own": subject.state, "camera": subject.camera, "maps": self.stage.animator.weight_maps}
        self._driven = within_reach(transfer(frames, motion, time_base=CLOCK, **portrait), self.stage.animator, motion)

    def set(self, options: LiveOptions) -> None:
        """Other options; the resting face stays where it can."""
        moved = any(getattr(options, name) != getattr(self.options, name) for name in ("relative", "pose", "shift"))
        self.options = options
        if moved:
            self.restart()

    def __iter__(self) -> Iterator[DrivingFrame]:
        """The camera's pictures as the transfer reads them: always the one that is being worked on."""
        while self._now is not None:
            yield self._now

    def look(self, picture: bytes) -> TrackedFrame | None:
        """The face of this JPEG or PNG picture; None while the picture is frozen. Pictures come in their order."""
        if self.options.freeze and self._last is not None:
            return None
        with open_picture(picture, self.name) as opened:
            if opened.width * opened.height > MAX_FRAME_PIXELS:
                raise UsageError(
                    f"{self.name}: pictures of {opened.width}x{opened.height} are too large; at most full HD."
                )
            image = np.array(opened.convert("RGB"))
        return self.tracker.frame(image, where=self.name)

    def show(self, seen: TrackedFrame | None) -> np.ndarray:
        """The portrait with the face that was seen, uint8 ``(S, S, 3)``; the last picture again for None."""
        if seen is None:
            assert self._last is not None
            return self._last
        self.found = seen.found
        self._now = DrivingFrame(
            state=seen.state,
            camera=seen.camera,
            found=seen.found,
            index=self._index,
            pts=round(1000 * time.monotonic()),
            duration=40,
            crop=seen.crop,
            cut=False,  # a webcam has no shots
            other=seen.other,
        )
        self._index += 1
        driven = next(self._driven)
        state = self._strong(driven.state)
        animator = self.stage.animator
        with threads_of(max(torch.get_num_threads() // 2, 1)):  # the rest is for the browser and the next face
            picture_of = animator.frame(turned_by(state, driven.camera), driven.camera)
        self._last = self.stage.finish.frame(self.stage.shrunk(picture_of, self.options.size))
        return self._last

    def close(self) -> None:
        """Free the tracker."""
        self.tracker.close()

    def _strong(self, state: FaceState) -> FaceState:
        strength, own = self.options.strength, self.stage.subject.state
        if strength == 1.0:
            return state
        return FaceState.combine(lambda now, start: start + strength * (now - start), state, replace(own, turn=None))


class Recording:
    """Pictures as they were shown, kept on disk until they become a film."""

    def __init__(self, path: Path, longest_s: float) -> None:
        self._path, self._longest_s = path, longest_s
        self._file = open(path, "wb")
        self._parts: list[tuple[int, int]] = []  # milliseconds, bytes
        self._start = time.monotonic()

    def add(self, jpeg: bytes) -> None:
        """The next picture, now; those after the longest time are left out."""
        ms = round(1000 * (time.monotonic() - self._start))
        if ms <= 1000 * self._longest_s and (not self._parts or ms > self._parts[-1][0]):
            self._file.write(jpeg)
            self._parts.append((ms, len(jpeg)))

    def write_video(self, path: Path, finish: Finish, sound: Path | None) -> int:
        """Write the film; its pictures carry label and mark already. Returns its number of frames.

        Raises:
            OutputError: Nothing was shown.
        """
        self._file.close()
        if not self._parts:
            raise OutputError("nothing was shown while it was recorded, so there is no film. Start the camera first.")
        writer: VideoWriter | None = None
        zero = self._parts[0][0]
        span = max(self._parts[-1][0] - zero, 40)
        rate = Fraction(max(round(1000 * len(self._parts) / span), 1))
        with open(self._path, "rb") as file:
            try:
                for ms, size in self._parts:
                    image = np.array(Image.open(io.BytesIO(file.read(size)), formats=["JPEG"]).convert("RGB"))
                    if writer is None:
                        shape = (image.shape[1], image.shape[0])
                        done = finish.signer(path)
                        writer = VideoWriter(
                            path, rate, shape, time_base=CLOCK, copy_audio_from=sound, on_complete=done
                        )
                    if (image.shape[1], image.shape[0]) == writer.size:  # the size may be changed while it is recorded
                        writer.write(image, ms - zero)
                assert writer is not None
                writer.close()
            except BaseException:
                if writer is not None:
                    writer.abort()
                raise
        return writer.num_frames

    def close(self) -> None:
        """Forget it."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Camera(Protocol):
    """What `pyvirtualcam.Camera` is here."""

    width: int
    height: int

    def send(self, frame: np.ndarray) -> None: ...

    def close(self) -> None: ...


def open_virtual_camera(size: int, module: Any = None) -> Camera:
    """A camera of this computer that other programs can choose.

    Args:
        module: in place of pyvirtualcam, for tests.

    Raises:
        MissingExtraError: pyvirtualcam is not installed.
        OutputError: There is no camera to write to.
    """
    if module is None:
        try:
            import pyvirtualcam as module  # type: ignore[import-not-found]
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                'a virtual camera needs the package pyvirtualcam (GPL-2). Run: pip install "export3d[virtual-camera]"'
            ) from error
    try:
        return module.Camera(width=size, height=size, fps=20)
    except Exception as error:  # each operating system's back end has its own
        raise OutputError(
            f"no virtual camera could be opened ({error}). Linux: sudo modprobe v4l2loopback. "
            "macOS and Windows: install OBS and start its virtual camera once."
        ) from error


def jpeg(image: np.ndarray, quality: int = 88) -> bytes:
    """A picture as it is sent."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
