"""Glasses and earrings: small opaque meshes fitted to the landmarks and ears (no paper section)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.look.appearance import Traits
from export3d.heads.raster.fields import curve, grid_triangles, vertex_normals
from export3d.heads.shape.parametric import ParametricHead

_FRAME_COLORS = ((0.015, 0.014, 0.014), (0.06, 0.03, 0.015), (0.25, 0.22, 0.18), (0.02, 0.03, 0.07), (0.16, 0.04, 0.03))
_METALS = ((0.55, 0.42, 0.18), (0.55, 0.55, 0.56))
_LOBE_CM = (8.0, -1.7, 0.35)
_TUBE_SIDES = 6


@dataclass(frozen=True, kw_only=True)
class Props:
    """Things worn.

    Attributes:
        vertices: ``(P, 3)`` cm.
        normals: ``(P, 3)`` unit.
        triangles: ``(F, 3)``.
        colors: ``(P, 3)`` linear albedo.
        shine: ``(P,)`` strength of highlights.
    """

    vertices: Tensor
    normals: Tensor
    triangles: Tensor
    colors: Tensor
    shine: Tensor


def build_props(head: ParametricHead, rest: Tensor, eye_centers: Tensor, traits: Traits) -> Props | None:
    """What the traits ask for, fitted to the ``(V, 3)`` resting head; None when that is nothing."""
    rng = np.random.default_rng([traits.seed, 9])
    pieces: list[tuple[Tensor, Tensor, tuple[float, float, float], float]] = []
    if traits.glasses is not None:
        color = _FRAME_COLORS[int(rng.integers(0, len(_FRAME_COLORS)))]
        thick = float(rng.uniform(0.15, 0.22))
        for line, closed in _glasses(head, rest, eye_centers, traits.glasses):
            pieces.append((*_tube(line, thick, closed), color, 1.0))
    if traits.earrings is not None:
        metal = _METALS[int(rng.integers(0, 2))]
        for side in (1.0, -1.0):
            lobe = _lobe(head, rest, side)
            if lobe is None:
                continue
            if traits.earrings == "stud":
                pieces.append((*_ball(lobe, 0.26), metal, 2.0))
            else:
                turn = torch.linspace(0, 2 * math.pi, 25, device=rest.device)[:-1]
                ring = torch.stack([0.25 * side * turn.cos(), turn.cos() - 1.0, turn.sin()], 1) * 0.95
                pieces.append((*_tube(lobe + ring, 0.11, True), metal, 2.0))
    if not pieces:
        return None
    vertices, triangles, colors, shine, start = [], [], [], [], 0
    for points, faces, color, gloss in pieces:
        vertices.append(points)
        triangles.append(faces + start)
        colors.append(points.new_tensor(color).expand(len(points), 3))
        shine.append(points.new_full((len(points),), gloss))
        start += len(points)
    points, faces = torch.cat(vertices), torch.cat(triangles)
    return Props(
        vertices=points,
        normals=vertex_normals(points[None], faces)[0],
        triangles=faces,
        colors=torch.cat(colors),
        shine=torch.cat(shine),
    )


def _glasses(head: ParametricHead, rest: Tensor, eyes: Tensor, kind: str) -> list[tuple[Tensor, bool]]:
    """Centre lines of rims, bridge and temples; True for closed ones."""
    landmarks = rest[head.landmark_vertices]
    front = float(landmarks[[27, 17, 26, 19, 24], 2].amax()) + 0.35  # in front of brows and bridge
    lines: list[tuple[Tensor, bool]] = []
    turn = torch.linspace(0, 2 * math.pi, 33, device=rest.device)[:-1]
    power = 1.0 if kind == "round" else 0.55
    for eye, side in ((0, 1.0), (1, -1.0)):
        center_x, center_y = float(eyes[eye, 0]), float(eyes[eye, 1]) - 0.45
        c, s = turn.cos(), turn.sin()
        x = center_x + 0.15 * side + 2.35 * c.sign() * c.abs() ** power
        y = center_y + 1.95 * s.sign() * s.abs() ** power
        z = front - 0.055 * (x.abs() - 2.0).clamp(min=0) ** 2 - 0.25 * (s < 0) * s.abs()
        lines.append((torch.stack([x, y, z], 1), True))
        outer = torch.stack([x, y, z], 1)[int((x * side + 0.4 * y).argmax())]
        ear_z = float(landmarks[0 if side < 0 else 16, 2]) - 3.5
        width = float(landmarks[16 if side > 0 else 0, 0].abs()) + 0.35
        temple = torch.stack(
            [
                outer,
                outer.new_tensor([side * width, float(outer[1]) + 0.05, float(outer[2]) - 2.2]),
                outer.new_tensor([side * (width + 0.25), float(outer[1]), ear_z + 2.0]),
                outer.new_tensor([side * (width + 0.3), float(outer[1]) - 0.3, ear_z]),
            ]
        )
        lines.append((curve(temple, 12), False))
    left, right = lines[0][0], lines[2][0]
    start, end = left[int(left[:, 0].argmin())], right[int(right[:, 0].argmax())]
    middle = 0.5 * (start + end) + start.new_tensor([0.0, 0.35, 0.25])
    lines.append((curve(torch.stack([start, middle, end]), 8), False))
    return lines


def _lobe(head: ParametricHead, rest: Tensor, side: float) -> Tensor | None:
    """The ear lobe of the resting head, or None on a head without ears."""
    wanted = head.vertices.new_tensor(_LOBE_CM) * head.vertices.new_tensor([side, 1.0, 1.0])
    skin = head.vertices_of("face", "head_neck")
    distance = torch.where(skin, (head.vertices - wanted).norm(dim=1), torch.inf)
    nearest = int(distance.argmin())
    if float(distance[nearest]) > 0.6:
        return None
    return rest[nearest] + rest.new_tensor([0.12 * side, -0.05, 0.15])


def _tube(line: Tensor, thickness: float, closed: bool) -> tuple[Tensor, Tensor]:
    """A round tube of the given diameter along ``(M, 3)`` points -> vertices and triangles."""
    if closed:
        along = line.roll(-1, 0) - line.roll(1, 0)
    else:
        along = torch.gradient(line, dim=0)[0]
    along = F.normalize(along, dim=1)
    reference = (
        along.new_tensor([0.05, 0.1, 1.0]) if float(along[:, 2].abs().mean()) < 0.6 else along.new_tensor([0, 1.0, 0])
    )
    first = F.normalize(torch.linalg.cross(along, reference.expand_as(along)), dim=1)
    second = torch.linalg.cross(along, first)
    turn = torch.linspace(0, 2 * math.pi, _TUBE_SIDES + 1, device=line.device)
    ring = first[:, None] * turn.cos()[:, None] + second[:, None] * turn.sin()[:, None]
    grid = line[:, None] + ring * (thickness / 2)
    if closed:
        grid = torch.cat([grid, grid[:1]])
    return grid.reshape(-1, 3), grid_triangles(grid.shape[0], _TUBE_SIDES + 1, line.device).flip(1)


def _ball(center: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    polar = torch.linspace(0, math.pi, 7, device=center.device)
    turn = torch.linspace(0, 2 * math.pi, 11, device=center.device)
    pp, tt = torch.meshgrid(polar, turn, indexing="ij")
    out = torch.stack([pp.sin() * tt.sin(), pp.cos(), pp.sin() * tt.cos()], -1).reshape(-1, 3)
    return center + radius * out, grid_triangles(7, 11, center.device)
