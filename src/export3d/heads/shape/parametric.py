"""The parametric head S = mean + alpha U_id + beta U_exp (Eq. 11).

Units are centimetres: x to the image right (the subject's left), y up, z towards the viewer of a frontal face.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from export3d.checks import check_shape
from export3d.errors import HeadModelError

WORLD_SCALE = 1.0 / 47.0
"""Scene units per centimetre: the bust then fits the tri-plane box of side 1."""

WORLD_ORIGIN_CM = (0.0, 1.4, 4.0)
"""The point of the head, in cm, that is the world origin."""

PARTS = (
    "face",
    "head_neck",
    "mouth_socket",
    "eye_socket_left",
    "eye_socket_right",
    "gums_tongue",
    "teeth",
    "sclera_left",
    "sclera_right",
    "lashes_left",
    "lashes_right",
)
"""The parts that the renderer knows. `left` is the subject's left, on the image right."""

EYE_CENTERS_CM = ((3.101, 3.602, 7.862), (-3.101, 3.602, 7.862))
"""Centres of ICT-FaceKit's eyeballs, left first. They have no modes: identity moves them rigidly, gaze turns them."""

EYE_AXES = ((0.0713, 0.0, 0.9975), (-0.0713, 0.0, 0.9975))
"""Direction from an eyeball's centre to its cornea in the neutral mesh, left first."""

# fmt: off
EXPRESSION_NAMES = tuple(
    name
    for base, sided in (
        ("browDown", True), ("browInnerUp", True), ("browOuterUp", True), ("cheekPuff", True), ("cheekSquint", True),
        ("eyeBlink", True), ("eyeLookDown", True), ("eyeLookIn", True), ("eyeLookOut", True), ("eyeLookUp", True),
        ("eyeSquint", True), ("eyeWide", True), ("jawForward", False), ("jawLeft", False), ("jawOpen", False),
        ("jawRight", False), ("mouthClose", False), ("mouthDimple", True), ("mouthFrown", True), ("mouthFunnel", False),
        ("mouthLeft", False), ("mouthLowerDown", True), ("mouthPress", True), ("mouthPucker", False),
        ("mouthRight", False), ("mouthRollLower", False), ("mouthRollUpper", False), ("mouthShrugLower", False),
        ("mouthShrugUpper", False), ("mouthSmile", True), ("mouthStretch", True), ("mouthUpperUp", True),
        ("noseSneer", True),
    )
    for name in ((f"{base}_L", f"{base}_R") if sided else (base,))
)
"""The 53 expression modes: ARKit's names, with browInnerUp and cheekPuff split into left and right."""
# fmt: on


