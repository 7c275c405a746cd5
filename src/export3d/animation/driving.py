"""What a driver is: a stream of driving frames and its clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from export3d.expression.spaces import BETA_DIM
from export3d.face_state import FaceState
from export3d.tracking import Crop


@dataclass(frozen=True, kw_only=True)
class DrivingFrame:
    """One moment of the driving motion.

    Attributes:
        state: the driver's face (B = 1).
        camera: ``(25,)`` float32.
        found: false where no face was found; face and camera mean nothing then.
        index: number of the frame in the clip, from 0.
        pts, duration: in units of the driver's time base.
        image: the frame itself, uint8 ``(H, W, 3)``, or None where there is none (motion files).
    """

    state: FaceState
    camera: np.ndarray
    found: bool
    index: int
    pts: int
    duration: int
    image: np.ndarray | None = None
    crop: Crop | None = None
    """The square of the driver's frame that the camera belongs to; None where nothing is known of it."""
    landmarks: np.ndarray | None = None
    """``(68, 2)`` in [0, 1] of the crop; of clips only."""
    cut: bool = False
    """Whether another shot begins with this frame."""
    other: bool = False
    """Whether the frame has a face, but not the one that is followed."""
    voiced: bool = False
    """Whether lips and jaw are a voice's among a picture's other scores: true weights, counted from rest."""


class Driver(Protocol):
    """A stream of driving frames and its clock."""

    name: str
    fps: Fraction
    time_base: Fraction
    num_frames_hint: int | None
    audio: Path | None
    problems: tuple[str, ...]
    """What of the file was damaged and left out; complete after the last frame."""
    relative_only: bool
    """Whether it tells movements and nobody's face, as a voice does; a portrait takes them relative to its own face then."""

    def __iter__(self) -> Iterator[DrivingFrame]: ...

    def close(self) -> None: ...


def told_state(weights: np.ndarray, gaze: np.ndarray) -> FaceState:
    """A face (B = 1) of which single weights ``(52,)`` and gaze ``(2,)`` are known, and not beta."""
    return FaceState.of(beta=np.full(BETA_DIM, np.nan), weights=weights, gaze=gaze)
