"""How far a face goes from one frame to the next, by the pictures alone: one step of Lucas and Kanade (1981), repeated."""

from __future__ import annotations

import numpy as np
from PIL import Image

from export3d.tracking.faces import Face

_SIDE, _ROOM = 32, 6
"""The face's square in the picture that is compared, and how far it may go there, pixels of it."""

_LARGER = 1.1
"""Side of that square over the face's size."""

_STEPS, _NEAR = 4, 0.03
"""Most steps, and the length of one, in pixels of that picture, after which there is no other."""


def displacement(before: np.ndarray, now: np.ndarray, face: Face) -> np.ndarray:
    """``(2,)`` whole pixels, right and down, by which what shows a `face` of the frame `before` lies elsewhere in the frame `now`,
    both uint8 ``(H, W, 3)``; 0 where it goes farther than a fifth of its size, or nothing is to be seen."""
    step = max(round(_LARGER * face.size_px / (2.0 * _SIDE)), 1)
    corner = np.round(face.centre - step * (_SIDE + 2 * _ROOM)).astype(int)
    old, new = (_small(frame, corner[0], corner[1], step) for frame in (before, now))
    inner = slice(_ROOM, -_ROOM)
    across, down = (old[inner, _ROOM + 1 : 1 - _ROOM] - old[inner, _ROOM - 1 : -_ROOM - 1]) / 2.0, (
        old[_ROOM + 1 : 1 - _ROOM, inner] - old[_ROOM - 1 : -_ROOM - 1, inner]
    ) / 2.0
    slopes = np.stack([(slope - slope.mean()).ravel() for slope in (across, down)])
    (xx, xy), (_, yy) = (slopes @ slopes.T).tolist()
    area, x, y = xx * yy - xy * xy, 0.0, 0.0
    if area <= 1e-6:
        return np.zeros(2, int)
    for _ in range(_STEPS):
        i, j = _ROOM + int(np.floor(x)), _ROOM + int(np.floor(y))
        seen = new[max(j, 0) : j + _SIDE + 1, max(i, 0) : i + _SIDE + 1]
        if seen.shape != (_SIDE + 1, _SIDE + 1):
            return np.zeros(2, int)
        seen = seen[:, :-1] + (x % 1.0) * (seen[:, 1:] - seen[:, :-1])
        seen = seen[:-1] + (y % 1.0) * (seen[1:] - seen[:-1])
        off_x, off_y = (slopes @ (seen - old[inner, inner]).ravel()).tolist()
        x, y, was = x - (yy * off_x - xy * off_y) / area, y - (xx * off_y - xy * off_x) / area, (x, y)
        if max(abs(x - was[0]), abs(y - was[1])) < _NEAR:
            break
    return np.round(np.array([x, y]) * 2 * step).astype(int)


def _small(frame: np.ndarray, x: int, y: int, step: int) -> np.ndarray:
    """float32 ``(44, 44)`` of a square of the frame's green from its corner on, reduced; edges of the frame go on outside."""
    side = 2 * step * (_SIDE + 2 * _ROOM)
    part = frame[max(y, 0) : max(y + side, 0) : 2, max(x, 0) : max(x + side, 0) : 2, 1]
    missing = ((max(-y, 0) + 1) // 2, (max(-x, 0) + 1) // 2)
    if part.shape != (side // 2, side // 2):
        room = [(low, side // 2 - low - size) for low, size in zip(missing, part.shape, strict=True)]
        part = np.pad(part, np.maximum(room, 0), mode="edge" if part.size else "constant")[: side // 2, : side // 2]
    small = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(small.reduce(step) if step > 1 else small, dtype=np.float32)
