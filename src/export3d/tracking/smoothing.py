"""Smoothing of faces and cameras over time (the paper names none; ours is optional and off by default)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.tracking.motion import Motion

SIGMA_S = 0.06
"""Default standard deviation: 1.5 frames at 25 fps."""

REACH = 3.0
"""Frames further away than so many standard deviations do not count."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """T moments of one face.

    Attributes:
        state: T faces.
        cameras: ``(T, 25)``.
        found: ``(T,)`` bool; false where the values are only held.
        time_s: ``(T,)`` float64 seconds, increasing.
    """

    state: FaceState
    cameras: Tensor
    found: Tensor
    time_s: Tensor


def smoothed_at(track: Track, index: int, sigma_s: float) -> tuple[FaceState, Tensor]:
    """One moment of a track, averaged over a centred Gaussian window in time: one face and its camera ``(25,)``.

    Frames without a face have no weight; where none with a face is near, the moment is given as it is. What is unknown at
    the moment (NaN) stays so, and unknown numbers of others do not count. Rotations are averaged as matrices and projected
    back to the nearest rotation; what is averaged of the position is where the camera sees the world origin, so that a
    turning head does not come nearer.

    Args:
        index: which moment.
        sigma_s: standard deviation in seconds, above 0.
    """
    away = (track.time_s - track.time_s[index]) / sigma_s
    weight = torch.exp(-0.5 * away.square()) * (track.found & (away.abs() <= REACH + 1e-9))
    own = track.state[index : index + 1]
    if not weight.any():
        return own, track.cameras[index]
    cameras = Camera.from_vector(track.cameras.double())
    rotation, origin = cameras.world_to_cam()
    share = weight / weight.sum()
    turned = nearest_rotation(torch.einsum("t,tij->ij", share, rotation)[None])
    seen = Camera.from_world_to_cam(turned, (share @ origin)[None], cameras.intrinsics[index : index + 1])
    return track.state.map(lambda values: _mean(values, weight, index)), seen.to_vector()[0].float()


def smooth_motion(motion: Motion, sigma_s: float = SIGMA_S) -> Motion:
    """Every frame as `smoothed_at` has it.

    Args:
        sigma_s: standard deviation in seconds, at least 0; 0 changes nothing.
    """
    if sigma_s < 0.0:
        raise ValueError(f"sigma_s must not be negative; got {sigma_s}")
    if sigma_s == 0.0:
        return motion
    state, cameras, found = motion.state, torch.tensor(motion.camera), torch.tensor(motion.found)
    states, seen = [], []
    for index, time_s in enumerate(motion.time_s):
        # A little more than the reach: `smoothed_at` draws the line.
        low, high = np.searchsorted(motion.time_s, [time_s - 1.1 * REACH * sigma_s, time_s + 1.1 * REACH * sigma_s])
        near = slice(int(low), max(int(high), index + 1))
        times = torch.tensor(motion.time_s[near])
        window = Track(state=state[near], cameras=cameras[near], found=found[near], time_s=times)
        one, camera = smoothed_at(window, index - near.start, sigma_s)
        states.append(one)
        seen.append(camera)
    smooth = FaceState.cat(states)
    gaze, weights = (None if values is None else values.numpy() for values in (smooth.gaze, smooth.weights))
    return replace(motion, beta=smooth.beta.numpy(), camera=torch.stack(seen).numpy(), gaze=gaze, weights=weights)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """``(N, 3, 3)`` -> the rotations nearest to them (least squares), by singular value decomposition."""
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.ones_like(matrices[:, 0])
    sign[:, 2] = torch.linalg.det(left @ right)
    return (left * sign[:, None]) @ right


def _mean(values: Tensor, weight: Tensor, index: int) -> Tensor:
    """Weighted mean ``(1, D)`` of the known numbers of ``(T, D)``."""
    known = ~values.isnan()
    shares = weight[:, None] * known
    total = shares.sum(dim=0)
    mean = (shares * values.double().nan_to_num()).sum(dim=0) / total
    own = values[index]
    return torch.where(known[index] & (total > 0), mean.to(values), own)[None]
