"""What the tests of meshes share."""

from __future__ import annotations

import numpy as np
import pytest

from export3d.mesh import HeadMesh

RADIUS = 0.2


@pytest.fixture
def half() -> tuple[HeadMesh, np.ndarray]:
    """A ball whose front is seen by a photograph that is green."""
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(3, RADIUS)
    points = np.asarray(sphere.vertices, np.float32)
    mesh = HeadMesh(
        vertices=points,
        triangles=np.asarray(sphere.faces, np.int32),
        colours=np.tile(np.float32([1.0, 0.0, 0.0]), (len(points), 1)),
        places=points,
        uv=0.5 + points[:, :2] * [1.0, -1.0],
        seen=points[:, 2] > 0.0,
    )
    return mesh, np.tile(np.uint8([0, 200, 0]), (32, 48, 1))
