"""Videos: a driven portrait or a turning head, written frame by frame; memory does not grow with their length."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d.animation.animator import Animator
from export3d.animation.backdrop import Backdrop
from export3d.animation.compose import depth_picture, depth_range, resize
from export3d.animation.driven import driven_frames
from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.long_film import for_film
from export3d.animation.parallel import READ_AHEAD, made_beside, read_ahead, threads_of
from export3d.animation.paths import OrbitOptions, orbit_cameras
from export3d.animation.scene import Scene
from export3d.animation.targets import check_target, finished, is_series, is_still, of_series, write_picture
from export3d.animation.transfer import TransferOptions
from export3d.errors import UsageError
from export3d.images import to_uint8
from export3d.model import Render
from export3d.provenance import Facts, Finish
from export3d.rendering.fused import fused_status, rgb_to_yuv
from export3d.tracking import LostFaces
from export3d.video import VideoWriter

MAX_SIZE_PX = 4096

Progress = Callable[[int], None]
"""Called after each frame with the number of frames written so far."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a video is put together and stored."""

    size: int | None = None
    """Height of the video in pixels (Lanczos); the model's own size when None, and the photo's where all of it is shown."""

    backdrop: Backdrop | None = None
    """What is behind the person instead of the photo's background."""

    side_by_side: bool = False
    """Show portrait and driving clip to the left of the result."""

    rigid: bool = False
    """Turn shoulders and light with the head, as if the camera went round the person."""

    crf: int = 18
    """H.264 quality, 0 (lossless) to 51."""

    threads: int = 0
    """Encoder threads; 0 lets the encoder choose."""

    workers: int = 0
    """Frames made side by side on a CPU, each with one thread; 0: as many as PyTorch has threads. 1: one after the other,
    each with all threads."""

    def __post_init__(self) -> None:
        if self.size is not None and not 16 <= self.size <= MAX_SIZE_PX:
            raise UsageError(f"--size must be from 16 to {MAX_SIZE_PX} pixels; got {self.size}.")
        if self.workers < 0:
            raise UsageError(f"workers must be 0 (automatic) or more; got {self.workers}.")
        if not 0 <= self.crf <= 51:
            raise UsageError(f"--crf must be from 0 (lossless) to 51 (worst); got {self.crf}.")


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """What was written.

    Attributes:
        frames: number of frames in the file.
        lost: number of the driver's frames without a face.
        gaps: first and last number of each run of such frames.
        others, cuts: lost frames that have another face; frames with which another shot begins.
        fps: nominal rate.
        width, height: pixels.
        seconds: wall-clock time from the first to the last frame, tracking and encoding included.
        warnings: why the file has no signed manifest, where it has none.
    """

    path: Path
    frames: int
    lost: int
    fps: Fraction
    width: int
    height: int
    seconds: float
    gaps: tuple[tuple[int, int], ...] = ()
    warnings: tuple[str, ...] = ()
    others: int = 0
    cuts: tuple[int, ...] = ()

    @property
    def ms_per_frame(self) -> float:
        """Average time for one frame, end to end."""
        return 1000.0 * self.seconds / max(self.frames, 1)


