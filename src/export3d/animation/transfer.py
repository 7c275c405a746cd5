"""From the driving motion to the portrait's: absolute or relative, expression, pose or both, and smoothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from export3d.animation.drivers import DrivingFrame
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.tracking import Crop
from export3d.tracking.gaze import GAZE_LIMIT_RAD, unknown_gaze
from export3d.tracking.head_fit import HeadPose

FARTHEST_ASIDE = 0.4
"""A moving head goes no farther from the middle of the picture, scene units: more than half of it stays to be seen."""

DISTANCES = (1.9, 4.5)
"""Nearest and farthest place of a moving head, scene units."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How the driving motion reaches the portrait. The default is the paper's: expression and camera as they are."""

    expression_only: bool = False
    """Keep the portrait's own camera."""

    pose_only: bool = False
    """Keep the portrait's own expression and gaze."""

    relative: bool = False
    """Add the driver's change since its first face to the portrait's own expression, pose and gaze."""

    gaze: bool = True
    """Let the eyes follow the driver's; else the gaze is unknown in every frame, and the eyes stay as the portrait's."""

    shift: bool = True
    """Let the head move in the picture as the driver's does from its first frame on: aside, up and down, nearer and
    farther. Else it stays where the driver's crop puts it."""

    smooth_s: float = 0.0
    """Standard deviation in seconds of a centred Gaussian over expression, camera and gaze; 0 leaves them as tracked."""

    def __post_init__(self) -> None:
        if self.expression_only and self.pose_only:
            raise UsageError("--expression-only and --pose-only exclude each other; leave both out for both.")
        if self.smooth_s < 0:
            raise UsageError(f"the smoothing time must not be negative; got {self.smooth_s} s.")


def transfer(
    frames: Iterable[DrivingFrame],
    options: TransferOptions,
    *,
    beta: np.ndarray,
    camera: np.ndarray,
    gaze: np.ndarray | None = None,
    time_base: Fraction,
) -> Iterator[DrivingFrame]:
    """Driving frames -> frames with the expression, camera and gaze that the portrait shall take.

    Args:
        beta: ``(64,)``, the portrait's own expression.
        camera: ``(25,)``, the portrait's own camera.
        gaze: ``(2,)``, the portrait's own gaze; unknown when None.
        time_base: clock of the frames' `pts`, seconds per unit.
    """
    if options.shift:
        frames = move_in_plane(frames)
    if options.smooth_s > 0:
        frames = smooth(frames, options.smooth_s, time_base)
    own_gaze = unknown_gaze() if gaze is None else gaze
    reference: DrivingFrame | None = None
    first_gaze = unknown_gaze()
    for frame in frames:
        if reference is None and frame.found:
            reference = frame
        if np.isnan(first_gaze).any() and frame.found:  # its own reference: the first frame may be a blink
            first_gaze = frame.gaze
        new_beta, new_camera, new_gaze = frame.beta, frame.camera, frame.gaze
        if options.relative:
            if reference is None:  # nothing to compare with yet: the portrait at rest
                new_beta, new_camera, new_gaze = beta, camera, own_gaze
            else:
                new_beta = beta + (frame.beta - reference.beta)
                new_camera = relative_camera(frame.camera, reference.camera, camera)
                new_gaze = np.clip(own_gaze + (frame.gaze - first_gaze), -GAZE_LIMIT_RAD, GAZE_LIMIT_RAD)
        if options.pose_only:
            new_beta, new_gaze = beta, own_gaze
        if options.expression_only:
            new_camera = camera
        if not options.gaze:
            new_gaze = unknown_gaze()
        yield replace(frame, beta=new_beta, camera=new_camera, gaze=new_gaze)


def move_in_plane(frames: Iterable[DrivingFrame]) -> Iterator[DrivingFrame]:
    """Driving frames whose cameras belong to one square of the driver's picture, that of the first face, instead of each
    to its own. After a cut that square is set anew, so that the head goes on from where it was."""
    window = last = None
    for frame in frames:
        crop = frame.crop
        if crop is None or not frame.found:
            yield frame
            continue
        if window is None:
            window = crop
        elif frame.cut and last is not None:
            window = _window_after_cut(window, last, crop)
        last = crop
        pose = HeadPose.of_camera(frame.camera).seen_in(crop, window)
        origin = pose.origin * (np.clip(pose.origin[2], *DISTANCES) / pose.origin[2])
        origin[:2] *= min(1.0, FARTHEST_ASIDE / max(float(np.hypot(*origin[:2])), 1e-6))
        yield replace(frame, camera=replace(pose, origin=origin).camera())


