"""Rays through the pixels of a raw image (EG3D's conventions)."""

from __future__ import annotations

import torch
from torch import Tensor

from export3d.camera import Camera

Window = tuple[Tensor, Tensor, int]
"""A square of the raw image: top row (B,), left column (B,), side, all in rays."""


def cast_rays(camera: Camera, size: int, window: Window | None = None) -> tuple[Tensor, Tensor]:
    """Origins and unit directions of the rays through pixel centres ((i + 0.5) / size), row-major.

    Args:
        camera: B cameras.
        size: rays along each side of the whole image.
        window: render only this square of the image.

    Returns:
        origins ``(B, R, 3)`` and unit directions ``(B, R, 3)`` in world axes, R = size^2 or window side^2.
    """
    batch, device = len(camera), camera.cam_to_world.device
    side = size if window is None else window[2]
    steps = torch.arange(side, device=device, dtype=torch.float32)
    rows = steps.expand(batch, side)
    columns = rows
    if window is not None:
        rows = rows + window[0].to(device)[:, None]
        columns = columns + window[1].to(device)[:, None]
    v = ((rows + 0.5) / size)[:, :, None].expand(batch, side, side).reshape(batch, -1)  # down
    u = ((columns + 0.5) / size)[:, None, :].expand(batch, side, side).reshape(batch, -1)  # right
    return rays_through(camera, u, v)


def rays_through(camera: Camera, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and unit directions ``(B, R, 3)`` in world axes of the rays through given places of the image.

    Args:
        camera: B cameras.
        u, v: ``(B, R)`` places in [0, 1], to the right and down.
    """
    with torch.autocast(u.device.type, enabled=False):  # in bfloat16 a direction would be off by a pixel
        k = camera.intrinsics.float()
        fx, fy, skew = k[:, 0, 0, None], k[:, 1, 1, None], k[:, 0, 1, None]
        cx, cy = k[:, 0, 2, None], k[:, 1, 2, None]
        y = (v - cy) / fy
        x = (u - cx - skew * y) / fx
        local = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # (B, R, 3)
        world = local @ camera.cam_to_world[:, :3, :3].float().transpose(1, 2)
        directions = world / world.norm(dim=-1, keepdim=True)
        origins = camera.cam_to_world[:, None, :3, 3].float().expand_as(directions)
    return origins, directions


def met_at(rays: tuple[Tensor, Tensor], depth: Tensor) -> Tensor:
    """Where rays ``(B, r^2, 3)``, origins and directions, are at a depth ``(B, 1, r, r)``: world points ``(B, 3, r, r)``."""
    points = rays[0] + rays[1] * depth.flatten(2).transpose(1, 2).to(rays[1])
    return points.transpose(1, 2).reshape(-1, 3, *depth.shape[-2:])
