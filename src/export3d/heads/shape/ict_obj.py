"""Reader of ICT-FaceKit's own folder of OBJ files, the light model with the MIT licence (head of Eq. 11)."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from export3d.errors import HeadModelError
from export3d.heads.shape.model_file import head_from_arrays
from export3d.heads.shape.parametric import EXPRESSION_NAMES, EYE_CENTERS_CM, PARTS, ParametricHead

_ICT_VERTICES = 26719
# (first vertex, part name) of ICT-FaceKit's mesh; None is a helper surface that the renderer does not draw.
_ICT_PARTS: tuple[tuple[int, str | None], ...] = (
    (0, "face"),
    (9409, "head_neck"),
    (11248, "mouth_socket"),
    (13294, "eye_socket_left"),
    (13678, "eye_socket_right"),
    (14062, "gums_tongue"),
    (17039, "teeth"),
    (21451, "sclera_left"),
    (22221, None),  # inner iris
    (23021, "sclera_right"),
    (23791, None),  # inner iris, lacrimal fluid, eye blend and eye occlusion surfaces
    (25351, "lashes_left"),
    (26035, "lashes_right"),
)
# fmt: off
_ICT_LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)
# fmt: on


def head_from_ict_folder(path: str | Path) -> ParametricHead:
    """Import ICT-FaceKit's own folder of OBJ files (`FaceXModel`), the light model with the MIT licence.

    The folder holds `generic_neutral_mesh.obj`, `identity000.obj`, ... and one OBJ for each expression mode.
    Helper surfaces that the renderer does not draw (inner iris, tear fluid, eye blend) are dropped.

    Raises:
        HeadModelError: If a file is missing or a mesh does not have ICT-FaceKit's vertices.
    """
    return head_from_arrays(read_ict_folder(Path(path)), str(path))


def read_ict_folder(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `ParametricHead.from_npz`, with one identity or expression mode for each OBJ file of the folder.

    Raises:
        HeadModelError: If a file is missing or a mesh does not have ICT-FaceKit's vertices.
    """
    if not (folder / "generic_neutral_mesh.obj").is_file():
        raise HeadModelError(
            f"head model: {folder} has no generic_neutral_mesh.obj; give ICT-FaceKit's folder FaceXModel."
        )
    vertices, uv, corners, corner_uv = _read_obj(folder / "generic_neutral_mesh.obj")
    if len(vertices) != _ICT_VERTICES:
        raise HeadModelError(
            f"head model: {folder / 'generic_neutral_mesh.obj'} must have {_ICT_VERTICES} vertices; got {len(vertices)}."
        )
    identity_files = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    if len(identity_files) < 91:
        raise HeadModelError(f"head model: {folder} must hold at least 91 identityNNN.obj; got {len(identity_files)}.")
    expression_files = [folder / f"{name}.obj" for name in EXPRESSION_NAMES]
    for file in expression_files:
        if not file.is_file():
            raise HeadModelError(f"head model: {file} is missing; the folder must hold all of ICT-FaceKit's OBJ files.")
    _check_ict_order(vertices, folder)
    keep, triangles, triangle_uv, vertex_part, triangle_part = _ict_layout(corners, corner_uv)
    used_uv, triangle_uv = np.unique(triangle_uv, return_inverse=True)
    identity = _read_modes(identity_files, vertices, keep)
    expression = _read_modes(expression_files, vertices, keep)
    new_index = np.full(_ICT_VERTICES, -1)
    new_index[keep] = np.arange(len(keep))
    return {
        "vertices": vertices[keep],
        "triangles": new_index[triangles],
        "uv": uv[used_uv],
        "triangle_uv": triangle_uv.reshape(-1, 3),
        "part_names": np.array(PARTS),
        "triangle_part": triangle_part,
        "vertex_part": vertex_part,
        "identity_basis": identity,
        "expression_basis": expression,
        "basis_scale": np.array(1.0, np.float32),
        "expression_names": np.array(EXPRESSION_NAMES),
        "landmarks68": new_index[np.array(_ICT_LANDMARKS)],
        "name": np.array("ict-facekit"),
    }


