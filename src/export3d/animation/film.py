"""Films: a driven portrait or a turning head, written frame by frame; memory does not grow with their length."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export3d.animation.animator import Animator, head_turn
from export3d.animation.compose import depth_picture, depth_range, fit_height, resize, side_by_side
from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.lost import LostFaces
from export3d.animation.parallel import in_order, one_thread_each
from export3d.animation.paths import OrbitOptions, orbit_cameras
from export3d.animation.transfer import TransferOptions, transfer
from export3d.errors import UsageError
from export3d.files import write_atomically
from export3d.images import to_uint8
from export3d.model import Render
from export3d.video import VideoWriter, check_video_target, check_writable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Output names that ask for a still picture."""

MAX_SIZE_PX = 4096

Progress = Callable[[int], None]
"""Called after each frame with the number of frames written so far."""


@dataclass(frozen=True, kw_only=True)
class FilmOptions:
    """How a film is put together and stored."""

    size: int | None = None
    """Height of the film in pixels (Lanczos); the model's own size when None."""

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
class FilmReport:
    """What was written.

    Attributes:
        frames: number of frames in the file.
        lost: number of the driver's frames without a face.
        gaps: first and last number of each run of such frames.
        others: how many of them have another face.
        cuts: frames with which another shot of the driver begins.
        fps: nominal rate.
        width, height: pixels.
        seconds: wall-clock time from the first to the last frame, tracking and encoding included.
    """

    path: Path
    frames: int
    lost: int
    fps: Fraction
    width: int
    height: int
    seconds: float
    gaps: tuple[tuple[int, int], ...] = ()
    others: int = 0
    cuts: tuple[int, ...] = ()

    @property
    def ms_per_frame(self) -> float:
        """Average time for one frame, end to end."""
        return 1000.0 * self.seconds / max(self.frames, 1)


