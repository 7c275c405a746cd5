"""The skin of the procedural head: one grid, slit at mouth and eyes, with landmarks, tags and texture (head of Eq. 11).

Columns are angles around the head, rows are heights on the face. In a slit the vertices exist twice and can move apart.
Units are centimetres, as in ICT-FaceKit, and the features lie at about the same places, so that appearance and camera
need not know which head they get.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export3d.heads.shape.procedural_modes import EYES, LID_RADIUS, SkinTags, lift_off_eyes, smoothstep

_HALF = (0.0, 4.5, 9.0, 13.3, 18.0, 23.0, 28.0, 32.0, 35.5, 42.0, 50.0, 60.0, 72.0, 86.0, 102.0, 120.0, 140.0, 160.0)
_COLUMNS = np.array([-180.0, *(-c for c in reversed(_HALF[1:])), *_HALF])  # degrees, 0 is the front
# fmt: off
_ROWS = np.array([
    14.3, 13.0, 11.6, 10.2, 8.8, 7.6, 6.7, 6.0, 5.4, 4.8, 4.2, 3.4, 2.6, 1.8, 1.1, 0.4, -0.3, -0.8, -1.2, -1.8, -2.45,
    -2.95, -3.4, -3.85, -4.35, -5.0, -5.8, -6.7, -7.6, -8.2, -9.0, -10.2, -11.5, -13.0, -15.0, -17.0,
])  # cm, the height of each row on the midline
# Outline of the head at the heights of the first column: half width, front and back of the midline without features.
_OUTLINE = np.array([
    # y,   width, front, back
    [15.0,  1.5,   2.0,  -1.5], [14.3,  3.4,   4.2,  -3.2], [13.0,  5.2,   6.6,  -5.1], [11.6,  6.4,   8.2,  -6.6],
    [10.2,  7.1,   9.3,  -7.6], [8.8,   7.6,   9.9,  -8.2], [6.7,   7.9,  10.5,  -8.6], [4.2,   7.9,  10.6,  -8.6],
    [1.8,   7.8,  10.6,  -8.0], [-0.3,  7.6,  10.7,  -7.2], [-2.45, 7.1,  10.8,  -6.2], [-4.35, 6.8,  10.8,  -5.8],
    [-6.7,  6.4,  10.8,  -5.7], [-7.6,  6.2,  10.1,  -5.8], [-8.2,  5.9,   9.0,  -6.0], [-9.0,  5.7,   6.6,  -6.2],
    [-10.2, 5.6,   5.5,  -6.6], [-11.5, 6.0,   4.9,  -7.2], [-13.0, 7.4,   4.2,  -7.9], [-15.0, 9.8,   3.8,  -8.6],
    [-17.0, 12.0,  3.6,  -9.0],
])
_NOSE = np.array([  # y, height of the bridge over the outline
    [4.8, 0.0], [3.4, 0.15], [2.6, 0.8], [1.8, 1.5], [1.1, 2.1], [0.4, 2.45], [-0.3, 2.0], [-0.8, 1.2],
    [-1.2, 0.7], [-1.8, 0.0],
])
# fmt: on
EYE_ROW, MOUTH_ROW = 3.4, -3.4
EYE_COLUMNS = (13.3, 35.5)
MOUTH_COLUMN = 18.0
_FACE_COLUMN = 86.0  # the face's texture tile ends here, and between these rows
_FACE_ROWS = (11.6, -8.2)


@dataclass(frozen=True, kw_only=True)
class SkinGrid:
    """Face, skull and neck: a grid of rows and columns with a pole on top and slits at eyes and mouth."""

    points: np.ndarray
    """``(n, 3)`` cm; the pole is the last one."""
    upper: np.ndarray
    """``(rows, columns)`` vertex seen by the quad above."""
    lower: np.ndarray
    """``(rows, columns)`` vertex seen by the quad below; differs from `upper` inside a slit."""
    faces: np.ndarray
    """``(F, 3)``."""
    is_face: np.ndarray
    """``(F,)`` bool: belongs to the face, not to skull and neck."""
    corner_uv: np.ndarray
    """``(F, 3, 2)`` place of each corner in the texture."""
    tags: SkinTags

    @property
    def count(self) -> int:
        """Vertices."""
        return len(self.points)

    def at(self, y: float, column: float, below: bool = False) -> int:
        """The vertex of a row (its height on the midline) and a column (degrees)."""
        row, place = int(np.abs(_ROWS - y).argmin()), int(np.abs(_COLUMNS - column).argmin())
        return int((self.lower if below else self.upper)[row, place])

    def slit(self, row: float, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
        """Upper and lower edge of a slit from one corner to the other, corners included."""
        inside = (_COLUMNS >= first - 1e-6) & (_COLUMNS <= last + 1e-6)
        index = int(np.abs(_ROWS - row).argmin())
        return self.upper[index, inside], self.lower[index, inside]

    def landmarks(self) -> np.ndarray:
        """The 68 Multi-PIE points; the subject's right (negative columns) comes first."""
        jaw = [(3.4, 72), (1.8, 72), (-3.85, 72), (-7.6, 60), (-7.6, 50), (-7.6, 35.5), (-7.6, 23), (-7.6, 9)]
        brow = [(5.4, 42), (6.0, 35.5), (6.0, 28), (6.0, 18), (6.0, 9)]
        nostril = [(-1.2, 9), (-1.2, 4.5)]
        points = [self.at(y, -c) for y, c in jaw] + [self.at(-7.6, 0)] + [self.at(y, c) for y, c in reversed(jaw)]
        points += [self.at(y, -c) for y, c in brow] + [self.at(y, c) for y, c in reversed(brow)]
        points += [self.at(y, 0) for y in (3.4, 2.6, 1.8, 0.4)]
        points += (
            [self.at(y, -c) for y, c in nostril] + [self.at(-1.2, 0)] + [self.at(y, c) for y, c in reversed(nostril)]
        )
        eye = [(35.5, False), (28, False), (18, False), (13.3, False), (18, True), (28, True)]
        points += [self.at(EYE_ROW, -c, below) for c, below in eye]
        points += [self.at(EYE_ROW, c, below) for c, below in (eye[3], eye[2], eye[1], eye[0], eye[5], eye[4])]
        points += [self.at(y, c) for y, c in ((-3.4, -23), (-2.95, -13.3), (-2.45, -4.5), (-2.45, 0), (-2.45, 4.5))]
        points += [self.at(y, c) for y, c in ((-2.95, 13.3), (-3.4, 23), (-3.85, 13.3), (-4.35, 9), (-4.35, 0))]
        points += [self.at(y, c) for y, c in ((-4.35, -9), (-3.85, -13.3))]
        points += [self.at(MOUTH_ROW, c) for c in (-18, -9, 0, 9, 18)]
        points += [self.at(MOUTH_ROW, c, below=True) for c in (9, 0, -9)]
        return np.array(points)