def animate_video(
    animator: Animator,
    driver: Driver,
    path: Path,
    *,
    video: VideoOptions,
    motion: TransferOptions,
    on_lost: str = "hold",
    finish: Finish | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """Drive the animator's portrait with every frame of a driver; `path` decides between video and still.

    A still shows the first frame that has a face. Frames and file pass `finish`; None is mark and manifest alone.

    Raises:
        NoFaceError, FaceLostError: See `LostFaces`.
        UsageError: Side by side with a driver that has no picture.
        OutputError: The file cannot be written; nothing is left behind.
    """
    subject, workers = animator.current(), video.workers or torch.get_num_threads()
    check_target(path, transparent=video.backdrop is not None and video.backdrop.picture is None)
    started = time.perf_counter()
    lost = LostFaces(on_lost, name=driver.name)
    frames = driven_frames(animator, driver, lost, motion=motion, rigid=video.rigid, pictures=video.side_by_side)
    finish = finish or Finish(facts=Facts(composite=video.side_by_side))
    clock = {"time_base": driver.time_base, "copy_audio_from": driver.audio}
    with Output(path, driver.fps, video, finish, **clock) as output, read_ahead(frames, READ_AHEAD) as frames:
        with threads_of(1):  # while the driver is being tracked
            scene = Scene.of(animator, subject, size=video.size, backdrop=video.backdrop, beside=video.side_by_side)
            maker = animator if is_still(path) else for_film(animator, driver.num_frames_hint, workers)
        picture = partial(scene.picture, name=driver.name)
        if is_still(path):
            output.write(next(picture(frame, animator) for frame in frames if frame.found))
        else:
            for frame, image in made_beside(maker, frames, picture, workers, ahead=_drive_ahead):
                output.write(image, frame.pts, frame.duration)
                if progress is not None:
                    progress(output.num_frames)
    return output.report(started, lost)


def _drive_ahead(frames: Sequence[DrivingFrame], worker: Animator) -> None:
    worker.drive_ahead([frame.state for frame in frames])


def orbit_video(
    animator: Animator,
    path: Path,
    *,
    orbit: OrbitOptions,
    video: VideoOptions,
    fps: Fraction,
    with_depth: bool = False,
    finish: Finish | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """The animator's portrait from a moving camera, its own expression kept; depth beside it on request.

    A still (`path` ends in .png or .jpg) shows the first view.
    """
    subject = animator.current()
    check_target(path)
    started = time.perf_counter()
    height = video.size or animator.image_size
    cameras = orbit_cameras(orbit).to_vector().numpy()
    first = animator.render(subject.state, cameras[0])
    limits = depth_range(*(part[0, 0].cpu().numpy() for part in (first.depth, first.opacity)))  # fixed: no flicker

    def picture(vector: np.ndarray, worker: Animator) -> np.ndarray:
        render = worker.render(subject.state, vector)
        assert render.image is not None  # only raw renderings have none
        panels = [resize(to_uint8(render.image[0]), height, height)]
        if with_depth:
            panels.append(render_depth(render, height, limits))
        return np.concatenate(panels, axis=1)

    with Output(path, fps, video, finish or Finish()) as output:
        if is_still(path):
            output.write(picture(cameras[0], animator))
        else:
            for _, image in made_beside(animator, cameras, picture, video.workers):
                output.write(image)
                if progress is not None:
                    progress(output.num_frames)
    return output.report(started)


class Output(ExitStack):
    """A video that is opened by its first picture, whose size it takes, a series of pictures, or a still."""

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        video: VideoOptions,
        finish: Finish,
        *,
        time_base: Fraction | None = None,
        copy_audio_from: Path | None = None,
    ) -> None:
        super().__init__()
        self.path, self.fps, self.num_frames, self._finish = path, fps, 0, finish
        self._size = (0, 0)
        stored = {"crf": video.crf, "threads": video.threads, "on_complete": finish.signer(path)}
        stored["to_yuv"] = rgb_to_yuv if fused_status()[0] else None
        self._open = partial(VideoWriter, path, fps, time_base=time_base, copy_audio_from=copy_audio_from, **stored)
        self._writer: VideoWriter | None = None

    def write(self, image: np.ndarray, pts: int | None = None, duration: int | None = None) -> None:
        """Add a picture, uint8 ``(H, W, 3)`` or, with an opacity, ``(H, W, 4)``; times are in units of the time base."""
        self._size = (image.shape[1], image.shape[0])
        self.num_frames += 1
        if (series := is_series(self.path)) or is_still(self.path):
            write_picture(of_series(self.path, self.num_frames) if series else self.path, image, self._finish)
            return
        if self._writer is None:
            self._writer = self.enter_context(self._open(size=self._size, transparent=image.shape[-1] == 4))
        self._writer.write(finished(image, self._finish), pts, duration)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool | None:
        if kind is not None and is_series(self.path):  # nothing half is left behind
            for number in range(self.num_frames):
                of_series(self.path, number + 1).unlink(missing_ok=True)
        return super().__exit__(kind, *rest)

    def report(self, started: float, lost: LostFaces | None = None) -> VideoReport:
        """What was written since `started` (`time.perf_counter`)."""
        seen = {} if lost is None else {"others": lost.num_other, "cuts": tuple(lost.cuts), "gaps": tuple(lost.gaps)}
        return VideoReport(
            path=self.path,
            frames=self.num_frames,
            lost=0 if lost is None else lost.num_lost,
            **seen,
            fps=self.fps,
            width=self._size[0],
            height=self._size[1],
            seconds=time.perf_counter() - started,
            warnings=tuple(self._finish.warnings),
        )


def render_depth(render: Render, height: int, limits: tuple[float, float] | None = None) -> np.ndarray:
    """The first rendering's depth as a uint8 picture ``(height, height, 3)``."""
    depth, opacity = render.depth[0, 0].cpu().numpy(), render.opacity[0, 0].cpu().numpy()
    near, far = limits or depth_range(depth, opacity)
    return resize(depth_picture(depth, opacity, near, far), height, height)
