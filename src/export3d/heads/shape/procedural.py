"""A small head written in code, with the interface of the imported one (Eq. 11): for tests and runs without any file.

The skin is one grid: columns are angles around the head, rows are heights on the face. The grid is slit along a row at
the mouth and at each eye; there the vertices exist twice and can move apart. Units are centimetres, as in ICT-FaceKit,
and the features lie at about the same places, so that appearance and camera need not know which head they get.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from export3d.heads.shape.parametric import EXPRESSION_NAMES, PARTS, ParametricHead
from export3d.heads.shape.procedural_modes import (
    LID_RADIUS,
    SkinTags,
    expression_modes,
    identity_modes,
    lift_off_eyes,
    smoothstep,
)

EYE_RADIUS = 1.5
EYES = np.array([[3.1, 3.45, 7.95], [-3.1, 3.45, 7.95]])  # left (image right) first

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
_EYE_ROW, _MOUTH_ROW = 3.4, -3.4
_EYE_COLUMNS = (13.3, 35.5)
_MOUTH_COLUMN = 18.0
_FACE_COLUMN = 86.0  # the face's texture tile ends here, and between these rows
_FACE_ROWS = (11.6, -8.2)


@lru_cache(maxsize=1)
def procedural_head() -> ParametricHead:
    """Build the head: about 2,000 vertices, all parts of :data:`PARTS`, 100 identity and 53 expression modes."""
    builder = _Builder()
    skin = builder.skin()
    builder.ears()
    builder.eyes(skin)
    builder.mouth(skin)
    vertices = np.concatenate(builder.vertices)
    parents, factors = np.concatenate(builder.parents), np.concatenate(builder.factors)
    jaw = np.concatenate(builder.jaw)
    moving = expression_modes(vertices[: skin.count], skin.tags)
    expression = moving[:, parents.clip(0)] * factors[None, :, None]
    # Teeth and tongue hang on the jaw alone: they have no parent, but a jaw weight.
    expression += np.where(parents[None, :, None] < 0, expression_modes(vertices, None, jaw), 0.0)
    identity = identity_modes(vertices, EYES)
    return ParametricHead(
        vertices=_floats(vertices),
        triangles=_ints(np.concatenate(builder.triangles)),
        uv=_floats(np.concatenate(builder.uv)),
        triangle_uv=_ints(np.concatenate(builder.triangle_uv)),
        part_names=PARTS,
        triangle_part=_ints(np.concatenate(builder.triangle_part)),
        vertex_part=_ints(np.concatenate(builder.vertex_part)),
        identity_basis=_floats(identity),
        expression_basis=_floats(expression),
        expression_names=EXPRESSION_NAMES,
        landmark_vertices=_ints(skin.landmarks()),
        eye_centers=_floats(EYES),
        eye_axes=torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
        name="procedural",
    )


def _floats(array: np.ndarray) -> torch.Tensor:
    """float32 in steps of 2^-14 cm: another machine's last bit of a sine does not change the head."""
    return torch.from_numpy((np.rint(array * 16384.0) / 16384.0).astype(np.float32))


