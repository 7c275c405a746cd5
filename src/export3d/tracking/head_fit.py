"""The camera from the dense mesh: a weighted fit of a mean head, in perspective, then a learned correction (Sec. 3.3).

The mean head's 478 points lie in the head model's world, so what is fitted is the camera of the synthetic clips itself: how
the head is turned, and where it lies in the crop and how far. The fit works at any roll. What a face differs from the mean by,
and above all how it moves, shifts the answer, and does so differently from each side; a small network reads that off the
residual face, turned to the front, and off from where it is seen, and takes it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from export3d.camera import FOCAL
from export3d.tracking.alignment import Crop
from export3d.tracking.linear_map import StoredMap

NUM_MESH = 478
COMPONENTS = 120
"""Principal components of the turned face that the correction reads."""
HIDDEN = 128
"""Width of the correction's hidden layer."""

_FARTHEST = 4.0
"""Components count up to so many standard deviations: an unusual face must not reach beyond what was learned."""
_ASIDE = 0.25
"""About the spread of how far aside faces are seen."""

STEPS = 3
"""Gauss-Newton steps: the first guess is within some degrees, the third step within 0.02."""

_FLIP = np.diag([1.0, -1.0, -1.0])
_INTRINSICS = np.array([FOCAL, 0.0, 0.5, 0.0, FOCAL, 0.5, 0.0, 0.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class HeadPose:
    """How a head lies before the camera of a square picture."""

    rotation: np.ndarray
    """``(3, 3)`` world to camera (OpenCV axes)."""
    origin: np.ndarray
    """``(3,)`` the world origin in camera coordinates, scene units."""

    def camera(self) -> np.ndarray:
        """Camera p ``(25,)`` float32."""
        world = np.eye(4)
        world[:3, :3] = self.rotation.T
        world[:3, 3] = -self.rotation.T @ self.origin
        return np.concatenate([world.reshape(-1), _INTRINSICS]).astype(np.float32)

    @staticmethod
    def of_camera(camera: np.ndarray) -> HeadPose:
        """The inverse of :meth:`camera`; the intrinsics are the fixed ones."""
        world = np.asarray(camera[:16], dtype=np.float64).reshape(4, 4)
        rotation = world[:3, :3].T
        return HeadPose(rotation=rotation, origin=-rotation @ world[:3, 3])

    def seen_in(self, crop: Crop, window: Crop) -> HeadPose:
        """The pose that shows the same in `window` as this one in `crop`, two upright squares of one frame.

        Lens and picture size stay as they are: the head goes nearer or farther by the ratio of the sides, and turns with
        the line of sight as it goes aside.
        """
        nearer = crop.side / window.side
        centre = np.array([crop.center_x - window.center_x, crop.center_y - window.center_y]) / window.side
        seen = centre + nearer * FOCAL * self.origin[:2] / self.origin[2]
        depth = self.origin[2] / nearer
        origin = np.append(seen * depth / FOCAL, depth)
        return HeadPose(rotation=smallest_turn(self.origin, origin) @ self.rotation, origin=origin)


@dataclass(frozen=True, kw_only=True)
class HeadFit(StoredMap):
    """The mean head, and the network that corrects its fit."""

    NAME, COMMAND, VERSION = "head-fit", "train-camera", "3"
    SHAPES: ClassVar[dict[str, tuple[int, ...]]] = {
        "template": (NUM_MESH, 3),
        "weight": (NUM_MESH,),
        "mean": (3 * NUM_MESH,),
        "basis": (3 * NUM_MESH, COMPONENTS),
        "inner": (COMPONENTS + 2, HIDDEN),
        "inner_bias": (HIDDEN,),
        "outer": (HIDDEN, 6),
        "bias": (6,),
    }

    template: np.ndarray
    """``(478, 3)`` float32, the mean head's points in the world, scene units."""
    weight: np.ndarray
    """``(478,)`` float32, sum 1: how much each point is trusted."""
    mean: np.ndarray
    """``(1434,)`` float32, the mean turned face (:meth:`turned`)."""
    basis: np.ndarray
    """``(1434, 120)`` float32: a turned face minus the mean to components, in their standard deviations."""
    inner: np.ndarray
    """``(122, 128)`` float32: :meth:`features` to the hidden layer."""
    inner_bias: np.ndarray
    """``(128,)`` float32."""
    outer: np.ndarray
    """``(128, 6)`` float32: the hidden layer to a rotation vector in the head's axes (3), a shift of the origin (2), and the
    logarithm of the factor on its distance (1)."""
    bias: np.ndarray
    """``(6,)`` float32."""

    def fit(self, mesh: np.ndarray) -> HeadPose:
        """Mesh ``(478, 3)`` in units of the crop's side, x and y from its corner -> pose in the crop."""
        pose = self.fit_mean(mesh)
        features = self.features(self.turned(mesh, pose), pose)
        hidden = features @ self.inner + self.inner_bias
        return corrected(pose, hidden / (1.0 + np.exp(-hidden)) @ self.outer + self.bias)

    def features(self, face: np.ndarray, pose: HeadPose) -> np.ndarray:
        """``(122,)`` float32: components of a turned face ``(1434,)``, and from how far aside and above it is seen. How the
        picture is turned in its plane changes nothing."""
        components = (face - self.mean).astype(np.float32) @ self.basis
        place = (pose.rotation.T @ pose.origin)[:2] / (_ASIDE * np.linalg.norm(pose.origin))
        return np.concatenate([components.clip(-_FARTHEST, _FARTHEST), place.astype(np.float32)])

    def fit_mean(self, mesh: np.ndarray) -> HeadPose:
        """The same without the correction: least squares of the weighted distances in the picture."""
        if mesh.shape != (NUM_MESH, 3) or not np.isfinite(mesh).all():
            raise ValueError(f"mesh must be finite and of shape ({NUM_MESH}, 3); got {mesh.shape}")
        given = mesh.astype(np.float64)
        template, weight = self._exact
        points, twice = given[:, :2].T - 0.5, np.concatenate([weight, weight])
        rotation, origin = self._first_guess(given)
        rows = np.zeros((6, 2, NUM_MESH))
        flat = rows.reshape(6, -1)
        for _ in range(STEPS):
            turned = rotation @ template
            x, y, z = turned
            lens = FOCAL / (z + origin[2])
            seen = (turned[:2] + origin[:2, None]) * lens
            # A small turn v moves a turned point q by v x q, so the slope s gives s . (v x q) = v . (q x s). The slopes of a
            # point's place in the picture are (lens, 0, -across / depth) and (0, lens, -down / depth).
            rows[3, 0] = rows[4, 1] = lens
            rows[5] = aside = seen * (-lens / FOCAL)
            rows[0], rows[1] = y * aside, -x * aside
            ahead = z * lens
            rows[1, 0] += ahead
            rows[0, 1] -= ahead
            rows[2] = -y * lens, x * lens
            weighted = flat * twice
            step = np.linalg.solve(weighted @ flat.T, weighted @ (points - seen).reshape(-1))
            rotation, origin = rotation_of(step[:3]) @ rotation, origin + step[3:]
        return HeadPose(rotation=rotation, origin=origin)

    def turned(self, mesh: np.ndarray, pose: HeadPose) -> np.ndarray:
        """``(1434,)`` the mesh in scene units, turned to the front, about its weighted centre."""
        scaled = mesh.astype(np.float64) * (pose.origin[2] / FOCAL)
        centred = scaled - self._exact[1] @ scaled
        flat: np.ndarray = (centred @ pose.rotation).reshape(-1)
        return flat

    @cached_property
    def _exact(self) -> tuple[np.ndarray, np.ndarray]:
        """Template ``(3, 478)`` and weights ``(478,)``, float64."""
        return np.ascontiguousarray(self.template.T, dtype=np.float64), self.weight.astype(np.float64)

    @cached_property
    def _about(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Weighted centre ``(3,)`` of the template, its points about that by weight ``(478, 3)``, mean square of both."""
        template, weight = self._exact
        about = template.T - template @ weight
        return template @ weight, about * weight[:, None], float(weight @ (about**2).sum(axis=1))

    def _first_guess(self, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotation and origin from the mesh's own depth, without perspective."""
        middle, wanted, spread = self._about
        centre = self._exact[1] @ mesh
        left, size, right = np.linalg.svd((mesh - centre).T @ wanted)
        sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
        rotation = (left * sign) @ right
        depth = FOCAL / max(float(size @ sign) / spread, 1e-6)  # the quotient: sides of the crop per scene unit
        seen = np.append((centre[:2] - 0.5) * depth / FOCAL, depth)
        return rotation, seen - rotation @ middle


def in_plane(pose: HeadPose) -> np.ndarray:
    """``(2, 2)`` the rotation of the picture's plane that levels the head."""
    x, y = pose.rotation[:2, 0] / max(float(np.hypot(*pose.rotation[:2, 0])), 1e-12)
    return np.array([[x, y], [-y, x]])


def corrected(pose: HeadPose, step: np.ndarray) -> HeadPose:
    """A pose after a correction ``(6,)`` as of `HeadFit.outer`; the shift is given for a level head."""
    origin = np.append(pose.origin[:2] + in_plane(pose).T @ step[3:5], pose.origin[2] * np.exp(step[5]))
    return HeadPose(rotation=pose.rotation @ rotation_of(step[:3]), origin=origin)


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Rotation vector ``(3,)`` -> matrix ``(3, 3)`` (Rodrigues)."""
    x, y, z = (float(value) for value in vector)
    angle = math.hypot(x, y, z)
    x, y, z = (value / max(angle, 1e-12) for value in (x, y, z))
    s, c, d = math.sin(angle), math.cos(angle), 1.0 - math.cos(angle)
    top = (c + d * x * x, d * x * y - s * z, d * x * z + s * y)
    middle = (d * x * y + s * z, c + d * y * y, d * y * z - s * x)
    return np.array([top, middle, (d * x * z - s * y, d * y * z + s * x, c + d * z * z)])


def vector_of(rotation: np.ndarray) -> np.ndarray:
    """The inverse of `rotation_of` for turns of less than half a circle."""
    skew = (rotation - rotation.T) / 2.0
    sine = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    length = float(np.linalg.norm(sine))
    angle = np.arctan2(length, (np.trace(rotation) - 1.0) / 2.0)
    return sine * angle / max(length, 1e-12)


def smallest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation ``(3, 3)`` that takes the direction of one vector ``(3,)`` to that of another; they must not
    be opposite."""
    (a, b, c), (x, y, z) = start, end
    axis = np.array([b * z - c * y, c * x - a * z, a * y - b * x])  # `np.cross` takes many times as long
    length = float(np.linalg.norm(axis))
    angle = np.arctan2(length, float(start @ end))
    return rotation_of(axis / max(length, 1e-12) * angle)
