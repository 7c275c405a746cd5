"""Where the eyes look, read from the dense mesh: irises against lids and corners, by a linear map (no paper section).

The convention is that of the synthetic clips: radians in the head's frame, sideways (+ to the image right), then up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from export3d import __version__
from export3d.errors import CheckpointError
from export3d.files import write_atomically
from export3d.reading import reading
from export3d.tensor_files import read_tensor_file
from export3d.tracking.mesh_regressor import NUM_MESH, turn_to_template

FORMAT = "export3d-gaze"
VERSION = 1

GAZE_LIMIT_RAD = 0.45
"""Answers go no further than this, sideways or up and down; the synthetic eyes turn no further either."""

CLOSED_BELOW = 0.12
"""An eye whose lids are nearer than this share of its width tells nothing. Open ones of rendered heads have 0.2 to 0.4."""

_FARTHEST = 4.0
"""Features count up to this many standard deviations: unusual eyes must not reach beyond what the map has seen."""

# Each eye from its outer corner (place 0) over the upper lid (1-7), the inner corner (8) and the lower lid (9-15); then
# the iris: its centre and four points of its rim. The second list is the mirror image of the first.
EYE_IMAGE_LEFT = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, 468, 469, 470, 471, 472)
EYE_IMAGE_RIGHT = (
    *(263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    *(473, 476, 475, 474, 477),
)
_OUTER, _INNER = 0, 8
_UPPER, _LOWER = (3, 4, 5), (11, 12, 13)  # the middle of each lid

NUM_FEATURES = 3 * len(EYE_IMAGE_LEFT)


@dataclass(frozen=True, kw_only=True)
class GazeMap:
    """The map of one eye's points to gaze; the other eye's is its mirror image.

    The mesh is turned onto a template, which takes the head's pose out. The points of an eye are taken from the middle of
    its corners, in widths of the eye, x towards the outer corner.
    """

    template: np.ndarray
    """``(478, 3)`` float32, symmetric about x = 0."""
    steadiness: np.ndarray
    """``(478,)`` float32, sum 1: weights of the points in turning."""
    mean: np.ndarray
    """``(63,)`` float32 of the features of open eyes."""
    scale: np.ndarray
    """``(63,)`` float32, their spread."""
    weight: np.ndarray
    """``(63, 2)`` float32: standardised features -> outward, up (radians)."""
    bias: np.ndarray
    """``(2,)`` float32: outward and up of the mean eye."""

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"GazeMap: {name} must be finite float32 of shape {shape}; got {array.shape}")

    def read(self, mesh: np.ndarray) -> np.ndarray:
        """Mesh ``(478, 3)`` in any unit, x right, y down -> gaze ``(2,)`` float32; NaN where both eyes are closed."""
        if mesh.shape != (NUM_MESH, 3):
            raise ValueError(f"mesh must have shape ({NUM_MESH}, 3); got {mesh.shape}")
        if not np.isfinite(mesh).all():
            return unknown_gaze()
        return self.read_features(*eye_features(mesh[None], self.template, self.steadiness))[0]

    def read_features(self, features: np.ndarray, openings: np.ndarray) -> np.ndarray:
        """What :func:`eye_features` gives -> ``(N, 2)`` float32, the mean of the open eyes; NaN where there is none."""
        flat = np.clip((features - self.mean) / self.scale, -_FARTHEST, _FARTHEST)
        told = flat @ self.weight + self.bias  # (N, eye, outward and up)
        told[:, 0, 0] *= -1.0  # outward is to the image left for the eye at the image left
        seen = (openings >= CLOSED_BELOW)[..., None]
        count = seen.sum(axis=1)
        mean = np.where(seen, told, 0.0).sum(axis=1) / np.maximum(count, 1)
        return np.where(count > 0, np.clip(mean, -GAZE_LIMIT_RAD, GAZE_LIMIT_RAD), np.nan).astype(np.float32)

    def save(self, path: str | Path) -> str:
        """Write a safetensors file under a temporary name, rename it, and return its SHA-256."""
        metadata = {"format": FORMAT, "version": str(VERSION), "created_by": f"export3d {__version__}"}
        content = save({name: np.ascontiguousarray(getattr(self, name)) for name in _SHAPES}, metadata)
        write_atomically(Path(path), content)
        return hashlib.sha256(content).hexdigest()

    @staticmethod
    def load(path: str | Path | None = None) -> GazeMap:
        """Read a file of :meth:`save`; None is the bundled one.

        Raises:
            CheckpointError: Missing, damaged, another format or version, or arrays of wrong names or shapes.
        """
        return _load_bundled() if path is None else _load(Path(path))


_SHAPES: dict[str, tuple[int, ...]] = {
    "template": (NUM_MESH, 3),
    "steadiness": (NUM_MESH,),
    "mean": (NUM_FEATURES,),
    "scale": (NUM_FEATURES,),
    "weight": (NUM_FEATURES, 2),
    "bias": (2,),
}


def unknown_gaze() -> np.ndarray:
    """``(2,)`` float32 NaN: closed eyes, or a face tracker without irises."""
    return np.full(2, np.nan, dtype=np.float32)


def eye_features(meshes: np.ndarray, template: np.ndarray, steadiness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of both eyes without the head's pose, size and place.

    Args:
        meshes: ``(N, 478, 3)`` in any unit.
        template, steadiness: as in :class:`GazeMap`.

    Returns:
        Features ``(N, 2, 63)``, and the distance of the lids in widths of the eye ``(N, 2)``; first the eye at the image
        left.
    """
    given = torch.from_numpy(np.ascontiguousarray(meshes, dtype=np.float32))
    turned, _ = turn_to_template(given, torch.from_numpy(template), torch.from_numpy(steadiness))
    features, openings = [], []
    for eye, outward in ((EYE_IMAGE_LEFT, -1.0), (EYE_IMAGE_RIGHT, 1.0)):
        points = turned.numpy()[:, eye] * np.array([outward, 1.0, 1.0], dtype=np.float32)
        corners = points[:, [_OUTER, _INNER]]
        width = np.linalg.norm(corners[:, 0, :2] - corners[:, 1, :2], axis=1)[:, None, None]
        points = (points - corners.mean(axis=1, keepdims=True)) / np.maximum(width, np.float32(1e-6))
        gap = points[:, _LOWER].mean(axis=1) - points[:, _UPPER].mean(axis=1)
        features.append(points.reshape(len(points), -1))
        openings.append(np.linalg.norm(gap[:, :2], axis=1))
    return np.stack(features, axis=1), np.stack(openings, axis=1)


@cache
def _load_bundled() -> GazeMap:
    return _load(Path(__file__).resolve().parent.parent / "assets" / "gaze.safetensors")


def _load(path: Path) -> GazeMap:
    _, arrays = read_tensor_file(
        path,
        kind="gaze",
        format_name=FORMAT,
        version=str(VERSION),
        error=CheckpointError,
        remedy="Install export3d again, or run: export3d train-gaze",
    )
    with reading(path, "not the arrays of a gaze map", CheckpointError, "Make it again."):
        return GazeMap(**arrays)
