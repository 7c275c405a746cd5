"""Camera paths for novel views: how a head turns while the expression stays the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.errors import UsageError

MAX_YAW_DEG = 75.0
MAX_PITCH_DEG = 45.0


@dataclass(frozen=True, kw_only=True)
class OrbitOptions:
    """A closed path around the head: its end meets its start, so the video can be looped."""

    kind: Literal["sweep", "circle"] = "sweep"
    """`sweep`: left and right, then up and down. `circle`: both at once, never frontal."""

    yaw_deg: float = 30.0
    """Largest turn to either side, degrees."""

    pitch_deg: float = 15.0
    """Largest nod up and down, degrees."""

    num_frames: int = 100
    """Length of the path."""

    def __post_init__(self) -> None:
        if not 0 <= self.yaw_deg <= MAX_YAW_DEG or not 0 <= self.pitch_deg <= MAX_PITCH_DEG:
            raise UsageError(
                f"orbit: the yaw must lie in 0-{MAX_YAW_DEG:.0f} and the pitch in 0-{MAX_PITCH_DEG:.0f} degrees; "
                f"got {self.yaw_deg} and {self.pitch_deg}. A single portrait says nothing about the back of the head."
            )
        if self.num_frames < 1:
            raise UsageError(f"orbit: the video needs at least one frame; got {self.num_frames}.")


def orbit_angles(options: OrbitOptions) -> Tensor:
    """``(N, 2)`` yaw and pitch in radians."""
    turn = torch.arange(options.num_frames, dtype=torch.float64) / options.num_frames  # 0 <= turn < 1
    yaw, pitch = math.radians(options.yaw_deg), math.radians(options.pitch_deg)
    if options.kind == "circle":
        return torch.stack([yaw * (math.tau * turn).sin(), pitch * (math.tau * turn).cos()], dim=-1)
    share = 2.0 / 3.0  # the turn gets twice the time of the nod
    sideways = turn < share
    turning = yaw * (math.tau * turn / share).sin() * sideways
    nodding = pitch * (math.tau * (turn - share) / (1.0 - share)).sin() * ~sideways
    return torch.stack([turning, nodding], dim=-1)


def orbit_cameras(options: OrbitOptions) -> Camera:
    """N cameras at the default distance and focal length."""
    angles = orbit_angles(options).float()
    return Camera.look_at_head(angles[:, 0], angles[:, 1])
