"""Training of the landmark regressor on projected landmarks of synthetic heads (Sec. 4, data; Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export3d.camera import Camera, rotation_angle_deg
from export3d.heads.clips.extractor import LinearExtractor, add_noise
from export3d.heads.clips.motion import independent
from export3d.heads.look.appearance import AppearanceOptions, draw_alpha, draw_resting, draw_traits
from export3d.heads.look.identity import RESTING_SQUINT
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead
from export3d.tracking.alignment import Alignment, crop_squares, fit_affine, five_points
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.regressor import (
    NAME,
    VERSION,
    LandmarkRegressor,
    RegressorConfig,
    RegressorNet,
    pose_from_camera,
)

REFERENCE_SIZE = 256
"""Noise is given in pixels of a crop of this size."""


@dataclass(frozen=True, kw_only=True)
class RegressorTraining:
    """Settings of one training."""

    identities: int = 1500
    """Number of random heads."""
    frames: int = 20
    """Random frames of each head."""
    epochs: int = 45
    batch: int = 512
    rate: float = 2e-3
    """Highest learning rate of Adam; it falls to zero along a cosine."""
    noise_px: tuple[float, float] = (0.5, 2.0)
    """Range of the standard deviation of the noise on the points, pixels of a 256-pixel crop; drawn per face."""
    face_offset_px: float = 1.0
    """Standard deviation of offsets that many faces share: how a tracker's points differ from the head model's."""
    missing_share: float = 0.2
    """Share of faces in which some points are missing."""
    aligned_share: float = 0.6
    """Share of faces that are cropped by the alignment; the others keep the crop of the clips."""
    tracker_share: float = 0.7
    """Share of faces that get the errors of a face tracker, where they are known (:class:`TrackerErrors`)."""
    pose_weight: float = 3.0
    """Weight of the camera in the loss; beta has 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.identities, self.frames, self.epochs, self.batch) < 1 or self.rate <= 0.0:
            raise ValueError("RegressorTraining: identities, frames, epochs, batch and rate must be positive")


@dataclass(frozen=True)
class Samples:
    """Frames of random heads: points in the world ``(N, 68, 3)``, cameras and beta-hat ``(N, 64)``."""

    points: Tensor
    camera: Camera
    beta: Tensor

    def __len__(self) -> int:
        return len(self.points)

    @property
    def landmarks(self) -> Tensor:
        """``(N, 68, 2)`` exact positions in [0, 1]."""
        return self.camera.project(self.points)[0]