def skin_grid() -> SkinGrid:
    """The skin at rest."""
    points, upper, lower = _slit_grid()
    faces, row_of, column_of = _triangles(upper, lower, pole=len(points) - 1)
    is_face = (
        (row_of >= np.abs(_ROWS - _FACE_ROWS[0]).argmin())
        & (row_of < np.abs(_ROWS - _FACE_ROWS[1]).argmin())
        & (_COLUMNS[column_of] >= -_FACE_COLUMN - 1e-6)
        & (_COLUMNS[column_of] < _FACE_COLUMN - 1e-6)
    )
    return SkinGrid(
        points=points,
        upper=upper,
        lower=lower,
        faces=faces,
        is_face=is_face,
        corner_uv=_corner_uv(upper, lower, faces, is_face, column_of),
        tags=_tags(points, upper, lower),
    )


def _slit_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, and the vertices of the grid above and below the slits; eyes are open at rest, the mouth is closed."""
    rows, columns = len(_ROWS), len(_COLUMNS)
    points = _skin_points().reshape(-1, 3)
    upper = np.arange(rows * columns).reshape(rows, columns)
    lower = upper.copy()
    extra = []
    for row, first, last in _slits():
        inside = np.nonzero((_COLUMNS > first + 1e-6) & (_COLUMNS < last - 1e-6))[0]
        at = int(np.abs(_ROWS - row).argmin())
        lower[at, inside] = rows * columns + len(extra) + np.arange(len(inside))
        extra += [points[upper[at, j]] for j in inside]
        if row == EYE_ROW:  # eyes are open at rest, the mouth is closed
            t = (_COLUMNS[inside] - first) / (last - first) * 2.0 - 1.0
            points[upper[at, inside], 1] += 0.50 * (1.0 - t * t) ** 0.7
            for k, j in enumerate(inside):
                extra[lower[at, j] - rows * columns] = points[upper[at, j]] - [0, 0.88 * (1 - t[k] ** 2) ** 0.7, 0]
    points = np.concatenate([points, np.array(extra), [[0.0, 15.0, 0.3]]])
    return lift_off_eyes(points, EYES), upper, lower


def _triangles(upper: np.ndarray, lower: np.ndarray, pole: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(F, 3)`` triangles, and the row and the column of the quad of each; row -1 is the fan around the pole."""
    rows, columns = upper.shape
    j = np.arange(columns)
    ring = (j + 1) % columns
    triangles = [np.stack([np.full(columns, pole), upper[0], upper[0][ring]], 1)]
    row_of, column_of = [np.full(columns, -1)], [j]
    for i in range(rows - 1):
        a, b = lower[i], lower[i][ring]
        d, c = upper[i + 1], upper[i + 1][ring]
        triangles += [np.stack([a, d, c], 1), np.stack([a, c, b], 1)]
        row_of += [np.full(columns, i)] * 2
        column_of += [j] * 2
    return np.concatenate(triangles), np.concatenate(row_of), np.concatenate(column_of)