def _ict_layout(
    corners: list[list[int]], corner_uv: list[list[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split polygons into triangles, name parts, drop helper surfaces -> (kept vertices, triangles, uv, parts)."""
    starts = np.array([start for start, _ in _ICT_PARTS])
    part_of_range = np.array([PARTS.index(name) if name else -1 for _, name in _ICT_PARTS])
    part = part_of_range[np.searchsorted(starts, np.arange(_ICT_VERTICES), side="right") - 1]
    triangles, triangle_uv = [], []
    for face, face_uv in zip(corners, corner_uv, strict=True):
        if part[face[0]] < 0:
            continue
        for k in range(1, len(face) - 1):
            triangles.append((face[0], face[k], face[k + 1]))
            triangle_uv.append((face_uv[0], face_uv[k], face_uv[k + 1]))
    keep = np.nonzero(part >= 0)[0]
    triangle_array = np.array(triangles)
    return keep, triangle_array, np.array(triangle_uv), part[keep], part[triangle_array[:, 0]]


def _check_ict_order(vertices: np.ndarray, folder: Path) -> None:
    """Earlier versions of ICT-FaceKit order their vertices differently; the eyeballs tell."""
    for start, center in ((21451, EYE_CENTERS_CM[0]), (23021, EYE_CENTERS_CM[1])):
        distance = float(np.linalg.norm(vertices[start : start + 770].mean(0) - np.array(center)))
        if distance > 1.5:
            raise HeadModelError(
                f"head model: in {folder} the vertices from {start} on are not an eyeball (their middle is "
                f"{distance:.1f} cm away); expected the vertex order of ICT-FaceKit of December 2020 or later."
            )


def _read_modes(files: list[Path], neutral: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """``(N, V, 3)`` displacements of OBJ files from the neutral mesh."""
    modes = []
    for file in files:
        vertices = _read_obj(file, faces=False)[0]
        if vertices.shape != neutral.shape:
            raise HeadModelError(f"head model: {file} must have {len(neutral)} vertices; got {len(vertices)}.")
        modes.append((vertices - neutral)[keep])
    return np.stack(modes)


def _read_obj(path: Path, faces: bool = True) -> tuple[np.ndarray, np.ndarray, list[list[int]], list[list[int]]]:
    """Vertices ``(V, 3)``, texture positions ``(M, 2)``, and per polygon the vertex and texture indices (from 0)."""
    corners: list[list[int]] = []
    corner_uv: list[list[int]] = []
    try:
        text = path.read_text(encoding="utf-8")
        vertices = _numbers(text, "v ", 3)
        uv = _numbers(text if faces else "", "vt ", 2)
        for line in text.splitlines() if faces else ():
            if line.startswith("f "):
                tokens = [token.split("/") for token in line.split()[1:]]
                corners.append([int(token[0]) - 1 for token in tokens])
                corner_uv.append([int(token[1]) - 1 if len(token) > 1 and token[1] else 0 for token in tokens])
    except (ValueError, OSError) as error:
        raise HeadModelError(f"head model: {path} is not a readable OBJ file ({error}).") from error
    return vertices, uv, corners, corner_uv


def _numbers(text: str, key: str, columns: int) -> np.ndarray:
    """``(N, columns)`` float32 from the lines that begin with `key`; further numbers of a line are not used."""
    # 150 files of 27,000 lines each: whole blocks of lines are read at once.
    block = "".join(match.group() for match in re.finditer(rf"(?m)(?:^{key}[^\n]*(?:\n|\Z))+", text))
    count = block.count(key)
    if count == 0:
        return np.zeros((0, columns), dtype=np.float32)
    width = len(block.split("\n", 1)[0].split()) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # text that is not a number ends the array: counted below
        values = np.fromstring(block.replace(key, " "), dtype=np.float32, sep=" ")
    if width < columns or values.size != width * count:
        raise ValueError(f"expected {columns} numbers in each of the {count} lines that begin with '{key}'")
    return values.reshape(count, width)[:, :columns]
