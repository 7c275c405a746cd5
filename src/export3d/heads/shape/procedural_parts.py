"""The parts of the procedural head other than its skin: ears, eyes, lashes, mouth, teeth, tongue (head of Eq. 11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from export3d.heads.shape.parametric import PARTS
from export3d.heads.shape.procedural_modes import EYES
from export3d.heads.shape.procedural_skin import EYE_COLUMNS, EYE_ROW, MOUTH_COLUMN, MOUTH_ROW, SkinGrid

EYE_RADIUS = 1.5


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A mesh with its texture; a vertex without expression of its own follows its parent in the skin, times a factor."""

    points: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    triangle_uv: np.ndarray
    vertex_part: np.ndarray
    triangle_part: np.ndarray
    parents: np.ndarray
    """``(n,)`` vertex of the skin, or -1."""
    factors: np.ndarray
    jaw: np.ndarray
    """``(n,)`` how much a vertex without a parent belongs to the lower jaw."""


def piece(
    part: str,
    points: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    *,
    parents: np.ndarray | None = None,
    factors: np.ndarray | None = None,
    jaw: float = 0.0,
) -> Piece:
    """A mesh of one part whose texture positions go with its vertices one by one."""
    count = len(points)
    return Piece(
        points=points,
        triangles=triangles,
        uv=uv,
        triangle_uv=triangles,
        vertex_part=np.full(count, PARTS.index(part)),
        triangle_part=np.full(len(triangles), PARTS.index(part)),
        parents=np.full(count, -1) if parents is None else parents,
        factors=np.zeros(count) if factors is None else factors,
        jaw=np.full(count, jaw),
    )


def skin_piece(skin: SkinGrid) -> Piece:
    """The skin: each vertex is its own parent; corners with the same place in the texture share it."""
    uv, index = np.unique(skin.corner_uv.reshape(-1, 2).round(6), axis=0, return_inverse=True)
    vertex_part = np.full(skin.count, PARTS.index("head_neck"))
    vertex_part[skin.faces[skin.is_face]] = PARTS.index("face")
    return Piece(
        points=skin.points,
        triangles=skin.faces,
        uv=uv,
        triangle_uv=index.reshape(-1, 3),
        vertex_part=vertex_part,
        triangle_part=np.where(skin.is_face, PARTS.index("face"), PARTS.index("head_neck")),
        parents=np.arange(skin.count),
        factors=np.ones(skin.count),
        jaw=np.zeros(skin.count),
    )


def joined(pieces: Iterable[Piece]) -> Piece:
    """One mesh of all pieces, in their order."""
    moved, vertices, places = [], 0, 0
    for one in pieces:
        moved.append(replace(one, triangles=one.triangles + vertices, triangle_uv=one.triangle_uv + places))
        vertices, places = vertices + len(one.points), places + len(one.uv)
    return Piece(**{f.name: np.concatenate([getattr(one, f.name) for one in moved]) for f in fields(Piece)})


def ears() -> Iterator[Piece]:
    """Two flat shells at the sides; their texture lies in the part of the head's tile that the face leaves free."""
    points, triangles, uv = _sphere(7, 10)
    for side, u in ((1.0, 1.52), (-1.0, 1.32)):
        ear = points * [0.55, 2.9, 1.55]
        ear[:, 0] += 0.35 * np.abs(points[:, 2]) ** 2 * (points[:, 2] < 0)  # the rim stands off behind
        ear = ear @ _turn_y(np.radians(-18.0)).T + [8.0, 1.2, -1.3]
        ear[:, 2] -= 0.25 * (ear[:, 1] - 1.2)
        mirrored = triangles if side > 0 else triangles[:, ::-1]
        yield piece("head_neck", ear * [side, 1, 1], mirrored, uv * [0.16, 0.3] + [u, 0.4])


def eyes(skin: SkinGrid) -> Iterator[Piece]:
    """Eyeballs, the wet edge between lid and ball, and lashes, left then right."""
    ball, triangles, uv = _sphere(11, 14)
    ball = ball[:, [0, 2, 1]] * [1, -1, 1]  # poles to front and back, so that the iris is finely divided
    for name, side in (("left", 1.0), ("right", -1.0)):
        centre = EYES[0] * [side, 1, 1]
        yield piece(f"sclera_{name}", centre + ball * EYE_RADIUS, triangles, uv)
        inner, outer = (c * side for c in EYE_COLUMNS)
        top, bottom = skin.slit(EYE_ROW, min(inner, outer), max(inner, outer))
        loop = np.concatenate([top, bottom[-2:0:-1]])
        edge = skin.points[loop]
        behind = edge + 0.18 * (edge - edge.mean(0))
        behind = centre + (behind - centre) * (EYE_RADIUS - 0.03) / np.linalg.norm(behind - centre, axis=1)[:, None]
        strip = _strip(len(loop), closed=True)
        yield piece(
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
        yield piece(
            f"lashes_{name}",
            np.concatenate([lid, tips]),
            _strip(len(top), closed=False),
            np.concatenate([np.stack([line, 0 * line], 1), np.stack([line, 0 * line + 1], 1)]) + np.array([6.0, 0.0]),
            parents=np.tile(top, 2),
            factors=np.ones(2 * len(top)),
        )


def mouth(skin: SkinGrid) -> Iterator[Piece]:
    """The bag behind the lips, two rows of teeth, and a tongue that follows the jaw."""
    top, bottom = skin.slit(MOUTH_ROW, -MOUTH_COLUMN, MOUTH_COLUMN)
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
    uv = np.concatenate([0.5 + unit * s for s in (1.0, 0.8, 0.6, 0.3)] + [np.full((1, 2), 0.5)]) * 0.2 + [1.03, 0.74]
    yield piece(
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
        yield piece("teeth", points, strips if jaw == 0.0 else strips[:, ::-1], uv, jaw=jaw)
    points, faces, uv = _sphere(7, 10)
    tongue = points * [1.55, 0.45, 2.5] + [0.0, -4.35, 7.3]
    yield piece("gums_tongue", tongue, faces, uv * [0.96, 0.96] + [2.02, 0.02], jaw=1.0)


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
