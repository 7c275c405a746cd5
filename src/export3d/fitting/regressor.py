"""Training of the landmark regressor on projected landmarks of synthetic heads, and its errors (Sec. 4, data; Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera, rotation_angle_deg
from export3d.fitting.samples import RegressorTraining, Samples, TrackerErrors, disturb
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.people import REFERENCE_SIZE, add_noise
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.regressor import (
    NAME,
    VERSION,
    LandmarkRegressor,
    RegressorConfig,
    RegressorNet,
    pose_from_camera,
)


def train_regressor(
    samples: Samples,
    config: RegressorConfig,
    settings: RegressorTraining,
    *,
    tracker: TrackerErrors | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> RegressorNet:
    """Fit the network. `progress` is called after each epoch with its number, the number of epochs and the loss."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 1])
    net = RegressorNet(config)
    first = disturb(samples, config.alignment, settings, rng, tracker)
    pose = pose_from_camera(first.camera)
    net.get_buffer("point_mean").copy_(first.landmarks.mean(0))
    net.get_buffer("point_scale").copy_(first.landmarks.std(0))
    net.get_buffer("pose_mean").copy_(pose.mean(0))
    net.get_buffer("pose_scale").copy_(pose.std(0).clamp_min(1e-3))
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.rate)
    steps = -(-len(samples) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.epochs * steps, pct_start=0.05
    )
    for epoch in range(settings.epochs):
        views = disturb(samples, config.alignment, settings, rng, tracker)
        wanted = (pose_from_camera(views.camera) - net.get_buffer("pose_mean")) / net.get_buffer("pose_scale")
        total = 0.0
        for batch in torch.from_numpy(rng.permutation(len(samples))).split(settings.batch):
            pose, beta = net(views.landmarks[batch], views.present[batch])
            pose = (pose - net.get_buffer("pose_mean")) / net.get_buffer("pose_scale")
            loss = settings.pose_weight * (pose - wanted[batch]).square().mean()
            loss = loss + (beta - samples.beta[batch]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        if progress:
            progress(epoch + 1, settings.epochs, total / len(samples))
    return net


def make_regressor(
    net: RegressorNet, notes: dict[str, object], tracker: TrackerErrors | None = None
) -> LandmarkRegressor:
    """Wrap a trained network; the hash is known once it is saved and loaded."""
    info = ExtractorInfo(NAME, str(VERSION), "", net.config.expression_space)
    if tracker is None:
        return LandmarkRegressor(net, info, notes=notes)
    return LandmarkRegressor(net, info, tracker.offsets, tracker.alignment, notes=notes)


@dataclass(frozen=True, kw_only=True)
class RegressorErrors:
    """Errors on heads that were not trained on. Pixels are those of a 256-pixel crop."""

    noise_px: float
    aligned: bool
    """Whether the crop came from the noisy points, as at run time, or is that of the clips."""
    beta_r2_per_mode: list[float]
    """Against the ridge fit: 1 - residual / variance."""
    beta_r2_first_10: float
    beta_r2_mean: float
    angle_error_deg_mean: float
    angle_error_deg_p95: float
    yaw_error_deg: float
    pitch_error_deg: float
    roll_error_deg: float
    reprojection_px_mean: float
    """Exact points seen by the regressed camera against the same points seen by the true camera."""
    shift_sd: tuple[float, float]
    """Spread of the regressed camera's sideways and upward place, scene units (clips: 0.02)."""
    distance_mean: float
    distance_sd_share: float
    """Spread of the regressed distance as a share of it (clips: 0.03)."""

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded to 4 digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def measure(regressor: LandmarkRegressor, samples: Samples, noise_px: float, *, aligned: bool) -> RegressorErrors:
    """Compare with the ridge fit (beta) and the true camera on held-out heads, with noise of `noise_px`."""
    settings = RegressorTraining(
        noise_px=(noise_px, noise_px), face_offset_px=0.0, missing_share=0.0, aligned_share=1.0 if aligned else 0.0
    )
    views = disturb(samples, regressor.net.config.alignment, settings, np.random.default_rng(12345))
    beta, p = (torch.from_numpy(a) for a in regressor.coefficients_of_head_points(views.landmarks.numpy()))
    camera = Camera.from_vector(p)
    r2 = _r2(beta, samples.beta)
    angle = rotation_angle_deg(camera, views.camera)
    angles = (camera.head_angles() - views.camera.head_angles()).abs().rad2deg().mean(0).tolist()
    drift = (camera.project(samples.points)[0] - views.camera.project(samples.points)[0]).norm(dim=-1)
    shift = pose_from_camera(camera)[:, 6:8].std(0).tolist()
    distance = camera.cam_to_world[:, :3, 3].norm(dim=1)
    return RegressorErrors(
        noise_px=noise_px,
        aligned=aligned,
        beta_r2_per_mode=r2.tolist(),
        beta_r2_first_10=float(r2[:10].mean()),
        beta_r2_mean=float(r2.mean()),
        angle_error_deg_mean=float(angle.mean()),
        angle_error_deg_p95=float(angle.quantile(0.95)),
        yaw_error_deg=angles[0],
        pitch_error_deg=angles[1],
        roll_error_deg=angles[2],
        reprojection_px_mean=float(drift.mean()) * REFERENCE_SIZE,
        shift_sd=(shift[0], shift[1]),
        distance_mean=float(distance.mean()),
        distance_sd_share=float(distance.std() / distance.mean()),
    )


def repeat_fit_r2(extractor: LinearExtractor, samples: Samples) -> list[float]:
    """R^2 per mode of the ridge fit against itself on the same frames with other noise and the true camera.

    Modes that 68 points hardly show are mostly noise in the target, which no network can foresee; this says which.
    """
    seen = add_noise(samples.landmarks, np.random.default_rng(777), extractor.config.noise_px)
    return [round(float(value), 4) for value in _r2(extractor.fit(seen, samples.camera), samples.beta)]


def _r2(beta: Tensor, target: Tensor) -> Tensor:
    return 1.0 - (beta - target).square().sum(0) / (target - target.mean(0)).square().sum(0)


def _rounded(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value
