"""How true meshes and their shapes are: rendered heads whose surfaces are known -> results/mesh.json.

python benchmarks/mesh.py --data TEST --head-model MODEL   (clips of `export3d heads render --motion independent`)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.face_state import FaceState, arkit_column
from export3d.files import file_sha256
from export3d.heads.clips.motion import EXPRESSION_NAMES, arkit_weights
from export3d.heads.clips.surface import surface_vertices
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import WORLD_SCALE, ParametricHead
from export3d.images import to_tensor
from export3d.mesh import HeadMesh, head_mesh, shape_offsets
from export3d.portrait import load_model
from export3d.portrait.loading import checkpoint_path
from material import save

MM = 10.0 / WORLD_SCALE
SHAPES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight")
DEEP_MM = 15.0
"""Points that lie deeper under the mesh than this (throat, gums) are no surface of the face."""


def dense(mesh: HeadMesh) -> tuple[np.ndarray, np.ndarray]:
    """Points on the mesh, four in each triangle, and the vertex next to each."""
    corners = mesh.vertices[mesh.triangles]
    inner = [(corners * np.array(w)[:, None]).sum(1) for w in ((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6))]
    points = np.concatenate([mesh.vertices, corners.mean(1), *inner])
    nearest = [np.arange(len(mesh.vertices)), mesh.triangles[:, 0], *mesh.triangles.T]
    return points, np.concatenate(nearest)


def scaled_distances(truth: np.ndarray, tree: cKDTree) -> tuple[np.ndarray, float]:
    """Distances ``(P,)`` in mm after the best of some scales about the face's centre, and that scale."""
    centre = truth.mean(0)
    tried = []
    for scale in np.linspace(0.94, 1.06, 13):
        tried.append((MM * tree.query(centre + scale * (truth - centre))[0], scale))
    return min(tried, key=lambda found: float(np.median(found[0])))


def compare_shapes(head: ParametricHead, truth: np.ndarray, found: dict, tree: cKDTree, nearest: np.ndarray) -> dict:
    """Of each shape: size along the true direction (1 is true) and cosine, medians over the points that truly move."""
    out = {}
    for name in SHAPES:
        true = np.zeros((len(truth), 3))
        for index, mode in enumerate(EXPRESSION_NAMES):
            if arkit_column(mode) == arkit_column(name.replace("Left", "_L").replace("Right", "_R")):
                true += WORLD_SCALE * head.expression_basis[index, surface_vertices(head)].numpy()
        size = np.linalg.norm(true, axis=1)
        gap, place = tree.query(truth)
        moving = (size > 0.4 * size.max()) & (MM * gap < 4.0)
        if name not in found or not moving.any():
            out[name] = {"size": 0.0, "cosine": 0.0, "points": int(moving.sum())}
            continue
        told = found[name][nearest[place[moving]]]
        dot = (told * true[moving]).sum(1)
        out[name] = {
            "size": float(np.median(dot / size[moving] ** 2)),
            "cosine": float(np.median(dot / np.maximum(np.linalg.norm(told, axis=1) * size[moving], 1e-9))),
            "points": int(moving.sum()),
        }
    return out


def one(model: Any, data: ClipDataset, index: int, head: ParametricHead, resolution: int) -> dict:
    arrays = data.arrays(index)
    weights = arkit_weights(arrays["weights"][:1])
    state = FaceState.of(beta=arrays["beta"][0], weights=weights[0], gaze=arrays["gaze"][0])
    camera = Camera.from_vector(torch.tensor(arrays["camera"][:1]))
    with torch.inference_mode():
        source = to_tensor(np.array(data.frame(index, 0)))[None]
        source = F.interpolate(source, size=(model.config.image_size,) * 2, mode="area")
        code = model.encode(source, camera, state)
    mesh = head_mesh(model, code, resolution=resolution)
    points, nearest = dense(mesh)
    tree = cKDTree(points)
    truth = arrays["surface"][0]
    outer = MM * tree.query(truth)[0] < DEEP_MM
    front = outer & (truth[:, 2] > -0.02)
    distances, scale = scaled_distances(truth[front], tree)
    corners = mesh.vertices[mesh.triangles]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0
    edges = np.sort(mesh.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    closed = bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())
    found = shape_offsets(model, code, mesh, names=SHAPES, landmarks=arrays["landmarks"][0])
    shapes = compare_shapes(head, truth, found, tree, nearest)
    return {
        "clip": data.keys[index],
        "watertight": closed,
        "outwards": bool(volume > 0),
        "vertices": len(mesh.vertices),
        "median_mm": float(np.median(distances)),
        "p90_mm": float(np.quantile(distances, 0.9)),
        "scale": float(scale),
        "shapes": shapes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--head-model", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--resolution", type=int, default=160)
    parser.add_argument("--save", action="store_true", help="write results/mesh.json")
    options = parser.parse_args()
    model, data, head = load_model(None), ClipDataset(options.data), load_head(options.head_model)
    rows = []
    for index in range(options.heads):
        rows.append(one(model, data, index, head, options.resolution))
        print(json.dumps(rows[-1]), flush=True)
    summary = {
        "heads": len(rows),
        "watertight": sum(row["watertight"] for row in rows),
        "outwards": sum(row["outwards"] for row in rows),
        "median_mm": float(np.median([row["median_mm"] for row in rows])),
        "p90_mm": float(np.median([row["p90_mm"] for row in rows])),
        "shapes": {
            name: {k: float(np.median([row["shapes"][name][k] for row in rows])) for k in ("size", "cosine")}
            for name in SHAPES
        },
    }
    print(json.dumps(summary, indent=1))
    if options.save:
        save("mesh", {"weights_sha256": file_sha256(checkpoint_path()), "summary": summary, "rows": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