def _ints(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


@dataclass
class _Skin:
    """The skin grid: vertex numbers by row and column, above and below the slits."""

    upper: np.ndarray  # (rows, columns) vertex seen by the quad above
    lower: np.ndarray  # (rows, columns) vertex seen by the quad below; differs from `upper` inside a slit
    tags: SkinTags
    points: np.ndarray

    @property
    def count(self) -> int:
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
        points += [self.at(_EYE_ROW, -c, below) for c, below in eye]
        points += [self.at(_EYE_ROW, c, below) for c, below in (eye[3], eye[2], eye[1], eye[0], eye[5], eye[4])]
        points += [self.at(y, c) for y, c in ((-3.4, -23), (-2.95, -13.3), (-2.45, -4.5), (-2.45, 0), (-2.45, 4.5))]
        points += [self.at(y, c) for y, c in ((-2.95, 13.3), (-3.4, 23), (-3.85, 13.3), (-4.35, 9), (-4.35, 0))]
        points += [self.at(y, c) for y, c in ((-4.35, -9), (-3.85, -13.3))]
        points += [self.at(_MOUTH_ROW, c) for c in (-18, -9, 0, 9, 18)]
        points += [self.at(_MOUTH_ROW, c, below=True) for c in (9, 0, -9)]
        return np.array(points)


@dataclass
class _Builder:
    """Collects the parts. A vertex without expression of its own follows its parent in the skin, times a factor."""

    vertices: list[np.ndarray] = field(default_factory=list)
    vertex_part: list[np.ndarray] = field(default_factory=list)
    parents: list[np.ndarray] = field(default_factory=list)
    factors: list[np.ndarray] = field(default_factory=list)
    jaw: list[np.ndarray] = field(default_factory=list)
    triangles: list[np.ndarray] = field(default_factory=list)
    triangle_part: list[np.ndarray] = field(default_factory=list)
    uv: list[np.ndarray] = field(default_factory=list)
    triangle_uv: list[np.ndarray] = field(default_factory=list)
    num_vertices: int = 0
    num_uv: int = 0

    def add(
        self,
        part: str,
        points: np.ndarray,
        triangles: np.ndarray,
        uv: np.ndarray,
        *,
        parents: np.ndarray | None = None,
        factors: np.ndarray | None = None,
        jaw: float = 0.0,
    ) -> None:
        """Add a mesh whose texture positions go with its vertices one by one."""
        count = len(points)
        self.vertices.append(points)
        self.vertex_part.append(np.full(count, PARTS.index(part)))
        self.parents.append(np.full(count, -1) if parents is None else parents)
        self.factors.append(np.zeros(count) if factors is None else factors)
        self.jaw.append(np.full(count, jaw))
        self.triangles.append(triangles + self.num_vertices)
        self.triangle_part.append(np.full(len(triangles), PARTS.index(part)))
        self.uv.append(uv)
        self.triangle_uv.append(triangles + self.num_uv)
        self.num_vertices += count
        self.num_uv += len(uv)

    def skin(self) -> _Skin:
        """Face, skull and neck: one grid of rows and columns with a pole on top and slits at eyes and mouth."""
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
            if row == _EYE_ROW:  # eyes are open at rest, the mouth is closed
                t = (_COLUMNS[inside] - first) / (last - first) * 2.0 - 1.0
                points[upper[at, inside], 1] += 0.50 * (1.0 - t * t) ** 0.7
                for k, j in enumerate(inside):
                    extra[lower[at, j] - rows * columns] = points[upper[at, j]] - [0, 0.88 * (1 - t[k] ** 2) ** 0.7, 0]
        points = np.concatenate([points, np.array(extra), [[0.0, 15.0, 0.3]]])
        points = lift_off_eyes(points, EYES)
        pole = len(points) - 1

        def ring(j: np.ndarray) -> np.ndarray:
            return (j + 1) % columns

        j = np.arange(columns)
        triangles = [np.stack([np.full(columns, pole), upper[0], upper[0][ring(j)]], 1)]
        row_of, column_of = [np.full(columns, -1)], [j]
        for i in range(rows - 1):
            a, b = lower[i], lower[i][ring(j)]
            d, c = upper[i + 1], upper[i + 1][ring(j)]
            triangles += [np.stack([a, d, c], 1), np.stack([a, c, b], 1)]
            row_of += [np.full(columns, i)] * 2
            column_of += [j] * 2
        faces, row_of, column_of = np.concatenate(triangles), np.concatenate(row_of), np.concatenate(column_of)
        is_face = (
            (row_of >= np.abs(_ROWS - _FACE_ROWS[0]).argmin())
            & (row_of < np.abs(_ROWS - _FACE_ROWS[1]).argmin())
            & (_COLUMNS[column_of] >= -_FACE_COLUMN - 1e-6)
            & (_COLUMNS[column_of] < _FACE_COLUMN - 1e-6)
        )
        self._add_skin(points, faces, is_face, upper, lower, column_of)
        tags = _tags(points, upper, lower)
        return _Skin(upper=upper, lower=lower, tags=tags, points=points)

    def _add_skin(
        self,
        points: np.ndarray,
        faces: np.ndarray,
        is_face: np.ndarray,
        upper: np.ndarray,
        lower: np.ndarray,
        column_of: np.ndarray,
    ) -> None:
        """Face and head share vertices, but each has its own texture tile, cut open at the back of the head."""
        height = np.full(len(points), 15.0)
        angle = np.zeros(len(points))
        for grid in (upper, lower):
            height[grid] = _ROWS[:, None]
            angle[grid] = _COLUMNS[None, :]
        corner_angle = angle[faces]
        corner_angle[faces == len(points) - 1] = _COLUMNS[column_of[: len(_COLUMNS)]]  # the pole fans out
        around = (column_of == len(_COLUMNS) - 1)[:, None] & (corner_angle < 0)
        corner_angle = np.where(around, corner_angle + 360.0, corner_angle)
        v_face = 0.02 + 0.96 * (height[faces] - _FACE_ROWS[1]) / (_FACE_ROWS[0] - _FACE_ROWS[1])
        v_head = 0.02 + 0.96 * (height[faces] - _ROWS[-1]) / (15.0 - _ROWS[-1])
        u_face = 0.5 + 0.47 * corner_angle / _FACE_COLUMN
        u_head = 1.02 + 0.96 * (corner_angle + 180.0) / 360.0
        face = is_face[:, None]
        corners = np.stack([np.where(face, u_face, u_head), np.where(face, v_face, v_head)], -1)
        uv, index = np.unique(corners.reshape(-1, 2).round(6), axis=0, return_inverse=True)
        part = np.where(is_face, PARTS.index("face"), PARTS.index("head_neck"))
        vertex_part = np.full(len(points), PARTS.index("head_neck"))
        vertex_part[faces[is_face]] = PARTS.index("face")
        self.vertices.append(points)
        self.vertex_part.append(vertex_part)
        self.parents.append(np.arange(len(points)))
        self.factors.append(np.ones(len(points)))
        self.jaw.append(np.zeros(len(points)))
        self.triangles.append(faces)
        self.triangle_part.append(part)
        self.uv.append(uv)
        self.triangle_uv.append(index.reshape(-1, 3))
        self.num_vertices, self.num_uv = len(points), len(uv)

    def ears(self) -> None:
        """Two flat shells at the sides; their texture lies in the part of the head's tile that the face leaves free."""
        points, triangles, uv = _sphere(7, 10)
        for side, u in ((1.0, 1.52), (-1.0, 1.32)):
            ear = points * [0.55, 2.9, 1.55]
            ear[:, 0] += 0.35 * np.abs(points[:, 2]) ** 2 * (points[:, 2] < 0)  # the rim stands off behind
            ear = ear @ _turn_y(np.radians(-18.0)).T + [8.0, 1.2, -1.3]
            ear[:, 2] -= 0.25 * (ear[:, 1] - 1.2)
            mirrored = triangles if side > 0 else triangles[:, ::-1]
            self.add("head_neck", ear * [side, 1, 1], mirrored, uv * [0.16, 0.3] + [u, 0.4])

    def eyes(self, skin: _Skin) -> None:
        """Eyeballs, the wet edge between lid and ball, and lashes, left then right."""
        ball, triangles, uv = _sphere(11, 14)
        ball = ball[:, [0, 2, 1]] * [1, -1, 1]  # poles to front and back, so that the iris is finely divided
        for name, side in (("left", 1.0), ("right", -1.0)):
            centre = EYES[0] * [side, 1, 1]
            self.add(f"sclera_{name}", centre + ball * EYE_RADIUS, triangles, uv)
            inner, outer = (c * side for c in _EYE_COLUMNS)
            top, bottom = skin.slit(_EYE_ROW, min(inner, outer), max(inner, outer))
            loop = np.concatenate([top, bottom[-2:0:-1]])
            edge = skin.points[loop]
            behind = edge + 0.18 * (edge - edge.mean(0))
            behind = centre + (behind - centre) * (EYE_RADIUS - 0.03) / np.linalg.norm(behind - centre, axis=1)[:, None]
            strip = _strip(len(loop), closed=True)
            self.add(
                f"eye_socket_{name}",
                np.concatenate([edge, behind]),
                strip,
                np.concatenate([_unit_loop(len(loop)), 0.5 + 0.6 * (_unit_loop(len(loop)) - 0.5)]) * 0.1 + [0.02, 0.02],
                parents=np.tile(loop, 2),
                factors=np.repeat([1.0, 0.4], len(loop)),
            )
            lid = skin.points[top]
            away = (lid - centre) / np.linalg.norm(lid - centre, axis=1)[:, None]
            tips = lid + 0.40 * away + [0.0, 0.16, 0.0]
            line = np.linspace(0.0, 1.0, len(top))
            self.add(
                f"lashes_{name}",
                np.concatenate([lid, tips]),
                _strip(len(top), closed=False),
                np.concatenate([np.stack([line, 0 * line], 1), np.stack([line, 0 * line + 1], 1)])
                + np.array([6.0, 0.0]),
                parents=np.tile(top, 2),
                factors=np.ones(2 * len(top)),
            )

    def mouth(self, skin: _Skin) -> None:
        """The bag behind the lips, two rows of teeth, and a tongue that follows the jaw."""
        top, bottom = skin.slit(_MOUTH_ROW, -_MOUTH_COLUMN, _MOUTH_COLUMN)
        loop = np.concatenate([top, bottom[-2:0:-1]])
        lips = skin.points[loop]
        lower = np.isin(np.arange(len(loop)), np.arange(len(top), len(loop)))
        opened = np.where(lower, -1.0, 1.0) * np.clip(1.2 - 0.25 * np.abs(lips[:, 0]), 0.5, None)
        opened[[0, len(top) - 1]] = 0.0
        rings = [lips]
        for depth, wide, tall in ((1.1, 1.25, 1.2), (3.5, 1.4, 1.5), (6.5, 1.0, 1.0)):
            ring = lips * [wide, 1, 1] - [0, 0, depth]
            ring[:, 1] = lips[:, 1].mean() + tall * opened
            rings.append(ring)
        back = np.array([[0.0, -3.2, 2.5]])
        count = len(loop)
        triangles = [_strip(count, closed=True) + k * count for k in range(len(rings) - 1)]
        last = (len(rings) - 1) * count + np.arange(count)
        triangles.append(np.stack([last, np.full(count, len(rings) * count), np.roll(last, -1)], 1))
        unit = _unit_loop(count) - 0.5
        uv = np.concatenate([0.5 + unit * s for s in (1.0, 0.8, 0.6, 0.3)] + [np.full((1, 2), 0.5)]) * 0.2 + [
            1.03,
            0.74,
        ]
        self.add(
            "mouth_socket",
            np.concatenate([*rings, back]),
            np.concatenate(triangles),
            uv,
            parents=np.append(np.tile(loop, len(rings)), loop[0]),
            factors=np.append(np.repeat([1.0, 0.85, 0.5, 0.2], count), 0.0),
        )
        angle = np.radians(np.linspace(-80.0, 80.0, 9))
        arc = np.stack([2.35 * np.sin(angle), 0 * angle, 7.6 + 2.9 * np.cos(angle)], 1)
        line = np.linspace(0.02, 0.98, 9)
        for root, edge, jaw, v in ((-2.1, -3.2, 0.0, 0.55), (-4.7, -3.55, 1.0, 0.05)):
            inward = arc * [0.85, 1, 0.96]
            gum, tip = np.array([0, root, 0]), np.array([0, edge, 0])
            points = np.concatenate([arc + gum, arc + tip, inward + tip, inward + gum])
            points[:, 2] -= 0.25 * jaw  # the lower teeth bite behind the upper
            strips = np.concatenate([_strip(9, closed=False) + 9 * k for k in range(3)])
            uv = np.concatenate([np.stack([3.0 + line, np.full(9, v + 0.13 * k)], 1) for k in range(4)])
            self.add("teeth", points, strips if jaw == 0.0 else strips[:, ::-1], uv, jaw=jaw)
        points, faces, uv = _sphere(7, 10)
        tongue = points * [1.55, 0.45, 2.5] + [0.0, -4.35, 7.3]
        self.add("gums_tongue", tongue, faces, uv * [0.96, 0.96] + [2.02, 0.02], jaw=1.0)


def _slits() -> list[tuple[float, float, float]]:
    """``(row, first column, last column)`` of the mouth and of both eyes."""
    inner, outer = _EYE_COLUMNS
    return [(_MOUTH_ROW, -_MOUTH_COLUMN, _MOUTH_COLUMN), (_EYE_ROW, inner, outer), (_EYE_ROW, -outer, -inner)]


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
    row = int(np.abs(_ROWS - _MOUTH_ROW).argmin())
    below = np.zeros(len(points))
    below[upper[row + 1 :]] = 1.0
    inside = lower[row] != upper[row]
    below[lower[row][inside]] = 1.0
    below[upper[row][~inside]] = 0.5
    row = int(np.abs(_ROWS - _EYE_ROW).argmin())
    inside = (_COLUMNS >= _EYE_COLUMNS[0] - 1e-6) & (_COLUMNS <= _EYE_COLUMNS[1] + 1e-6)
    top, bottom = points[upper[row, inside]], points[lower[row, inside]]
    return SkinTags(below_mouth=below, lid_x=top[:, 0], lid_top=top[:, 1], lid_bottom=bottom[:, 1])


def _sphere(rings: int, around: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit sphere with its poles on y: points, outward triangles, texture positions in [0, 1]."""
    polar = np.pi * np.arange(1, rings + 1) / (rings + 1)
    turn = 2.0 * np.pi * np.arange(around) / around
    p, t = np.meshgrid(polar, turn, indexing="ij")
    grid = np.stack([np.sin(p) * np.sin(t), np.cos(p), np.sin(p) * np.cos(t)], -1).reshape(-1, 3)
    points = np.concatenate([grid, [[0, 1, 0], [0, -1, 0]]])
    index = np.arange(rings * around).reshape(rings, around)
    a, b = index[:-1], np.roll(index[:-1], -1, axis=1)
    d, c = index[1:], np.roll(index[1:], -1, axis=1)
    top, bottom = rings * around, rings * around + 1
    triangles = np.concatenate(
        [
            np.stack([a, d, c], -1).reshape(-1, 3),
            np.stack([a, c, b], -1).reshape(-1, 3),
            np.stack([np.full(around, top), index[0], np.roll(index[0], -1)], -1),
            np.stack([np.full(around, bottom), np.roll(index[-1], -1), index[-1]], -1),
        ]
    )
    return points, triangles, 0.5 + 0.5 * points[:, [0, 1]]


def _strip(count: int, closed: bool) -> np.ndarray:
    """Triangles between a line of `count` vertices and the line of `count` vertices that follows it."""
    j = np.arange(count if closed else count - 1)
    k = (j + 1) % count
    return np.concatenate([np.stack([j, j + count, k + count], 1), np.stack([j, k + count, k], 1)])


def _unit_loop(count: int) -> np.ndarray:
    turn = 2.0 * np.pi * np.arange(count) / count
    return 0.5 - 0.5 * np.stack([np.cos(turn), -np.sin(turn)], 1)


def _turn_y(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