def _corner_uv(
    upper: np.ndarray, lower: np.ndarray, faces: np.ndarray, is_face: np.ndarray, column_of: np.ndarray
) -> np.ndarray:
    """Face and head share vertices, but each has its own texture tile, cut open at the back of the head."""
    pole = int(faces.max())
    height, angle = np.full(pole + 1, 15.0), np.zeros(pole + 1)
    for grid in (upper, lower):
        height[grid] = _ROWS[:, None]
        angle[grid] = _COLUMNS[None, :]
    corner_angle = angle[faces]
    corner_angle[faces == pole] = _COLUMNS[column_of[: len(_COLUMNS)]]  # the pole fans out
    around = (column_of == len(_COLUMNS) - 1)[:, None] & (corner_angle < 0)
    corner_angle = np.where(around, corner_angle + 360.0, corner_angle)
    v_face = 0.02 + 0.96 * (height[faces] - _FACE_ROWS[1]) / (_FACE_ROWS[0] - _FACE_ROWS[1])
    v_head = 0.02 + 0.96 * (height[faces] - _ROWS[-1]) / (15.0 - _ROWS[-1])
    u_face = 0.5 + 0.47 * corner_angle / _FACE_COLUMN
    u_head = 1.02 + 0.96 * (corner_angle + 180.0) / 360.0
    face = is_face[:, None]
    return np.stack([np.where(face, u_face, u_head), np.where(face, v_face, v_head)], -1)


def _slits() -> list[tuple[float, float, float]]:
    """``(row, first column, last column)`` of the mouth and of both eyes."""
    inner, outer = EYE_COLUMNS
    return [(MOUTH_ROW, -MOUTH_COLUMN, MOUTH_COLUMN), (EYE_ROW, inner, outer), (EYE_ROW, -outer, -inner)]


def _skin_points() -> np.ndarray:
    """``(rows, columns, 3)``: an outline with elliptic sections, and the features of the face on it."""
    turn = np.radians(_COLUMNS)[None, :]
    row = _ROWS[:, None]
    table = _OUTLINE[::-1]
    width, front, back = (np.interp(_ROWS, table[:, 0], table[:, k])[:, None] for k in (1, 2, 3))
    # To the sides the lower face is squeezed upwards: the jaw rises from the chin to below the ear.
    knots = np.array([-17.0, -13.0, -7.6, 1.0, 15.0])
    at_side = np.interp(row, knots, np.array([-17.0, -12.5, -2.0, 1.0, 15.0]))
    y = row + smoothstep(20.0, 75.0, np.abs(_COLUMNS))[None, :] * (at_side - row)
    x = width * np.sin(turn)
    middle = 0.3
    z = np.where(np.cos(turn) > 0, (front - middle) * np.cos(turn), (middle - back) * np.cos(turn)) + middle

    def bump(x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
        return np.exp(-(((np.abs(x) - x0) / sx) ** 2) - ((row - y0) / sy) ** 2) * (np.cos(turn) > 0.2)

    nose = np.interp(row, _NOSE[::-1, 0], _NOSE[::-1, 1])
    z = z + nose * np.exp(-((x / (0.75 + 0.20 * nose)) ** 2)) * (np.cos(turn) > 0.2)
    z = z + 0.55 * bump(1.25, -0.7, 0.55, 0.6)  # nostrils
    z = z + 0.75 * bump(0.0, -3.4, 1.9, 1.0) - 0.30 * bump(0.0, -1.9, 0.35, 0.45)  # lips, groove above
    z = z - 0.30 * bump(0.0, -3.4, 2.6, 0.22) + 0.35 * bump(0.0, -6.7, 1.6, 0.8)  # lip line, chin
    z = z + 0.30 * bump(2.4, 6.0, 2.2, 0.8) + 0.25 * bump(4.3, 0.6, 1.5, 1.2)  # brows, cheek bones
    # Around the eyes the skin sinks towards the eyeball.
    beside = (np.abs(x) - EYES[0, 0]) ** 2 + (y - EYES[0, 1]) ** 2
    ball = EYES[0, 2] + np.sqrt(np.clip(LID_RADIUS**2 - beside, 0.35, None))
    sink = np.exp(-(((np.abs(x) - 3.1) / 1.75) ** 4) - ((y - 3.45) / 0.95) ** 2) * (np.cos(turn) > 0.2)
    z = z + 0.9 * sink * (ball - z)
    return np.stack([x, y + 0.0 * x, z], -1)


def _tags(points: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> SkinTags:
    """Which vertices belong to the lower lip's side, and the rims of the left eye's lids."""
    row = int(np.abs(_ROWS - MOUTH_ROW).argmin())
    below = np.zeros(len(points))
    below[upper[row + 1 :]] = 1.0
    inside = lower[row] != upper[row]
    below[lower[row][inside]] = 1.0
    below[upper[row][~inside]] = 0.5
    row = int(np.abs(_ROWS - EYE_ROW).argmin())
    inside = (_COLUMNS >= EYE_COLUMNS[0] - 1e-6) & (_COLUMNS <= EYE_COLUMNS[1] + 1e-6)
    top, bottom = points[upper[row, inside]], points[lower[row, inside]]
    return SkinTags(below_mouth=below, lid_x=top[:, 0], lid_top=top[:, 1], lid_bottom=bottom[:, 1])
