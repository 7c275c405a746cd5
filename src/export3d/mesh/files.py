"""Meshes as files: glTF binary (photograph as texture, shapes as morph targets), PLY and OBJ (coloured vertices)."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.errors import UsageError
from export3d.files import write_atomically
from export3d.mesh.shapes import shape_offsets
from export3d.mesh.surface import HeadMesh, head_mesh
from export3d.portrait import Model, PortraitModel

METRES = 0.47
"""A scene unit in metres, in which glTF counts."""

_FLOAT, _UINT = 5126, 5125  # glTF's component types
_POINTS, _INDICES = 34962, 34963  # and the targets of its buffer views


def write_head(
    path: Path,
    model: Model,
    code: Any,
    picture: np.ndarray,
    *,
    landmarks: np.ndarray | None = None,
    shapes: bool = False,
    resolution: int = 160,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write a portrait's head; returns what there is in the file, in words.

    Args:
        code, picture: of the portrait, the picture as `write_mesh` takes it.
        landmarks: ``(68, 2)`` in [0, 1] of the picture; without them, lids hardly move.
        shapes: with ARKit's shapes as morph targets; `progress` is told the number done (0 while the surface is sought).
        resolution: see `head_mesh`.

    Raises:
        UsageError: The paper's model.
        MissingExtraError, OutputError: See `head_mesh` and `write_mesh`.
    """
    if not isinstance(model, PortraitModel):
        raise UsageError("a mesh needs the bundled kind of model; the paper's model does not know the photograph.")
    mesh = head_mesh(model, code, resolution=resolution, tick=progress and partial(progress, 0))
    moved = shape_offsets(model, code, mesh, landmarks=landmarks, progress=progress) if shapes else {}
    write_mesh(path, mesh, picture, moved)
    told = f", {len(moved)} shapes" if shapes else ""
    return f"{len(mesh.vertices)} vertices, {len(mesh.triangles)} triangles{told}"


def write_mesh(
    path: str | Path, mesh: HeadMesh, picture: np.ndarray, shapes: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write ``.glb``, ``.ply`` or ``.obj``, in metres.

    Args:
        picture: uint8 ``(H, W, 3)``, the portrait's crop: the texture.
        shapes: name -> displacements ``(V, 3)``, scene units; glTF only.

    Raises:
        OutputError: The file cannot be written.
    """
    path = Path(path)
    make = {".glb": _glb, ".ply": _ply, ".obj": _obj}[path.suffix.lower()]
    write_atomically(path, make(mesh, picture, shapes or {}))


def vertex_colours(mesh: HeadMesh, picture: np.ndarray) -> np.ndarray:
    """``(V, 3)`` uint8: the photograph's where it shows the vertex, else the model's."""
    size = np.array(picture.shape[1::-1])
    column, row = np.clip((mesh.uv * size).astype(int), 0, size - 1).T
    own = np.round(255.0 * mesh.colours).astype(np.uint8)
    return np.where(mesh.seen[:, None], picture[row, column], own)


def _ply(mesh: HeadMesh, picture: np.ndarray, _: Mapping[str, np.ndarray]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    lines += [f"element face {len(mesh.triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    points = np.zeros(len(mesh.vertices), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points["xyz"], points["rgb"] = METRES * mesh.vertices, vertex_colours(mesh, picture)
    faces = np.zeros(len(mesh.triangles), dtype=[("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, mesh.triangles
    return "\n".join(lines).encode() + points.tobytes() + faces.tobytes()


def _obj(mesh: HeadMesh, picture: np.ndarray, _: Mapping[str, np.ndarray]) -> bytes:
    points = np.hstack([METRES * mesh.vertices, vertex_colours(mesh, picture) / 255.0])
    lines = ["v {:.6f} {:.6f} {:.6f} {:.4f} {:.4f} {:.4f}".format(*row) for row in points]
    lines += ["f {} {} {}".format(*row) for row in mesh.triangles + 1]
    return ("\n".join(lines) + "\n").encode()


class _Buffer:
    """The binary part of a glTF file, with its views and accessors."""

    def __init__(self) -> None:
        self.bytes, self.views, self.accessors = bytearray(), [], []

    def view(self, content: bytes, target: int | None = None) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.bytes), "byteLength": len(content)})
        if target is not None:
            self.views[-1]["target"] = target
        self.bytes += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def array(self, values: np.ndarray, kind: str) -> int:
        whole = values.dtype.kind in "iu"
        values = np.ascontiguousarray(values, dtype="<u4" if whole else "<f4")
        told: dict[str, Any] = {"componentType": _UINT if whole else _FLOAT, "count": len(values), "type": kind}
        if kind == "VEC3":
            told |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append({"bufferView": self.view(values.tobytes(), _INDICES if whole else _POINTS), **told})
        return len(self.accessors) - 1


def _glb(mesh: HeadMesh, picture: np.ndarray, shapes: Mapping[str, np.ndarray]) -> bytes:
    """Two primitives share the vertices: one shows the photograph, the other the model's colours where it shows nothing."""
    buffer, jpeg = _Buffer(), io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=95)
    points = {"POSITION": buffer.array(METRES * mesh.vertices, "VEC3"), "NORMAL": buffer.array(_normals(mesh), "VEC3")}
    looks = (
        {"TEXCOORD_0": buffer.array(mesh.uv, "VEC2")},
        {"COLOR_0": buffer.array(_linear(vertex_colours(mesh, picture) / 255.0), "VEC3")},
    )
    targets = [{"POSITION": buffer.array(METRES * offset, "VEC3")} for offset in shapes.values()]
    in_photo = mesh.seen[mesh.triangles].all(axis=1)
    primitives = []
    for material, (look, chosen) in enumerate(zip(looks, (in_photo, ~in_photo), strict=True)):
        if chosen.any():
            indices = buffer.array(mesh.triangles[chosen].reshape(-1), "SCALAR")
            primitives.append({"attributes": points | look, "indices": indices, "material": material})
            if targets:
                primitives[-1]["targets"] = targets
    rough = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
    head: dict[str, Any] = {"name": "head", "primitives": primitives}
    if targets:
        head |= {"weights": [0.0] * len(targets), "extras": {"targetNames": list(shapes)}}
    tree = {
        "asset": {"version": "2.0", "generator": "Export3D"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "head"}],
        "meshes": [head],
        "materials": [
            {"name": "photograph", "pbrMetallicRoughness": {**rough, "baseColorTexture": {"index": 0}}},
            {"name": "unseen", "pbrMetallicRoughness": rough},
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": buffer.view(jpeg.getvalue()), "mimeType": "image/jpeg"}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.bytes)}],
    }
    told = json.dumps(tree, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 4)
    chunks = struct.pack("<I4s", len(told), b"JSON") + told
    chunks += struct.pack("<I4s", len(buffer.bytes), b"BIN\0") + bytes(buffer.bytes)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _normals(mesh: HeadMesh) -> np.ndarray:
    """``(V, 3)`` unit normals: the mean of the triangles around, by their area."""
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    total = np.zeros_like(mesh.vertices)
    for k in range(3):
        np.add.at(total, mesh.triangles[:, k], face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] -> linear light, in which glTF has vertex colours."""
    return np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
