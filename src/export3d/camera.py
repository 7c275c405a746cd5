"""Camera p in R^25 (Sec. 3.3; EG3D's conventions). The only code that knows the layout of the 25 numbers.

Axes: OpenCV (x right, y down, z forward) for the camera; the world has x to the image right, y up and z towards the
camera for a frontal face. Intrinsics are normalised by the image size. EG3D's order: cam2world (16), then K (9).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.checks import check_shape

RADIUS = 2.7
"""Distance of the camera from the world origin, in scene units (EG3D, FFHQ and in-the-wild pipeline)."""

FOCAL = 2985.29 / 700.0
"""Normalised focal length, 4.2647 (EG3D: the 224 crop's focal length carried over to the 700 crop)."""

_MAX_CAMERA_VALUE = 1e4
_ROTATION_TOLERANCE = 0.05

_CAMERA_FLIP = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras.

    Attributes:
        cam_to_world: ``(B, 4, 4)`` rigid transforms, OpenCV camera axes, scene units.
        intrinsics: ``(B, 3, 3)``, normalised by width and height.
    """

    cam_to_world: Tensor
    intrinsics: Tensor

    def __post_init__(self) -> None:
        check_shape("cam_to_world", self.cam_to_world, None, 4, 4)
        check_shape("intrinsics", self.intrinsics, self.cam_to_world.shape[0], 3, 3)

    @staticmethod
    def from_vector(p: Tensor) -> Camera:
        """``(B, 25)`` = [cam2world 16 row-major | K 9 row-major] -> Camera."""
        check_shape("p", p, None, 25)
        return Camera(p[:, :16].reshape(-1, 4, 4), p[:, 16:].reshape(-1, 3, 3))

    @staticmethod
    def of_array(p: np.ndarray) -> Camera:
        """One camera p ``(25,)`` -> Camera, B = 1, float32."""
        return Camera.from_vector(torch.from_numpy(np.array(p, dtype=np.float32))[None])

    def to_vector(self) -> Tensor:
        """Camera -> ``(B, 25)``, EG3D's order."""
        return torch.cat([self.cam_to_world.flatten(1), self.intrinsics.flatten(1)], dim=1)

    @staticmethod
    def look_at_head(
        yaw: Tensor | float = 0.0,
        pitch: Tensor | float = 0.0,
        roll: Tensor | float = 0.0,
        shift: Tensor | None = None,
        radius: float = RADIUS,
    ) -> Camera:
        """Camera that sees a head turned by yaw, pitch, roll (radians), as if the camera stood still.

        The head rotation is R = Ry(yaw) Rx(pitch) Rz(roll) in the frame of a camera on +z; positive yaw turns the face
        to the image right, positive pitch downwards. The returned camera is the inverse motion around the world origin.

        Args:
            shift: optional ``(B, 3)`` camera displacement (x, y, distance) in scene units, before the rotation.
        """
        device = next((a.device for a in (yaw, pitch, roll, shift) if isinstance(a, Tensor)), None)
        angles = torch.broadcast_tensors(
            *(torch.as_tensor(a, dtype=torch.float32, device=device).reshape(-1) for a in (yaw, pitch, roll))
        )
        head = head_rotation(*angles)  # (B, 3, 3)
        batch = head.shape[0]
        position = torch.tensor([0.0, 0.0, radius], device=head.device).expand(batch, 3)
        if shift is not None:
            position = position + shift.to(head)
        world = torch.eye(4, device=head.device).repeat(batch, 1, 1)
        world[:, :3, :3] = head.transpose(1, 2) * torch.tensor(_CAMERA_FLIP, device=head.device)
        world[:, :3, 3] = (head.transpose(1, 2) @ position[..., None])[..., 0]
        return Camera(world, default_intrinsics(batch, device=head.device))

    @staticmethod
    def from_deep3d(angles: Tensor, translation: Tensor, position_mode: str = "orig") -> Camera:
        """Camera from Deep3DFaceRecon's pose, EG3D's in-the-wild steps 4-5 (R = Rz Ry Rx; 0.27 c + offset).

        Args:
            angles: ``(B, 3)`` radians, x pitch, y yaw, z roll.
            translation: ``(B, 3)`` model units.
            position_mode: ``orig`` scales the position to length 2.7 about the origin (EG3D's default); ``cor`` puts
                it at distance 2.7 from (0, 0, 0.175); ``exact`` keeps 0.27 c without offset.
        """
        check_shape("angles", angles, None, 3)
        check_shape("translation", translation, angles.shape[0], 3)
        x, y, z = angles.unbind(-1)
        rotation = _rot_z(z) @ _rot_y(y) @ _rot_x(x)
        camera_rotation = rotation.transpose(1, 2)
        offset = translation - translation.new_tensor([0.0, 0.0, 10.0])
        centre = -(camera_rotation @ offset[..., None])[..., 0]
        if position_mode == "exact":
            position = 0.27 * centre
        elif position_mode in ("orig", "cor"):
            position = 0.27 * centre + centre.new_tensor([0.0, 0.006, 0.161])
            pivot = centre.new_tensor([0.0, 0.0, 0.175 if position_mode == "cor" else 0.0])
            towards = position - pivot
            position = pivot + RADIUS * towards / towards.norm(dim=-1, keepdim=True)
        else:
            raise ValueError(f"position_mode must be 'orig', 'cor' or 'exact'; got '{position_mode}'")
        world = torch.eye(4, dtype=angles.dtype, device=angles.device).repeat(angles.shape[0], 1, 1)
        world[:, :3, :3] = camera_rotation * camera_rotation.new_tensor(_CAMERA_FLIP)
        world[:, :3, 3] = position
        return Camera(world, default_intrinsics(angles.shape[0], dtype=angles.dtype, device=angles.device))

    def mirrored(self) -> Camera:
        """The camera of the left-right mirrored image (x -> -x in the world and in the camera)."""
        flip = torch.diag(self.cam_to_world.new_tensor([-1.0, 1.0, 1.0, 1.0]))
        return Camera(flip @ self.cam_to_world @ flip, self.intrinsics)

    def head_angles(self) -> Tensor:
        """``(B, 3)`` yaw, pitch, roll in radians: the inverse of :meth:`look_at_head`."""
        flip = self.cam_to_world.new_tensor(_CAMERA_FLIP)
        head = (self.cam_to_world[:, :3, :3] * flip).transpose(1, 2)
        yaw = torch.atan2(head[:, 0, 2], head[:, 2, 2])
        pitch = torch.asin((-head[:, 1, 2]).clamp(-1.0, 1.0))
        roll = torch.atan2(head[:, 1, 0], head[:, 1, 1])
        return torch.stack([yaw, pitch, roll], dim=-1)

    def head_turn(self) -> Tensor:
        """``(B, 3)`` rotation vector of the head in the camera's frame (x right, y up, z towards the camera), radians: the
        head turns by the vector's length around its direction, less than half a turn."""
        flip = self.cam_to_world.new_tensor(_CAMERA_FLIP)
        head = (self.cam_to_world[:, :3, :3] * flip).transpose(1, 2)
        cosine = ((head.diagonal(dim1=1, dim2=2).sum(-1) - 1.0) / 2.0).clamp(-1.0, 1.0)
        angle = torch.acos(cosine)
        axis = torch.stack(
            [head[:, 2, 1] - head[:, 1, 2], head[:, 0, 2] - head[:, 2, 0], head[:, 1, 0] - head[:, 0, 1]], dim=-1
        )
        return axis * (angle / (2.0 * angle.sin()).clamp(min=1e-6))[:, None]

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points ``(B, P, 3)`` -> positions ``(B, P, 2)`` in [0, 1] (x right, y down), z-depth ``(B, P)``."""
        check_shape("points", points, self.cam_to_world.shape[0], None, 3)
        with torch.autocast(
            points.device.type, enabled=False
        ):  # in bfloat16 a position would be off by part of a pixel
            local = (points - self.cam_to_world[:, None, :3, 3]) @ self.cam_to_world[:, :3, :3]
        depth = local[..., 2]
        x = local[..., 0] / depth * self.intrinsics[:, None, 0, 0] + self.intrinsics[:, None, 0, 2]
        y = local[..., 1] / depth * self.intrinsics[:, None, 1, 1] + self.intrinsics[:, None, 1, 2]
        return torch.stack([x, y], dim=-1), depth

    def world_to_cam(self) -> tuple[Tensor, Tensor]:
        """Rotations ``(B, 3, 3)`` world -> camera and the world origin in camera axes ``(B, 3)``."""
        rotation = self.cam_to_world[:, :3, :3].transpose(1, 2)
        return rotation, -(rotation @ self.cam_to_world[:, :3, 3:])[..., 0]

    @staticmethod
    def from_world_to_cam(rotation: Tensor, origin: Tensor, intrinsics: Tensor) -> Camera:
        """The inverse of `world_to_cam`: ``(B, 3, 3)``, ``(B, 3)`` and intrinsics ``(B, 3, 3)`` -> B cameras."""
        world = torch.eye(4, dtype=rotation.dtype, device=rotation.device).repeat(len(rotation), 1, 1)
        world[:, :3, :3] = rotation.transpose(1, 2)
        world[:, :3, 3] = -(rotation.transpose(1, 2) @ origin[..., None])[..., 0]
        return Camera(world, intrinsics)

    def to(self, device: torch.device | str) -> Camera:
        """The same cameras on another device."""
        return Camera(self.cam_to_world.to(device), self.intrinsics.to(device))

    def __len__(self) -> int:
        return self.cam_to_world.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Camera:
        return Camera(self.cam_to_world[index], self.intrinsics[index])


def default_intrinsics(
    batch: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """``(B, 3, 3)`` intrinsics with focal length 4.2647 and centre 0.5."""
    matrix = torch.tensor([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]], dtype=dtype, device=device)
    return matrix.repeat(batch, 1, 1)


def head_rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """``(B, 3, 3)`` R = Ry(yaw) Rx(pitch) Rz(roll), radians, in a frame with x right, y up, z towards the viewer."""
    return _rot_y(yaw) @ _rot_x(pitch) @ _rot_z(roll)


def rotation_angle_deg(a: Camera, b: Camera) -> Tensor:
    """``(B,)`` angle in degrees of the rotation between two cameras."""
    relative = a.cam_to_world[:, :3, :3].transpose(1, 2) @ b.cam_to_world[:, :3, :3]
    trace = relative.diagonal(dim1=1, dim2=2).sum(-1)
    return torch.acos(((trace - 1.0) / 2.0).clamp(-1.0, 1.0)) * (180.0 / math.pi)


def _rot_x(angle: Tensor) -> Tensor:
    return _rotation(angle, 1, 2)


def _rot_y(angle: Tensor) -> Tensor:
    return _rotation(angle, 2, 0)


def _rot_z(angle: Tensor) -> Tensor:
    return _rotation(angle, 0, 1)


def _rotation(angle: Tensor, first: int, second: int) -> Tensor:
    """Right-handed rotation by `angle` in the plane that turns axis `first` towards axis `second`."""
    out = torch.eye(3, dtype=angle.dtype, device=angle.device).repeat(angle.shape[0], 1, 1)
    cos, sin = angle.cos(), angle.sin()
    out[:, first, first] = cos
    out[:, second, second] = cos
    out[:, first, second] = -sin
    out[:, second, first] = sin
    return out


def camera_problem(vectors: np.ndarray) -> str | None:
    """What keeps camera vectors ``(T, 25)`` from being cameras, or None: no rotation, no focal length, or absurdly far."""
    pose, intrinsics = vectors[:, :16].reshape(-1, 4, 4).astype(np.float64), vectors[:, 16:].reshape(-1, 3, 3)
    good = (np.abs(vectors) < _MAX_CAMERA_VALUE).all(axis=1) & (intrinsics[:, 0, 0] > 0) & (intrinsics[:, 1, 1] > 0)
    turn = np.where(good[:, None, None], pose[:, :3, :3], np.eye(3))
    good &= np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0.0) < _ROTATION_TOLERANCE
    if good.all():
        return None
    return f"camera of frame {int(np.argmin(good))} is no camera (no rotation, no focal length, or absurdly large)"
