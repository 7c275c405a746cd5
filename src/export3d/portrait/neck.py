"""The neck (not in the paper): the torso lags behind the head, and the light stays in the room.

The planes stand in the head's frame, and a camera says nothing about the torso: a head that turns before a resting camera
and a camera that goes round a resting person give the same p, but not the same shoulders and shadows. So the model is told
the head's *turn* against torso and room (`cues.py`). The volume keeps the torso as it stands under an unturned head; a
joint with the smooth weight of a skinned neck carries points from there to a frame and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from export3d.checks import check_shape


@dataclass(frozen=True, kw_only=True)
class NeckConfig:
    """The joint between head and torso, in the head's frame (scene units, y up, z towards the camera)."""

    lag: float = 0.55
    """Share of the head's turn that the torso does not follow."""
    pivot: tuple[float, float, float] = (0.0, -0.157, -0.117)
    """Centre of the turn; it lies in the neck."""
    top: float = -0.211
    """Height above which a point belongs to the head."""
    bottom: float = -0.328
    """Height below which it belongs to the torso; between them it is shared."""

    def __post_init__(self) -> None:
        if not self.bottom < self.top:
            raise ValueError(f"neck.bottom must lie below neck.top; got {self.bottom} and {self.top}")


class Neck:
    """The joint between head and torso; nothing in it is learned."""

    def __init__(self, config: NeckConfig) -> None:
        self.config = config

    def posed(self, turn: Tensor | None) -> Callable[[Tensor], Tensor]:
        """What carries points ``(B, P, 3)`` of the unturned volume to where they stand in a frame with this turn ``(B, 3)``;
        None: they stay."""
        return _unmoved if turn is None else self._joint(-self.config.lag * turn)

    def unposed(self, turn: Tensor | None) -> Callable[[Tensor], Tensor]:
        """What carries points ``(B, P, 3)`` of a frame with this turn ``(B, 3)`` back to the unturned volume (`posed` undone,
        up to the change of height within the neck); None: they stay."""
        return _unmoved if turn is None else self._joint(self.config.lag * turn)

    def _joint(self, turn: Tensor) -> Callable[[Tensor], Tensor]:
        extra = turn_matrix(turn) - torch.eye(3, device=turn.device)
        return partial(self._turned, extra=extra.transpose(1, 2), pivot=turn.new_tensor(self.config.pivot))

    def _turned(self, points: Tensor, extra: Tensor, pivot: Tensor) -> Tensor:
        config = self.config
        one_picture = points.shape[0] == 1 and not torch.is_grad_enabled() and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        if one_picture:  # most points belong to the head and stay
            chosen = (points[0, :, 1] < config.top).nonzero()[:, 0]
            if 0 < len(chosen) < points.shape[1]:
                part = self._turned(points.index_select(1, chosen), extra, pivot)
                return points.index_copy(1, chosen, part)
        low = ((points[..., 1:2] - config.top) / (config.bottom - config.top)).clamp(0.0, 1.0)
        weight = low * low * (3.0 - 2.0 * low)
        # Linear blend skinning: a weighted mean of the point and of the turned point.
        with torch.autocast(points.device.type, enabled=False):  # places are never rounded
            return points + weight * ((points - pivot) @ extra.to(points.dtype))


def _unmoved(points: Tensor) -> Tensor:
    return points


def turn_matrix(turn: Tensor) -> Tensor:
    """Rotation vectors ``(B, 3)``, radians -> matrices ``(B, 3, 3)`` (Rodrigues)."""
    check_shape("turn", turn, None, 3)
    square = turn.square().sum(dim=1)[:, None, None]
    zero = torch.zeros_like(turn[:, 0])
    x, y, z = turn.unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    eye = torch.eye(3, dtype=turn.dtype, device=turn.device)
    # sin(a) / a and (1 - cos(a)) / a^2, written so that the angle a may be 0.
    first, second = torch.sinc(square.sqrt() / math.pi), 0.5 * torch.sinc(square.sqrt() / (2.0 * math.pi)).square()
    return eye + first * cross + second * (turn[:, :, None] * turn[:, None, :] - square * eye)
