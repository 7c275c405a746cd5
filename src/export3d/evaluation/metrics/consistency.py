"""Two metrics that the field lacks: agreement between views by depth warping, and temporal flicker (Sec. 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera, head_rotation
from export3d.checks import check_shape
from export3d.images import to_tensor
from export3d.training.batches.stored_portrait import View

DEPTH_TOLERANCE = 0.02
"""Scene units (2 % of the tri-plane box): a point is seen by both cameras if the two depths agree to this."""

TURN_DEG = 15.0
"""Angle between the two cameras of `model_consistency`."""

SOLID = 0.9
"""Opacity below which a rendered depth means nothing: the background and the thin edges of hair."""


@dataclass(frozen=True)
class Surface:
    """What B cameras see.

    Attributes:
        image: ``(B, 3, H, W)`` in [-1, 1].
        depth: ``(B, 1, h, w)`` distance along the ray in scene units, resized to H x W if smaller; 0 or infinite where
            there is nothing.
        camera: B cameras.
    """

    image: Tensor
    depth: Tensor
    camera: Camera


@dataclass(frozen=True, kw_only=True)
class ViewConsistency:
    """How well two renderings of the same expression agree, per pair of views, all ``(B,)``.

    Attributes:
        error: mean absolute colour difference where both cameras see the surface, in 8-bit levels (0..255).
            NaN where they share no point.
        shared: part of the second view's pixels that the first view sees too, in [0, 1].
    """

    error: np.ndarray
    shared: np.ndarray


@torch.no_grad()
def view_consistency(a: Surface, b: Surface, *, tolerance: float = DEPTH_TOLERANCE) -> ViewConsistency:
    """Carry view A into view B by the rendered depth and compare the colours where both see the same point.

    Each pixel of B is lifted to the world by its depth, projected into A, and kept if A's own depth there agrees
    with the distance to it within `tolerance` (scene units; else something hides it).
    """
    batch, _, height, width = a.image.shape
    check_shape("b.image", b.image, batch, 3, height, width)
    depth_a, seen_a = _at_size(a.depth, height, width)
    depth_b, seen_b = _at_size(b.depth, height, width)
    points = unproject(depth_b, b.camera)  # (B, H*W, 3)
    position, in_front = a.camera.project(points)
    grid = (position * 2 - 1).reshape(batch, height, width, 2)
    distance = (points - a.camera.cam_to_world[:, None, :3, 3]).norm(dim=-1).reshape(batch, 1, height, width)
    carried = F.grid_sample(a.image, grid, padding_mode="border", align_corners=False)
    depth_there = F.grid_sample(depth_a, grid, padding_mode="border", align_corners=False)
    seen_there = F.grid_sample(seen_a, grid, padding_mode="zeros", align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None] & (in_front.reshape(batch, 1, height, width) > 0)
    both = inside & (seen_b > 0.999) & (seen_there > 0.999) & ((depth_there - distance).abs() <= tolerance)
    difference = (carried - b.image).abs().mean(dim=1, keepdim=True) * 127.5
    count = both.flatten(1).sum(dim=1)
    total = (difference * both).flatten(1).sum(dim=1)
    error = torch.where(count > 0, total / count.clamp(min=1), torch.full_like(total, torch.nan))
    return ViewConsistency(error=error.numpy(force=True), shared=(count / (height * width)).numpy(force=True))


def model_consistency(pairs: Sequence[tuple[View, View]]) -> ViewConsistency:
    """Agreement of a model with itself: the same portrait and expression, rendered from two cameras.

    Depth counts only where the rendering is opaque (`SOLID`), so that a background without geometry is left out.

    Args:
        pairs: two views of each frame.

    Returns:
        One value per pair.
    """
    found = [view_consistency(_surface(first), _surface(second)) for first, second in pairs]
    return ViewConsistency(
        error=np.concatenate([one.error for one in found]), shared=np.concatenate([one.shared for one in found])
    )


def turned(camera: Camera, degrees: float = TURN_DEG) -> Camera:
    """One camera carried around the head's vertical axis by `degrees`, towards the front of the face.

    The sign is chosen so that the head's yaw comes nearer to 0, or changes sign; distance and height stay.
    """
    yaw = float(camera.head_angles()[0, 0])
    angle = torch.tensor([math.copysign(math.radians(degrees), yaw)])
    around = torch.eye(4).repeat(1, 1, 1)
    around[:, :3, :3] = head_rotation(angle, torch.zeros(1), torch.zeros(1))
    return Camera(around.to(camera.cam_to_world) @ camera.cam_to_world, camera.intrinsics)


def unproject(depth: Tensor, camera: Camera) -> Tensor:
    """World points ``(B, H*W, 3)``, row-major, of the pixel centres at `depth` ``(B, 1, H, W)`` along their rays."""
    batch, _, height, width = depth.shape
    v, u = torch.meshgrid(
        (torch.arange(height, dtype=depth.dtype, device=depth.device) + 0.5) / height,
        (torch.arange(width, dtype=depth.dtype, device=depth.device) + 0.5) / width,
        indexing="ij",
    )
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(1, -1, 3).expand(batch, -1, -1)
    local = pixels @ torch.linalg.inv(camera.intrinsics).transpose(1, 2)
    directions = F.normalize(local, dim=-1) @ camera.cam_to_world[:, :3, :3].transpose(1, 2)
    return camera.cam_to_world[:, None, :3, 3] + directions * depth.reshape(batch, -1, 1)


def flicker(frames: np.ndarray) -> np.ndarray:
    """How far each inner frame is from the mean of its two neighbours, in 8-bit levels.

    Steady brightness and motion at constant speed of smooth surfaces give about 0; a frame that jumps out and back
    gives its whole jump.

    Args:
        frames: uint8 ``(T, H, W, 3)``, T >= 3.

    Returns:
        ``(T - 2,)`` mean over pixels and channels of ``|x_t - (x_{t-1} + x_{t+1}) / 2|``.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) < 3:
        raise ValueError(f"frames must be uint8 (T >= 3, H, W, 3); got {frames.dtype} {frames.shape}")
    out = np.empty(len(frames) - 2)
    for t in range(1, len(frames) - 1):  # one frame at a time: a long clip as float64 would not fit into memory
        middle = (frames[t - 1].astype(np.float32) + frames[t + 1]) / 2
        out[t - 1] = np.abs(frames[t] - middle).mean(dtype=np.float64)
    return out


def excess_flicker(generated: np.ndarray, driving: np.ndarray) -> np.ndarray:
    """Flicker of the output beyond the driving clip's own, ``(T - 2,)`` in 8-bit levels; negative where it is calmer."""
    if len(generated) != len(driving):
        raise ValueError(f"{len(generated)} generated frames but {len(driving)} driving frames")
    return flicker(generated) - flicker(driving)


def _surface(view: View) -> Surface:
    depth = torch.where(view.opacity >= SOLID, view.depth, torch.zeros_like(view.depth))
    return Surface(to_tensor(view.image)[None], depth, view.camera)


def _at_size(depth: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Depth at the image's size with holes filled by 0, and a mask that is 1 where all its sources are known."""
    check_shape("depth", depth, None, 1, None, None)
    known = (torch.isfinite(depth) & (depth > 0)).to(depth.dtype)
    filled = torch.where(known > 0, depth, torch.zeros_like(depth))
    if depth.shape[-2:] == (height, width):
        return filled, known
    size = (height, width)
    resize = {"size": size, "mode": "bilinear", "align_corners": False}
    return F.interpolate(filled, **resize), F.interpolate(known, **resize)
