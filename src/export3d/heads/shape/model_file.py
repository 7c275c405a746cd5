"""Head models as files: the compact npz, and which head is used: the one given, the one an environment variable names, or
the one in code."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export3d.data.tar_members import load_npy
from export3d.errors import HeadModelError
from export3d.files import write_atomically
from export3d.heads.shape.parametric import EYE_AXES, EYE_CENTERS_CM, ParametricHead
from export3d.heads.shape.procedural import procedural_head
from export3d.reading import reading

HEAD_MODEL_VARIABLE = "EXPORT3D_HEAD_MODEL"

_FORMAT = "export3d-head"
MAX_BYTES = 1 << 30
"""A full head has about 100 MB."""
_BASIS_SCALE = 1.0 / 2048.0  # cm per step of the stored int16 bases; the largest rounding error is 0.00025 cm


def load_head(path: str | Path | None = None) -> ParametricHead:
    """Find and read the head model.

    Args:
        path: An npz of `export3d heads import`; None looks at the environment variable EXPORT3D_HEAD_MODEL, and
            without it builds the procedural head.

    Raises:
        HeadModelError: The file is missing or damaged.
    """
    named = path or os.environ.get(HEAD_MODEL_VARIABLE)
    return read_head(named) if named else procedural_head()


def read_head(path: str | Path) -> ParametricHead:
    """Read a head from the compact npz (docs/data.md).

    Raises:
        HeadModelError: If the file is missing, damaged, or not of the documented layout.
    """
    path = Path(path)
    if not path.is_file():
        raise HeadModelError(f"head model: no file {path}; give the npz that `export3d heads import` writes.")
    with reading(f"head model: {path}", "not a readable npz file", HeadModelError):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise ValueError(f"it would unpack to more than {MAX_BYTES} bytes")
            arrays = {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}
    with reading(f"head model: {path}", "its arrays do not make a head; see docs/data.md", HeadModelError):
        return head_from_arrays(arrays, str(path))


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    return load_npy(io.BytesIO(content), len(content))


def write_head(path: str | Path, head: ParametricHead) -> None:
    """Write the compact npz: bases as int16 steps of 1/2048 cm. The name appears only when the file is complete."""
    path = Path(path)
    largest = max(float(head.identity_basis.abs().max()), float(head.expression_basis.abs().max()))
    scale = max(_BASIS_SCALE, largest / 32767.0)
    arrays = {
        "format": np.array(_FORMAT),
        "version": np.array(1),
        "vertices": head.vertices.cpu().numpy(),
        "triangles": head.triangles.cpu().numpy().astype(np.int32),
        "uv": head.uv.cpu().numpy(),
        "triangle_uv": head.triangle_uv.cpu().numpy().astype(np.int32),
        "part_names": np.array(head.part_names),
        "triangle_part": head.triangle_part.cpu().numpy().astype(np.uint8),
        "vertex_part": head.vertex_part.cpu().numpy().astype(np.uint8),
        "identity_basis": np.rint(head.identity_basis.cpu().numpy() / scale).astype(np.int16),
        "expression_basis": np.rint(head.expression_basis.cpu().numpy() / scale).astype(np.int16),
        "basis_scale": np.float32(scale),
        "expression_names": np.array(head.expression_names),
        "landmarks68": head.landmark_vertices.cpu().numpy().astype(np.int32),
        "eye_centers": head.eye_centers.cpu().numpy(),
        "eye_axes": head.eye_axes.cpu().numpy(),
        "name": np.array(head.name),
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


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