def _window_after_cut(window: Crop, before: Crop, after: Crop) -> Crop:
    """The window in which a face lies as far aside and as near as the last one did before the cut."""
    side = after.side * window.side / before.side
    x, y = ((getattr(before, name) - getattr(window, name)) / window.side * side for name in ("center_x", "center_y"))
    return Crop(after.center_x - x, after.center_y - y, side)


def relative_camera(driving: np.ndarray, reference: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The portrait's camera moved as the driver's moved since the reference; all ``(25,)``.

    With world-to-camera rotations R and offsets t (the world origin in camera axes): R = R_d R_ref^T R_own and
    t = t_own + t_d - t_ref. Where the driver has not moved, this is the portrait's own camera.
    """
    cameras = _cameras(np.stack([driving, reference, own]))
    rotation, offset = _world_to_cam(cameras)
    turned = rotation[0] @ rotation[1].T @ rotation[2]
    moved = offset[2] + offset[0] - offset[1]
    return _to_vector(turned, moved, cameras.intrinsics[2])


def smooth(frames: Iterable[DrivingFrame], sigma_s: float, time_base: Fraction) -> Iterator[DrivingFrame]:
    """Centred Gaussian over time, without delay; keeps only the frames within three sigma in memory."""
    reach = 3.0 * sigma_s
    window: deque[tuple[float, DrivingFrame]] = deque()
    position = 0  # of the next frame to hand out, within the window
    for frame in frames:
        now = float(frame.pts * time_base)
        window.append((now, frame))
        while position < len(window) and window[position][0] + reach <= now:
            yield _weighted(window, position, sigma_s)
            position += 1
            while window[0][0] < window[position][0] - reach:
                window.popleft()
                position -= 1
    while position < len(window):
        yield _weighted(window, position, sigma_s)
        position += 1


def _weighted(window: deque[tuple[float, DrivingFrame]], position: int, sigma_s: float) -> DrivingFrame:
    centre, frame = window[position]
    near = [(time_s, other) for time_s, other in window if abs(time_s - centre) <= 3.0 * sigma_s]
    weights = np.exp(-0.5 * ((np.array([time_s for time_s, _ in near]) - centre) / sigma_s) ** 2)
    weights /= weights.sum()
    beta = weights @ np.stack([other.beta for _, other in near]).astype(np.float64)
    cameras = _cameras(np.stack([other.camera for _, other in near]))
    rotation, offset = _world_to_cam(cameras)
    weight = torch.from_numpy(weights)
    # The rotation nearest to the mean matrix: the polar factor, from the singular value decomposition.
    left, _, right = torch.linalg.svd((weight[:, None, None] * rotation).sum(0))
    mean = left @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(left @ right).sign())]).to(left)) @ right
    camera = _to_vector(mean, (weight[:, None] * offset).sum(0), cameras.intrinsics[near.index((centre, frame))])
    return replace(frame, beta=beta.astype(np.float32), camera=camera, gaze=_weighted_gaze(near, weights, frame.gaze))


def _weighted_gaze(near: list[tuple[float, DrivingFrame]], weights: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean of the known ones among the frames near by; a gaze that is unknown stays so."""
    gaze = np.stack([frame.gaze for _, frame in near]).astype(np.float64)
    known = np.isfinite(gaze).all(axis=1)
    if np.isnan(own).any() or not known.any():
        return own
    return (weights[known] @ gaze[known] / weights[known].sum()).astype(np.float32)


def _cameras(vectors: np.ndarray) -> Camera:
    return Camera.from_vector(torch.from_numpy(vectors.astype(np.float64)))


def _world_to_cam(cameras: Camera) -> tuple[Tensor, Tensor]:
    """Rotations ``(B, 3, 3)`` world -> camera and the world origin in camera axes ``(B, 3)``."""
    rotation = cameras.cam_to_world[:, :3, :3].transpose(1, 2)
    return rotation, -(rotation @ cameras.cam_to_world[:, :3, 3:])[..., 0]


def _to_vector(rotation: Tensor, offset: Tensor, intrinsics: Tensor) -> np.ndarray:
    cam_to_world = torch.eye(4, dtype=rotation.dtype)
    cam_to_world[:3, :3] = rotation.T
    cam_to_world[:3, 3] = -rotation.T @ offset
    return Camera(cam_to_world[None], intrinsics[None]).to_vector()[0].float().numpy()
