"""Temporal smoothing of a motion (the paper names none; ours is optional and off by default)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export3d.tracking.motion import Motion

SIGMA_S = 0.06
"""Default standard deviation: 1.5 frames at 25 fps."""


def smooth_motion(motion: Motion, sigma_s: float = SIGMA_S) -> Motion:
    """Average beta, camera and gaze over a Gaussian window in time; frames without a face have no weight,
    and a gaze that is unknown stays so.

    Rotations are averaged as matrices and projected back to the nearest rotation; what is averaged of the position is
    where the camera sees the world origin, so that a turning head does not come nearer.

    Args:
        sigma_s: standard deviation in seconds, at least 0; 0 changes nothing.
    """
    if sigma_s < 0.0:
        raise ValueError(f"sigma_s must not be negative; got {sigma_s}")
    if sigma_s == 0.0:
        return motion
    matrix = motion.camera[:, :16].reshape(-1, 4, 4).astype(np.float64)
    rotation = matrix[:, :3, :3]
    origin = -np.einsum("tji,tj->ti", rotation, matrix[:, :3, 3])  # the world origin in camera coordinates
    flat = np.concatenate([motion.beta, rotation.reshape(-1, 9), origin, motion.camera[:, 16:]], axis=1)
    averaged = _gaussian(flat.astype(np.float64), motion.time_s, motion.found, sigma_s)
    beta, rows, origin, intrinsics = np.split(averaged, [64, 73, 76], axis=1)
    rotation = nearest_rotation(rows.reshape(-1, 3, 3))
    matrix[:, :3, :3] = rotation
    matrix[:, :3, 3] = -np.einsum("tij,tj->ti", rotation, origin)
    camera = np.concatenate([matrix.reshape(-1, 16), intrinsics], axis=1)
    gaze = motion.gaze
    if gaze is not None:
        known = motion.found & np.isfinite(gaze).all(axis=1)
        filled = np.where(np.isfinite(gaze), gaze, 0.0).astype(np.float64)
        averaged = _gaussian(filled, motion.time_s, known, sigma_s)
        gaze = np.where(np.isfinite(gaze), averaged, np.nan).astype(np.float32)
    return replace(motion, beta=beta.astype(np.float32), camera=camera.astype(np.float32), gaze=gaze)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """``(N, 3, 3)`` -> the rotations nearest to them (least squares), by singular value decomposition."""
    left, _, right = np.linalg.svd(matrices)
    sign = np.ones((len(matrices), 3))
    sign[:, 2] = np.linalg.det(left @ right)
    return (left * sign[:, None]) @ right


def _gaussian(values: np.ndarray, time_s: np.ndarray, found: np.ndarray, sigma_s: float) -> np.ndarray:
    """Weighted means ``(T, D)`` over +-4 sigma; where no frame with a face is that near, the value itself."""
    out = values.copy()
    for index, time in enumerate(time_s):
        low, high = np.searchsorted(time_s, [time - 4.0 * sigma_s, time + 4.0 * sigma_s], side="left")
        high = max(high, index + 1)
        weight = np.exp(-0.5 * ((time_s[low:high] - time) / sigma_s) ** 2) * found[low:high]
        if weight.sum() > 0.0:
            out[index] = weight @ values[low:high] / weight.sum()
    return out
