"""Whom a tracker follows: whether a face is the one of the frames before, by place, size and look (no paper section)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from export3d.landmarks import LEFT_EYE, RIGHT_EYE
from export3d.tracking.faces import Face, box_overlap
from export3d.tracking.selection import FOLLOW_OVERLAP, nearest_face

MAX_SIZE_CHANGE = 1.6
"""From one frame to the next, or over a gap at the same place, a face grows or shrinks by no more than this."""

MAX_SIZE_CHANGE_ELSEWHERE = 4.0
"""The same for a face that comes back at another place, or after a cut."""

ALIKE = 0.5
"""Least likeness of a face that comes back elsewhere or after a cut. Measured: two people have 0.13 (median) and 0.42 (nine
of ten), one person over a clip 0.52 and more."""

ALIKE_IN_PLACE = 0.2
"""Least likeness after a gap at the same place."""

_GRID = 24
_LOOKS_EVERY = 25


class Followed:
    """The face that is followed, and what it looked like.

    Args:
        face: where it is chosen.
        frame: the frame it was chosen in, uint8 ``(H, W, 3)``.
    """

    def __init__(self, face: Face, frame: np.ndarray) -> None:
        self.face = face
        self.present = True
        self._looks = [look_of(frame, face)]
        self._age = 0

    def find(self, faces: Sequence[Face], frame: np.ndarray, *, cut: bool) -> Face | None:
        """The followed face among those of the next frame, or None where it is not there; remembers the answer.

        Args:
            cut: whether the frame is the first of another shot, in which places mean nothing.
        """
        same = [face for face in faces if self._is_same(face, frame, cut)]
        self.present = bool(same)
        if not same:
            return None
        self.face = nearest_face(same, self.face.box)
        self._age += 1
        if self._age % _LOOKS_EVERY == 0:
            self._looks = [self._looks[0], look_of(frame, self.face)]
        return self.face

    def _is_same(self, face: Face, frame: np.ndarray, cut: bool) -> bool:
        change = max(face.size_px, 1e-6) / max(self.face.size_px, 1e-6)
        change = max(change, 1.0 / change)
        in_place = not cut and box_overlap(face.box, self.face.box) >= FOLLOW_OVERLAP and change <= MAX_SIZE_CHANGE
        if in_place and self.present:
            return True
        if not in_place and change > MAX_SIZE_CHANGE_ELSEWHERE:
            return False
        look = look_of(frame, face)
        likeness = max(float((look * known).sum()) for known in self._looks)
        blank = not look.any()
        return (in_place and (blank or likeness >= ALIKE_IN_PLACE)) or likeness >= ALIKE


def look_of(frame: np.ndarray, face: Face) -> np.ndarray:
    """``(24, 24, 3)`` the colours of a face from its brows to its mouth, levelled, mean 0 per colour and length 1; zero
    where there is nothing to see. The product of two is their likeness, at most 1."""
    points = face.landmarks_px.astype(np.float64)
    left, right, mouth = points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0), points[48:60].mean(axis=0)
    middle, across = (left + right) / 2.0, (right - left) / 2.0
    columns, rows = np.linspace(-1.8, 1.8, _GRID), np.linspace(-0.6, 1.5, _GRID)
    grid = middle + columns[None, :, None] * across + rows[:, None, None] * (mouth - middle)
    low = np.clip(np.floor(grid.min(axis=(0, 1))), 0, [frame.shape[1] - 1, frame.shape[0] - 1]).astype(int)
    high = np.clip(np.ceil(grid.max(axis=(0, 1))) + 1, low + 1, [frame.shape[1], frame.shape[0]]).astype(int)
    factor = max(int(np.linalg.norm(across) * 3.6 / _GRID), 1)
    part = np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])
    small = np.asarray(Image.fromarray(part).reduce(factor), dtype=np.float64)
    x, y = np.moveaxis(((grid - low) / factor).astype(int), 2, 0)
    seen = small[np.clip(y, 0, small.shape[0] - 1), np.clip(x, 0, small.shape[1] - 1)]
    seen -= seen.mean(axis=(0, 1))
    length = float(np.linalg.norm(seen))
    look: np.ndarray = seen / length if length > 1.0 else np.zeros_like(seen)
    return look
