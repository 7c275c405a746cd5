"""Pictures and videos made in code: soft blobs of all sizes, a little like a photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from export3d.video import VideoReader, VideoWriter


def a_picture(seed: int = 0, size: int = 256) -> np.ndarray:
    """uint8 ``(size, size, 3)``."""
    generator = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for cells in (3, 6, 12, 25, 60):
        noise = generator.normal(size=(cells, cells, 3)).astype(np.float32)
        planes = [Image.fromarray(noise[..., c]).resize((size, size), Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(plane) for plane in planes], axis=-1) / cells
    return np.clip(128 + 250 * total, 0, 255).astype(np.uint8)


def a_video(seed: int = 0, num_frames: int = 12, size: int = 256) -> list[np.ndarray]:
    """A picture that moves one pixel a frame."""
    picture = a_picture(seed, size + num_frames)
    return [np.ascontiguousarray(picture[i : i + size, i : i + size]) for i in range(num_frames)]


def resized(frames: list[np.ndarray], width: int, height: int) -> list[np.ndarray]:
    """The frames at another size."""
    return [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC)) for f in frames]


def encode(path: Path, frames: list[np.ndarray], crf: int = 18) -> Path:
    """Write a video."""
    with VideoWriter(path, 25, (frames[0].shape[1], frames[0].shape[0]), crf=crf, threads=1) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def through_h264(path: Path, frames: list[np.ndarray], crf: int) -> list[np.ndarray]:
    """The frames as they come out of a video of that quality."""
    with VideoReader(encode(path, frames, crf)) as reader:
        return [frame.image for frame in reader]
