"""Render frames of an identity: colour, alpha, depth and parts from weights, gaze and cameras (the data of Sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.heads.look.identity import Identity, develop
from export3d.heads.look.layers import draw_beard, draw_hair, draw_lashes, draw_props
from export3d.heads.look.passes import FramePass
from export3d.heads.look.surfaces import draw_surfaces
from export3d.heads.shape.parametric import WORLD_SCALE


@dataclass(frozen=True)
class HeadFrames:
    """Rendered frames.

    Attributes:
        color: ``(T, 3, H, W)`` sRGB in [0, 1]; over the background, or premultiplied by alpha over black.
        alpha: ``(T, H, W)`` opacity of the person in [0, 1].
        depth: ``(T, H, W)`` distance along the ray to the nearest surface in scene units, 0 where alpha is 0.
        parts: ``(T, H, W)`` int64 part id, -1 for background; garment, hair, and things worn follow the
            head's parts.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    parts: Tensor


def render_frames(
    identity: Identity,
    weights: Tensor,
    gaze: Tensor,
    camera: Camera,
    *,
    size: int,
    supersample: int = 2,
    static_scene: bool = True,
    transparent_background: bool = False,
    frames_per_pass: int | None = None,
) -> HeadFrames:
    """Render an identity.

    Args:
        weights: ``(T, 53)`` total expression weights in [0, 1].
        gaze: ``(T, 2)`` yaw and pitch of the eyes in radians, relative to the head; + is image right and up.
        size: Side of the square frames in pixels.
        supersample: Samples per pixel along each side.
        static_scene: Light and torso are fixed to the head, so that frames differ by expression and camera alone. If
            not, lights stay in the room and the torso follows the head only partly, as in real videos.
        transparent_background: Premultiplied colour over black instead of the identity's background.
        frames_per_pass: Frames held in memory at once; None chooses by device and size.

    Returns:
        :class:`HeadFrames` on the identity's device.
    """
    count = len(camera)
    check_shape("weights", weights, count, len(identity.head.expression_names))
    check_shape("gaze", gaze, count, 2)
    device = identity.rest.device
    weights, gaze, camera = weights.to(device), gaze.to(device), camera.to(device)
    if frames_per_pass is None:
        budget = 140_000 if device.type == "cpu" else 6_000_000
        frames_per_pass = max(1, budget // (size * supersample) ** 2)
    passes = []
    for begin in range(0, count, frames_per_pass):
        part = slice(begin, begin + frames_per_pass)
        side = size * supersample
        p = FramePass(identity, weights[part], gaze[part], camera[part], side=side, static_scene=static_scene)
        draw_surfaces(p)
        draw_beard(p)
        draw_lashes(p)
        draw_props(p)
        for patch in range(len(identity.hair)):
            draw_hair(p, patch)
        passes.append(_finished(p, supersample, transparent_background))
    return HeadFrames(*(torch.cat([getattr(done, f.name) for done in passes]) for f in fields(HeadFrames)))


def _finished(p: FramePass, supersample: int, transparent: bool) -> HeadFrames:
    """Put the background in, develop, and average the samples of each pixel."""
    identity, side = p.identity, p.side
    shape = (p.batch, side, side)
    color = p.color.reshape(*shape, 3).permute(0, 3, 1, 2)
    alpha = p.alpha.reshape(p.batch, 1, side, side)
    if transparent:
        # Un-premultiply, develop, premultiply again: the curve must see the colour of the surface.
        surface = develop(color / alpha.clamp(min=1e-4), identity.lights.exposure)
        image = surface * alpha
    else:
        back = F.interpolate(identity.background_linear[None], size=(side, side), mode="bilinear")
        image = develop(color + (1 - alpha) * back, identity.lights.exposure)
    depth = p.depth_cm.reshape(p.batch, side, side)
    parts = p.parts.reshape(p.batch, side, side)
    if supersample > 1:
        image, alpha = F.avg_pool2d(image, supersample), F.avg_pool2d(alpha, supersample)
        small = side // supersample
        blocks = depth.reshape(p.batch, small, supersample, small, supersample).transpose(2, 3).flatten(3)
        depth, nearest = blocks.min(-1)
        part_blocks = parts.reshape(p.batch, small, supersample, small, supersample).transpose(2, 3).flatten(3)
        parts = part_blocks.gather(-1, nearest[..., None])[..., 0]
    found = torch.isfinite(depth)
    depth = torch.where(found, depth * WORLD_SCALE, torch.zeros_like(depth))
    parts = torch.where(found, parts, torch.full_like(parts, -1))
    return HeadFrames(image, alpha[:, 0], depth, parts)
