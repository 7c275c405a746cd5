"""Videos whose "face" is a magenta patch, and a tracker that finds it: real pixels, no weights, a millisecond a frame."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from clips import face_points, make_clip
from export3d.files import temporary_beside
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.tools import Tools
from export3d.tracking import ExtractorInfo, Face
from export3d.tracking.standin import MeasuredCoefficients, face_from_landmarks

OPTIONS = PrepareOptions(size=32, min_frames=5, max_frames=20, min_face_px=10, min_sharpness=0, max_outside=1.0)
SHAPE = (96, 128)


class PatchTracker:
    """A `FaceTracker`: each run of columns with magenta pixels is a face; its green is how far the mouth is open.

    With `deadly`, a frame with pure green pixels kills the process, as a fault in a decoder would.
    """

    def __init__(self, deadly: bool = False) -> None:
        self.info = ExtractorInfo("patch-tracker", "1", "", "")
        self._deadly = deadly

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        red, green, blue = (frame[..., i].astype(int) for i in range(3))
        if self._deadly and ((green > 200) & (red < 80) & (blue < 80)).sum() > 50:
            os._exit(9)
        mask = (red > 150) & (blue > 150) & (green < 130)
        columns = np.flatnonzero(mask.sum(axis=0) > 4)
        faces = []
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 3) + 1):
            if len(run) < 8:
                continue
            rows = np.flatnonzero(mask[:, run].sum(axis=1) > 4)
            x, y, half = run.mean() + 0.5, rows.mean() + 0.5, (run[-1] - run[0] + 1) / 2
            mouth = float(green[rows[0] : rows[-1] + 1, run[0] : run[-1] + 1].mean()) / 255
            faces.append(face_from_landmarks(face_points((x, y - half / 4), half * 0.9, mouth)))
        return faces

    def reset(self) -> None: ...

    def close(self) -> None: ...


def make_patch_tools(options: PrepareOptions) -> Tools:
    """A `ToolMaker`."""
    return Tools(PatchTracker(), MeasuredCoefficients())


def make_tools_and_begin_a_file(folder: Path, options: PrepareOptions) -> Tools:
    """With the folder given, a `ToolMaker` that leaves what a process leaves that is ended while it writes."""
    temporary_beside(folder / "a.json").write_bytes(b"half of i")
    return make_patch_tools(options)


def make_deadly_tools(options: PrepareOptions) -> Tools:
    """A `ToolMaker` whose tracker kills the process at a green frame."""
    return Tools(PatchTracker(deadly=True), MeasuredCoefficients())


def make_no_tools(options: PrepareOptions) -> Tools:
    """A `ToolMaker` that ends its process."""
    raise SystemExit(3)


def patch_frame(
    x: float, y: float, half: int = 18, *, mouth: int = 40, background: int = 60, shape: tuple[int, int] = SHAPE
) -> np.ndarray:
    """A grey frame with one magenta square around (x, y)."""
    frame = np.full((*shape, 3), background, np.uint8)
    return add_patch(frame, x, y, half, mouth=mouth)


def add_patch(frame: np.ndarray, x: float, y: float, half: int = 18, *, mouth: int = 40) -> np.ndarray:
    """Draw another square into a frame."""
    top, left = max(int(y - half), 0), max(int(x - half), 0)
    frame[top : int(y + half), left : int(x + half)] = (230, mouth, 230)
    return frame


def moving_patch(num_frames: int, seed: int = 0, **keywords: int) -> list[np.ndarray]:
    """A patch that wanders and opens its mouth."""
    phase = seed * 1.7
    return [
        patch_frame(
            64 + 15 * np.sin(t / 5 + phase), 48 + 8 * np.cos(t / 4 + phase), mouth=30 + (t * 7) % 60, **keywords
        )
        for t in range(num_frames)
    ]


def write_patch_video(path: Path, num_frames: int = 12, *, fps: Fraction | int = 25, seed: int = 0) -> Path:
    """A video of `moving_patch`."""
    return make_clip(path, frames=moving_patch(num_frames, seed), fps=fps, audio=None)
