"""The parametric head S = mean + alpha U_id + beta U_exp (Eq. 11), its files, and the importer of ICT-FaceKit's folder.

Units are centimetres: x to the image right (the subject's left), y up, z towards the viewer of a frontal face.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export3d.errors import HeadModelError
from export3d.files import replacing

WORLD_SCALE = 1.0 / 47.0
"""Scene units per centimetre: the bust then fits the tri-plane box of side 1 (design/heads.md)."""

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

_FORMAT = "export3d-head"
_BASIS_SCALE = 1.0 / 2048.0  # cm per step of the stored int16 bases; the largest rounding error is 0.00025 cm
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
            given = tuple(getattr(self, name).shape)
            if len(given) != len(shape) or any(s is not None and s != g for s, g in zip(shape, given, strict=True)):
                shown = ", ".join("*" if s is None else str(s) for s in shape)
                raise HeadModelError(f"head model: {name} must have shape ({shown}); got {given}.")
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

    @staticmethod
    def from_npz(path: str | Path) -> ParametricHead:
        """Read a head from the compact npz (docs/data.md).

        Raises:
            HeadModelError: If the file is missing, damaged, or not of the documented layout.
        """
        path = Path(path)
        if not path.is_file():
            raise HeadModelError(f"head model: no file {path}; give the npz that `export3d heads import` writes.")
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise HeadModelError(f"head model: {path} is not a readable npz file ({error}).") from error
        return head_from_arrays(arrays, str(path))

    @staticmethod
    def from_obj_folder(path: str | Path) -> ParametricHead:
        """Import ICT-FaceKit's own folder of OBJ files (`FaceXModel`), the light model with the MIT licence.

        The folder holds `generic_neutral_mesh.obj`, `identity000.obj`, ... and one OBJ for each expression mode.
        Helper surfaces that the renderer does not draw (inner iris, tear fluid, eye blend) are dropped.

        Raises:
            HeadModelError: If a file is missing or a mesh does not have ICT-FaceKit's vertices.
        """
        from export3d.heads.ict_obj import read_ict_folder

        return head_from_arrays(read_ict_folder(Path(path)), str(path))

    @staticmethod
    def procedural() -> ParametricHead:
        """The small head written in code that ships with the package (see `heads/procedural.py`)."""
        from export3d.heads.procedural import procedural_head

        return procedural_head()

    def to_npz(self, path: str | Path) -> None:
        """Write the compact npz: bases as int16 steps of 1/2048 cm. The name appears only when the file is complete."""
        path = Path(path)
        largest = max(float(self.identity_basis.abs().max()), float(self.expression_basis.abs().max()))
        scale = max(_BASIS_SCALE, largest / 32767.0)
        arrays = {
            "format": np.array(_FORMAT),
            "version": np.array(1),
            "vertices": self.vertices.cpu().numpy(),
            "triangles": self.triangles.cpu().numpy().astype(np.int32),
            "uv": self.uv.cpu().numpy(),
            "triangle_uv": self.triangle_uv.cpu().numpy().astype(np.int32),
            "part_names": np.array(self.part_names),
            "triangle_part": self.triangle_part.cpu().numpy().astype(np.uint8),
            "vertex_part": self.vertex_part.cpu().numpy().astype(np.uint8),
            "identity_basis": np.rint(self.identity_basis.cpu().numpy() / scale).astype(np.int16),
            "expression_basis": np.rint(self.expression_basis.cpu().numpy() / scale).astype(np.int16),
            "basis_scale": np.float32(scale),
            "expression_names": np.array(self.expression_names),
            "landmarks68": self.landmark_vertices.cpu().numpy().astype(np.int32),
            "eye_centers": self.eye_centers.cpu().numpy(),
            "eye_axes": self.eye_axes.cpu().numpy(),
            "name": np.array(self.name),
        }
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def head_from_arrays(arrays: dict[str, np.ndarray], where: str) -> ParametricHead:
    """A checked head from named arrays; `where` names the file in errors."""
    needed = ("vertices", "triangles", "uv", "triangle_uv", "part_names", "triangle_part", "vertex_part")
    needed += ("identity_basis", "expression_basis", "basis_scale", "expression_names", "landmarks68")
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise HeadModelError(
            f"head model: {where} lacks the arrays {', '.join(missing)}; see docs/data.md for the layout."
        )
    if "version" in arrays and int(arrays["version"]) != 1:
        raise HeadModelError(
            f"head model: {where} has version {int(arrays['version'])}; this export3d reads version 1."
        )
    if arrays["identity_basis"].shape[0] < 91:
        raise HeadModelError(
            f"head model: {where} must hold at least 91 identity modes (80 + 11); got {arrays['identity_basis'].shape[0]}."
        )
    scale = float(arrays["basis_scale"])

    def floats(key: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(arrays[key], dtype=np.float32))

    def ints(key: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(arrays[key], dtype=np.int64))

    head = ParametricHead(
        vertices=floats("vertices"),
        triangles=ints("triangles"),
        uv=floats("uv"),
        triangle_uv=ints("triangle_uv"),
        part_names=tuple(str(name) for name in arrays["part_names"]),
        triangle_part=ints("triangle_part"),
        vertex_part=ints("vertex_part"),
        identity_basis=floats("identity_basis") * scale,
        expression_basis=floats("expression_basis") * scale,
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        landmark_vertices=ints("landmarks68"),
        eye_centers=floats("eye_centers") if "eye_centers" in arrays else torch.tensor(EYE_CENTERS_CM),
        eye_axes=floats("eye_axes") if "eye_axes" in arrays else torch.tensor(EYE_AXES),
        name=str(arrays["name"]) if "name" in arrays else Path(where).stem,
    )
    if not all(bool(torch.isfinite(t).all()) for t in (head.vertices, head.identity_basis, head.expression_basis)):
        raise HeadModelError(f"head model: {where} holds values that are not finite.")
    return head