@dataclass(frozen=True, kw_only=True, eq=False)
class ParametricHead:
    """A mesh with linear identity and expression modes.

    Attributes:
        vertices: ``(V, 3)`` float32, the mean head in cm.
        triangles: ``(F, 3)`` int64; outward side counter-clockwise.
        uv: ``(M, 2)`` float32; the face tile is u in [0, 1], the tile of head and neck u in [1, 2]; v in [0, 1], up.
        triangle_uv: ``(F, 3)`` int64, indices into `uv`.
        part_names: Names of the parts, see :data:`PARTS`.
        triangle_part: ``(F,)`` int64, index into `part_names`.
        vertex_part: ``(V,)`` int64, index into `part_names`.
        identity_basis: ``(N, V, 3)`` float32 with N >= 91; modes of unit standard deviation, in order of size.
        expression_basis: ``(E, V, 3)`` float32, E = 53; weights in [0, 1].
        expression_names: E names, :data:`EXPRESSION_NAMES` for the bundled heads.
        landmark_vertices: ``(68,)`` int64, the Multi-PIE points.
        eye_centers: ``(2, 3)`` float32, centres of the left and right eyeball of the mean head, cm.
        eye_axes: ``(2, 3)`` float32, unit direction from each centre to its cornea.
        name: What the head is, for files that were made with it.
    """

    vertices: Tensor
    triangles: Tensor
    uv: Tensor
    triangle_uv: Tensor
    part_names: tuple[str, ...]
    triangle_part: Tensor
    vertex_part: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    expression_names: tuple[str, ...]
    landmark_vertices: Tensor
    eye_centers: Tensor
    eye_axes: Tensor
    name: str = "head"

    def __post_init__(self) -> None:
        num_vertices = self.vertices.shape[0]
        wanted: dict[str, tuple[int | None, ...]] = {
            "vertices": (num_vertices, 3),
            "triangles": (None, 3),
            "uv": (None, 2),
            "triangle_uv": (self.triangles.shape[0], 3),
            "triangle_part": (self.triangles.shape[0],),
            "vertex_part": (num_vertices,),
            "identity_basis": (None, num_vertices, 3),
            "expression_basis": (len(self.expression_names), num_vertices, 3),
            "landmark_vertices": (68,),
            "eye_centers": (2, 3),
            "eye_axes": (2, 3),
        }
        for name, shape in wanted.items():
            try:
                check_shape(name, getattr(self, name), *shape)
            except ValueError as error:
                raise HeadModelError(f"head model: {error}.") from error
        limits = {
            "triangles": num_vertices,
            "landmark_vertices": num_vertices,
            "triangle_uv": self.uv.shape[0],
            "triangle_part": len(self.part_names),
            "vertex_part": len(self.part_names),
        }
        for name, limit in limits.items():
            values = getattr(self, name)
            if values.numel() and (int(values.min()) < 0 or int(values.max()) >= limit):
                raise HeadModelError(
                    f"head model: {name} must lie in 0..{limit - 1}; got {int(values.min())}..{int(values.max())}."
                )
        missing = [part for part in PARTS if part not in self.part_names]
        if missing:
            raise HeadModelError(
                f"head model: the parts {', '.join(missing)} are missing; got {', '.join(self.part_names)}."
            )

    @cached_property
    def expression_index(self) -> dict[str, int]:
        """Name of an expression mode -> its place in the weights."""
        return {name: index for index, name in enumerate(self.expression_names)}

    def part(self, name: str) -> int:
        """The id of a part, as in `triangle_part`."""
        return self.part_names.index(name)

    def vertices_of(self, *names: str) -> Tensor:
        """``(V,)`` bool: the vertices of the named parts."""
        ids = torch.tensor([self.part(name) for name in names], device=self.vertex_part.device)
        return torch.isin(self.vertex_part, ids)

    def triangles_of(self, *names: str) -> Tensor:
        """``(F,)`` bool: the triangles of the named parts."""
        ids = torch.tensor([self.part(name) for name in names], device=self.triangle_part.device)
        return torch.isin(self.triangle_part, ids)

    def weights(self, **values: float) -> Tensor:
        """``(53,)`` weights from names; a name without `_L` or `_R` sets both sides.

        Raises:
            HeadModelError: If no mode has the name.
        """
        out = torch.zeros(len(self.expression_names), device=self.vertices.device)
        for name, value in values.items():
            sides = [name] if name in self.expression_index else [f"{name}_L", f"{name}_R"]
            for side in sides:
                if side not in self.expression_index:
                    raise HeadModelError(
                        f"head model: no expression mode '{name}'; see ParametricHead.expression_names."
                    )
                out[self.expression_index[side]] += value
        return out

    def shape(self, alpha: Tensor, weights: Tensor) -> Tensor:
        """Eq. 11 for a batch.

        Args:
            alpha: ``(B, K)`` identity coefficients, K <= N; the missing ones are 0.
            weights: ``(B, 53)`` expression weights in [0, 1].

        Returns:
            ``(B, V, 3)`` vertices in cm.
        """
        identity = torch.tensordot(alpha, self.identity_basis[: alpha.shape[1]], 1)
        return self.vertices + identity + torch.tensordot(weights, self.expression_basis, 1)

    def to(self, device: torch.device | str) -> ParametricHead:
        """The same head on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in moved.items() if isinstance(v, Tensor)})
