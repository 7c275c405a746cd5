"""Where the eyes look, from the face tracker's eye scores, by a linear map (no paper section).

The convention is that of the synthetic clips: radians in the head's frame, sideways (+ to the image right), then up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from export3d import __version__
from export3d.errors import CheckpointError
from export3d.reading import reading
from export3d.tensor_files import read_tensor_file, write_sealed
from export3d.tracking.faces import BLENDSHAPE_NAMES

FORMAT = "export3d-gaze"
VERSION = 2

GAZE_LIMIT_RAD = 0.45
"""Answers go no further than this, sideways or up and down; the synthetic eyes turn no further either."""

CLOSED_ABOVE = 0.55
"""Blink score from which an eye tells nothing. Open ones of rendered heads have less than 0.4, closed ones about 0.6."""

EYE_SCORES = tuple(index for index, name in enumerate(BLENDSHAPE_NAMES) if name.startswith("eye"))
"""Which of the 52 scores the map reads."""

BLINKS = [BLENDSHAPE_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]
"""Places of the two blink scores."""


@dataclass(frozen=True, kw_only=True)
class GazeMap:
    """The map from the eye scores to gaze."""

    weight: np.ndarray
    """``(52, 2)`` float32: radians sideways and up per score; zero but for the eyes' scores."""
    bias: np.ndarray
    """``(2,)`` float32 radians."""

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"GazeMap: {name} must be finite float32 of shape {shape}; got {array.shape}")

    def read(self, scores: np.ndarray) -> np.ndarray:
        """Scores ``(..., 52)`` in MediaPipe's order -> gaze ``(..., 2)`` float32; NaN where both eyes are closed."""
        if scores.shape[-1] != len(BLENDSHAPE_NAMES):
            raise ValueError(f"scores must have shape (..., {len(BLENDSHAPE_NAMES)}); got {scores.shape}")
        told = np.clip(scores @ self.weight + self.bias, -GAZE_LIMIT_RAD, GAZE_LIMIT_RAD)
        closed = (scores[..., BLINKS] > CLOSED_ABOVE).all(axis=-1, keepdims=True)
        return np.where(closed, np.nan, told).astype(np.float32)

    def save(self, path: str | Path) -> str:
        """Write a safetensors file under a temporary name, rename it, and return its SHA-256."""
        metadata = {"format": FORMAT, "version": str(VERSION), "created_by": f"export3d {__version__}"}
        return write_sealed(path, metadata, {name: getattr(self, name) for name in _SHAPES})

    @staticmethod
    def load(path: str | Path | None = None) -> GazeMap:
        """Read a file of :meth:`save`; None is the bundled one.

        Raises:
            CheckpointError: Missing, damaged, another format or version, or arrays of wrong names or shapes.
        """
        return _load_bundled() if path is None else _load(Path(path))


_SHAPES: dict[str, tuple[int, ...]] = {"weight": (len(BLENDSHAPE_NAMES), 2), "bias": (2,)}


def unknown_gaze() -> np.ndarray:
    """``(2,)`` float32 NaN: closed eyes, or a face tracker without scores."""
    return np.full(2, np.nan, dtype=np.float32)


@cache
def _load_bundled() -> GazeMap:
    return _load(Path(__file__).resolve().parent.parent / "assets" / "gaze.safetensors")


def _load(path: Path) -> GazeMap:
    _, arrays = read_tensor_file(
        path,
        kind="gaze",
        format_name=FORMAT,
        version=str(VERSION),
        error=CheckpointError,
        remedy="Install export3d again, or run: export3d train-gaze",
    )
    with reading(path, "not the arrays of a gaze map", CheckpointError, "Make it again."):
        return GazeMap(**arrays)
