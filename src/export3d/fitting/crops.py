"""Crops of a face tracker's points: the alignment that gives the clips' crops, and the camera of a crop (Sec. 4, data)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.tracking.alignment import Alignment, fit_affine, five_points


def fit_points_alignment(landmarks: np.ndarray) -> Alignment:
    """The five-point alignment whose crops look like the clips: the head's pivot at the centre, the same size.

    EG3D's alignment puts another point of the head at the centre, and shows it larger, than the camera of the
    synthetic heads does. Origin and scale are fitted by least squares over all frames, so that on average the crop
    of a frame is the frame itself.

    Args:
        landmarks: ``(N, 68, 2)`` in [0, 1] of the clips' frames, exact or a face tracker's.
    """
    matrix, translation = fit_affine(five_points(landmarks))
    # The camera looks at the world origin up to its shift, so the wanted centre is (0.5, 0.5) on average.
    wanted = np.array([0.5, -0.5]) - translation
    origin = np.linalg.lstsq(matrix.reshape(-1, 3), wanted.reshape(-1), rcond=None)[0]
    scale = np.linalg.norm(matrix, axis=-1).mean(axis=-1)
    rescale = float(np.exp(np.log(scale).mean())) * 700.0
    return Alignment(rescale=rescale, target=1024.0, crop=700.0, origin=(0.0, float(origin[1]), float(origin[2])))


def fold_crop(camera: Camera, squares: Tensor, points: Tensor) -> Camera:
    """Cameras with the same intrinsics that see a crop of the picture as the old cameras see the whole.

    The camera turns until its axis goes through the centre of the crop, which moves the picture exactly up to a slight
    keystone. Magnification is folded into the position: with the new rotation, projection is linear in the position
    once both sides are multiplied by the depth, so the position that reprojects the points best is a 3 x 3 solve. What
    remains is the difference between a longer lens and a nearer camera, a fraction of a pixel.

    Args:
        camera: N cameras of the whole picture.
        squares: ``(N, 3)`` centre x, centre y and side of the crops in [0, 1] of the picture.
        points: ``(N, 68, 3)`` points in the world that are to be reprojected.
    """
    focal = camera.intrinsics[:, 0, 0, None]
    wanted = (camera.project(points)[0] - squares[:, None, :2]) / squares[:, None, 2:]  # (N, 68, 2) about the centre
    axis = torch.cat([(squares[:, :2] - camera.intrinsics[:, :2, 2]) / focal, torch.ones_like(focal)], dim=1)
    rotation = camera.cam_to_world[:, :3, :3] @ _turn_to(nn.functional.normalize(axis, dim=1))
    turned = points @ rotation  # camera axes, up to the translation t that is sought
    # wanted_x (z + t_z) = focal (x + t_x), and the same for y: two equations for each point.
    zero, lens = torch.zeros_like(turned[..., 0]), focal.expand(turned.shape[:2])
    rows = [torch.stack(row, dim=-1) for row in ((lens, zero, -wanted[..., 0]), (zero, lens, -wanted[..., 1]))]
    left = torch.cat(rows, dim=1)  # (N, 136, 3)
    right = (wanted * turned[..., 2:] - lens[..., None] * turned[..., :2]).transpose(1, 2).flatten(1)  # (N, 136)
    normal = left.transpose(1, 2) @ left
    translation = torch.linalg.solve(normal, left.transpose(1, 2) @ right[..., None])
    world = camera.cam_to_world.clone()
    world[:, :3, :3] = rotation
    world[:, :3, 3] = -(rotation @ translation)[..., 0]
    return Camera(world, camera.intrinsics)


def _turn_to(axis: Tensor) -> Tensor:
    """``(N, 3, 3)`` smallest rotations that bring the z axis to the unit vectors `axis` ``(N, 3)`` (z positive)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, zero, x, zero, zero, y, -x, -y, zero], dim=-1).reshape(-1, 3, 3)
    return torch.eye(3, dtype=axis.dtype) + cross + cross @ cross / (1.0 + z)[:, None, None]