def draw_samples(
    head: ParametricHead,
    extractor: LinearExtractor,
    seeds: Sequence[int],
    frames: int,
    *,
    noisy_fit: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Independent frames of the heads with these seeds; beta is the extractor's fit to their landmarks.

    Args:
        noisy_fit: fit to noisy points, as the clips do. The noise of that fit cannot be foreseen and averages out in
            training, so training goes faster on the fit to the exact points.
    """
    points, cameras, betas = [], [], []
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng([11, seed])
        world, camera = _draw_person(head, seed, frames)
        seen = camera.project(world)[0]
        if noisy_fit:
            seen = add_noise(seen, rng, extractor.config.noise_px)
        points.append(world)
        cameras.append(camera.to_vector())
        betas.append(extractor.fit(seen, camera))
        if progress:
            progress(number + 1, len(seeds))
    return Samples(torch.cat(points), Camera.from_vector(torch.cat(cameras)), torch.cat(betas))


def fit_alignment(samples: Samples) -> Alignment:
    """The five-point alignment whose crops look like the clips: the head's pivot at the centre, the same size.

    EG3D's alignment puts another point of the head at the centre, and shows it larger, than the camera of the
    synthetic heads does. Origin and scale are fitted by least squares over all samples, so that on average the crop
    of a frame is the frame itself.
    """
    return fit_points_alignment(samples.landmarks.numpy())


def fit_points_alignment(landmarks: np.ndarray) -> Alignment:
    """:func:`fit_alignment` from landmarks ``(N, 68, 2)`` in [0, 1] of the clips' frames, exact or a face tracker's."""
    matrix, translation = fit_affine(five_points(landmarks))
    # The camera looks at the world origin up to its shift, so the wanted centre is (0.5, 0.5) on average.
    wanted = np.array([0.5, -0.5]) - translation
    origin = np.linalg.lstsq(matrix.reshape(-1, 3), wanted.reshape(-1), rcond=None)[0]
    scale = np.linalg.norm(matrix, axis=-1).mean(axis=-1)
    rescale = float(np.exp(np.log(scale).mean())) * 700.0
    return Alignment(rescale=rescale, target=1024.0, crop=700.0, origin=(0.0, float(origin[1]), float(origin[2])))


def fold_crop(camera: Camera, squares: Tensor, points: Tensor) -> Camera:
    """Cameras with the same intrinsics that see a crop of the picture as the old cameras see the whole.

    The camera turns until its axis goes through the centre of the crop, which moves the picture exactly up to a slight
    keystone. Magnification is folded into the position: with the new rotation, projection is linear in the position
    once both sides are multiplied by the depth, so the position that reprojects the points best is a 3 x 3 solve. What
    remains is the difference between a longer lens and a nearer camera, a fraction of a pixel.

    Args:
        camera: N cameras of the whole picture.
        squares: ``(N, 3)`` centre x, centre y and side of the crops in [0, 1] of the picture.
        points: ``(N, 68, 3)`` points in the world that are to be reprojected.
    """
    focal = camera.intrinsics[:, 0, 0, None]
    wanted = (camera.project(points)[0] - squares[:, None, :2]) / squares[:, None, 2:]  # (N, 68, 2) about the centre
    axis = torch.cat([(squares[:, :2] - camera.intrinsics[:, :2, 2]) / focal, torch.ones_like(focal)], dim=1)
    rotation = camera.cam_to_world[:, :3, :3] @ _turn_to(nn.functional.normalize(axis, dim=1))
    turned = points @ rotation  # camera axes, up to the translation t that is sought
    # wanted_x (z + t_z) = focal (x + t_x), and the same for y: two equations for each point.
    zero, lens = torch.zeros_like(turned[..., 0]), focal.expand(turned.shape[:2])
    rows = [torch.stack(row, dim=-1) for row in ((lens, zero, -wanted[..., 0]), (zero, lens, -wanted[..., 1]))]
    left = torch.cat(rows, dim=1)  # (N, 136, 3)
    right = (wanted * turned[..., 2:] - lens[..., None] * turned[..., :2]).transpose(1, 2).flatten(1)  # (N, 136)
    normal = left.transpose(1, 2) @ left
    translation = torch.linalg.solve(normal, left.transpose(1, 2) @ right[..., None])
    world = camera.cam_to_world.clone()
    world[:, :3, :3] = rotation
    world[:, :3, 3] = -(rotation @ translation)[..., 0]
    return Camera(world, camera.intrinsics)


@dataclass(frozen=True)
class TrackerErrors:
    """What a face tracker makes of rendered heads: its points minus the exact ones, frame by frame.

    The errors are far from random: a mean difference of each point, and one that goes with the pose and the person.
    Drawing whole frames of them, at about the same yaw, keeps all that.
    """

    yaw: np.ndarray
    """``(M,)`` radians, increasing."""
    errors: np.ndarray
    """``(M, 68, 2)`` in [0, 1] of the clips' frame."""
    alignment: Alignment
    """The crop for the tracker's points."""
    offsets: np.ndarray
    """``(68, 2)`` mean difference in that crop, which the regressor takes off."""

    def draw(self, yaw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``(N, 68, 2)`` errors of frames whose yaw is near ``(N,)`` radians."""
        around = max(1, len(self.yaw) // 40)
        place = np.searchsorted(self.yaw, yaw) + rng.integers(-around, around + 1, size=len(yaw))
        return self.errors[np.clip(place, 0, len(self.yaw) - 1)]


@dataclass(frozen=True)
class Views:
    """What the network sees: points ``(N, 68, 2)``, presence ``(N, 68)``; and the camera it should answer."""

    landmarks: Tensor
    present: Tensor
    camera: Camera


def disturb(
    samples: Samples,
    alignment: Alignment,
    settings: RegressorTraining,
    rng: np.random.Generator,
    tracker: TrackerErrors | None = None,
) -> Views:
    """Points as a face tracker would give them: noisy, partly missing, in the clips' crop or in an aligned crop.

    The alignment sees the noisy points, as it does at run time; the camera is that of the exact crop that results.
    """
    count = len(samples)
    noise = rng.uniform(*settings.noise_px, size=(count, 1, 1)) / REFERENCE_SIZE
    noisy = samples.landmarks.double().numpy()
    tracked = (rng.random(count) < settings.tracker_share) & (tracker is not None)
    if tracker is not None:
        yaw = samples.camera.head_angles()[:, 0].numpy()
        noisy[tracked] += tracker.draw(yaw[tracked], rng)
        noise[tracked] *= 0.5  # most of the noise is in the tracker's errors already
    noisy += noise * rng.normal(size=(count, 68, 2))
    shared = rng.normal(size=(64, 68, 2)) * settings.face_offset_px / REFERENCE_SIZE
    noisy += shared[rng.integers(len(shared), size=count)]
    aligned = rng.random(count) < settings.aligned_share
    squares = np.tile(np.array([0.5, 0.5, 1.0]), (count, 1))
    squares[aligned & ~tracked] = crop_squares(noisy[aligned & ~tracked], alignment)
    if tracker is not None:
        squares[aligned & tracked] = crop_squares(noisy[aligned & tracked], tracker.alignment)
    landmarks = (noisy - squares[:, None, :2]) / squares[:, None, 2:] + 0.5
    if tracker is not None:
        landmarks[tracked] -= tracker.offsets
    folded = fold_crop(samples.camera, torch.from_numpy(squares).float(), samples.points).to_vector()
    camera = torch.where(torch.from_numpy(aligned)[:, None], folded, samples.camera.to_vector())
    share = rng.uniform(0.0, 0.4, size=(count, 1)) * (rng.random((count, 1)) < settings.missing_share)
    present = rng.random((count, 68)) >= share
    return Views(torch.from_numpy(landmarks).float(), torch.from_numpy(present).float(), Camera.from_vector(camera))


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
    return LandmarkRegressor(net, info, tracker.offsets, tracker.alignment, notes)


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


def _draw_person(head: ParametricHead, seed: int, frames: int) -> tuple[Tensor, Camera]:
    """Landmarks in the world ``(T, 68, 3)`` and cameras of a random head, with resting face and resting lids (Eq. 11).

    The same people as :class:`export3d.heads.look.identity.Identity` draws for these seeds, without their looks.
    """
    options = AppearanceOptions()
    traits = draw_traits(seed, options)
    identity = torch.cat(draw_alpha(head, seed, traits.femininity))
    motion = independent(seed, frames, resting=draw_resting(head, seed, options).numpy())
    weights = torch.from_numpy(motion.weights).clone()
    for side in "LR":
        blink, squint = (head.expression_index[f"{name}_{side}"] for name in ("eyeBlink", "eyeSquint"))
        weights[:, blink] = weights[:, blink] * (1.0 - traits.resting_blink) + traits.resting_blink
        weights[:, squint] += RESTING_SQUINT
    chosen = head.landmark_vertices
    shape = head.vertices[chosen] + torch.tensordot(identity, head.identity_basis[: len(identity), chosen], 1)
    shape = shape + torch.tensordot(weights, head.expression_basis[:, chosen], 1)
    return ((shape - torch.tensor(WORLD_ORIGIN_CM)) * WORLD_SCALE).float(), motion.camera()


def _turn_to(axis: Tensor) -> Tensor:
    """``(N, 3, 3)`` smallest rotations that bring the z axis to the unit vectors `axis` ``(N, 3)`` (z positive)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, zero, x, zero, zero, y, -x, -y, zero], dim=-1).reshape(-1, 3, 3)
    return torch.eye(3, dtype=axis.dtype) + cross + cross @ cross / (1.0 + z)[:, None, None]