def is_still(path: Path) -> bool:
    """Whether the output's name asks for a picture rather than a film."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def check_target(path: Path) -> None:
    """Check an output name and its folder before any work.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The folder is missing or not writable.
    """
    if is_still(path):
        check_writable(path)
    else:
        check_video_target(path)


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a uint8 ``(H, W, 3)`` image under a temporary name, then rename it.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    check_writable(path)
    content = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(image).save(content, kind, quality=95)  # PNG ignores the quality
    write_atomically(path, content.getvalue(), "Free some disk space or choose another folder.")


def animate_film(
    animator: Animator,
    driver: Driver,
    path: Path,
    *,
    film: FilmOptions,
    motion: TransferOptions,
    on_lost: str = "hold",
    progress: Progress | None = None,
) -> FilmReport:
    """Drive the animator's portrait with every frame of a driver; `path` decides between film and still.

    A still shows the first frame that has a face.

    Raises:
        NoFaceError, FaceLostError: See `LostFaces`.
        UsageError: Side by side with a driver that has no picture.
        OutputError: The file cannot be written; nothing is left behind.
    """
    subject = animator.subject
    if subject is None:
        raise RuntimeError("animate_film: give the animator a portrait first")
    check_target(path)
    lost = LostFaces(on_lost, subject.beta, subject.camera, subject.gaze)
    started = time.perf_counter()
    height = film.size or animator.image_size
    own = subject.picture(height)
    own_motion = {"beta": subject.beta, "camera": subject.camera, "gaze": subject.gaze}
    frames = transfer(lost(driver), motion, **own_motion, time_base=driver.time_base)

    def picture(frame: DrivingFrame, painter: Animator = animator) -> np.ndarray:
        turn = None if film.rigid else head_turn(frame.camera)
        result = painter.frame(frame.beta, frame.camera, frame.gaze, turn)
        result = resize(subject.turned_back(result), height, height)
        if not film.side_by_side:
            return result
        if frame.image is None:
            raise UsageError(
                f"{driver.name}: --side-by-side needs the driving clip; a motion file holds no pictures. "
                "Give the clip itself, or leave --side-by-side out."
            )
        return side_by_side([own, fit_height(frame.image, height), result])

    if is_still(path):
        image = next(picture(frame) for frame in frames if frame.found)
        write_picture(path, image)
        written = 1
    else:
        with ExitStack() as stack:
            writer: VideoWriter | None = None
            painters = stack.enter_context(_painters(animator, film.workers))
            for frame, image in in_order(frames, [partial(picture, painter=painter) for painter in painters]):
                if writer is None:
                    writer = stack.enter_context(
                        VideoWriter(
                            path,
                            driver.fps,
                            (image.shape[1], image.shape[0]),
                            time_base=driver.time_base,
                            copy_audio_from=driver.audio,
                            crf=film.crf,
                            threads=film.threads,
                        )
                    )
                writer.write(image, frame.pts, frame.duration)
                if progress is not None:
                    progress(writer.num_frames)
        assert writer is not None  # a driver without frames has raised NoFaceError
        written = writer.num_frames
    return FilmReport(
        path=path,
        frames=written,
        lost=lost.num_lost,
        gaps=tuple(lost.gaps),
        others=lost.num_other,
        cuts=tuple(lost.cuts),
        fps=driver.fps,
        width=image.shape[1],
        height=image.shape[0],
        seconds=time.perf_counter() - started,
    )


def orbit_film(
    animator: Animator,
    path: Path,
    *,
    orbit: OrbitOptions,
    film: FilmOptions,
    fps: Fraction,
    with_depth: bool = False,
    progress: Progress | None = None,
) -> FilmReport:
    """Film the animator's portrait from a moving camera, its own expression kept; depth beside it on request.

    A still (`path` ends in .png or .jpg) shows the first view.
    """
    subject = animator.subject
    if subject is None:
        raise RuntimeError("orbit_film: give the animator a portrait first")
    check_target(path)
    started = time.perf_counter()
    height = film.size or animator.image_size
    cameras = orbit_cameras(orbit).to_vector().numpy()
    limits = _depth_limits(animator.render(subject.beta, cameras[0])) if with_depth else None  # fixed: no flicker

    def picture(vector: np.ndarray, painter: Animator) -> np.ndarray:
        render = painter.render(subject.beta, vector)
        assert render.image is not None  # only raw renderings have none
        panels = [resize(to_uint8(render.image[0]), height, height)]
        if with_depth:
            panels.append(render_depth(render, height, limits))
        return np.concatenate(panels, axis=1)

    with ExitStack() as stack:
        writer: VideoWriter | None = None
        painters = stack.enter_context(_painters(animator, film.workers))
        for _, image in in_order(cameras, [partial(picture, painter=painter) for painter in painters]):
            if is_still(path):
                write_picture(path, image)
                break
            if writer is None:
                size = (image.shape[1], image.shape[0])
                writer = stack.enter_context(VideoWriter(path, fps, size, crf=film.crf, threads=film.threads))
            writer.write(image)
            if progress is not None:
                progress(writer.num_frames)
    return FilmReport(
        path=path,
        frames=1 if writer is None else writer.num_frames,
        lost=0,
        fps=fps,
        width=image.shape[1],
        height=image.shape[0],
        seconds=time.perf_counter() - started,
    )


@contextmanager
def _painters(animator: Animator, workers: int) -> Iterator[list[Animator]]:
    """So many animators, each for a thread of its own, or the given one alone on an accelerator."""
    workers = (workers or torch.get_num_threads()) if animator.device.type == "cpu" else 1
    with one_thread_each(workers):
        yield [animator] if workers == 1 else [animator.twin() for _ in range(workers)]


def render_depth(render: Render, height: int, limits: tuple[float, float] | None = None) -> np.ndarray:
    """The first rendering's depth as a uint8 picture ``(height, height, 3)``."""
    depth, opacity = render.depth[0, 0].cpu().numpy(), render.opacity[0, 0].cpu().numpy()
    near, far = limits or depth_range(depth, opacity)
    return resize(depth_picture(depth, opacity, near, far), height, height)


def _depth_limits(render: Render) -> tuple[float, float]:
    return depth_range(render.depth[0, 0].cpu().numpy(), render.opacity[0, 0].cpu().numpy())
