"""Where the eyes look, from the face tracker's eye scores, by a linear map (no paper section).

The convention is that of the synthetic clips: radians in the head's frame, sideways (+ to the image right), then up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.tracking.linear_map import LinearMap

GAZE_LIMIT_RAD = 0.45
"""Answers go no further than this, sideways or up and down; the synthetic eyes turn no further either."""

CLOSED_ABOVE = 0.55
"""Blink score from which an eye tells nothing. Open ones of rendered heads have less than 0.4, closed ones about 0.6."""

EYE_SCORES = tuple(index for index, name in enumerate(BLENDSHAPE_NAMES) if name.startswith("eye"))
"""Which of the 52 scores the map reads."""

BLINKS = [BLENDSHAPE_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]
"""Places of the two blink scores."""


@dataclass(frozen=True, kw_only=True)
class GazeMap(LinearMap):
    """The map from the 52 scores to gaze, radians sideways and up; its weights are zero but for the eyes' scores."""

    NAME, COMMAND, VERSION = "gaze", "train-gaze", "2"
    SHAPES: ClassVar[dict[str, tuple[int, ...]]] = {"weight": (len(BLENDSHAPE_NAMES), 2), "bias": (2,)}

    def read(self, scores: np.ndarray) -> np.ndarray:
        """Scores ``(..., 52)`` in MediaPipe's order -> gaze ``(..., 2)`` float32; NaN where both eyes are closed."""
        if scores.shape[-1] != len(BLENDSHAPE_NAMES):
            raise ValueError(f"scores must have shape (..., {len(BLENDSHAPE_NAMES)}); got {scores.shape}")
        told = np.clip(scores @ self.weight + self.bias, -GAZE_LIMIT_RAD, GAZE_LIMIT_RAD)
        closed = (scores[..., BLINKS] > CLOSED_ABOVE).all(axis=-1, keepdims=True)
        return np.where(closed, np.nan, told).astype(np.float32)


def unknown_gaze() -> np.ndarray:
    """``(2,)`` float32 NaN: closed eyes, or a face tracker without scores."""
    return np.full(2, np.nan, dtype=np.float32)
