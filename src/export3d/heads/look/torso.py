"""A torso that lags behind the head where the scene is not static, as in real videos (no paper section)."""

from __future__ import annotations

import torch
from torch import Tensor

from export3d.heads.look.identity import Identity
from export3d.heads.raster.fields import smoothstep

_PIVOT_CM = (0.0, -6.0, -1.5)
_FOLLOW = 0.45  # share of the head's turn that the torso follows


def torso_lag(points: Tensor, weight: Tensor, head_rotation: Tensor) -> Tensor:
    """Turn the torso back towards the camera: it follows the head only by `_FOLLOW`.

    Args:
        points: ``(B, P, 3)`` cm, in the head's frame.
        weight: ``(P,)`` share of the torso in each point.
        head_rotation: ``(B, 3, 3)`` of the head in the camera's frame (x right, y up, z towards the camera).

    Returns:
        ``(B, P, 3)`` cm, in the head's frame.
    """
    r = head_rotation
    angle = torch.acos(((r.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
    axis = torch.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], -1)
    axis = axis / (2 * angle.sin()).clamp(min=1e-6)[:, None]
    turn = (-angle * (1 - _FOLLOW))[:, None] * weight  # (B, P)
    pivot = points.new_tensor(_PIVOT_CM)
    q = points - pivot
    first = torch.linalg.cross(axis[:, None].expand_as(q), q)
    second = torch.linalg.cross(axis[:, None].expand_as(q), first)
    return q + turn.sin()[..., None] * first + (1 - turn.cos())[..., None] * second + pivot


def neck_weight(height: Tensor) -> Tensor:
    """Share of the torso's lag in skin at these heights (cm) of the resting head: 0 above the chin, 1 below the neck."""
    return smoothstep(-8.5, -14.0, height)


def torso_weight(identity: Identity) -> Tensor:
    """``(V + C,)`` share of the torso's lag: 0 above the chin, 1 for the garment."""
    head = identity.head
    skin = head.vertices_of("face", "head_neck")
    weight = neck_weight(identity.rest[:, 1]) * skin
    return torch.cat([weight, weight.new_ones(len(identity.clothes.vertices))])
