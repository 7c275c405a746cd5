"""Training of the regressor's second network on dense meshes that MediaPipe found in rendered heads (Sec. 4, data).

What it learns from is what the shipped pipeline sees: detected points, the crop they give, and the extractor's fit to the
exact landmarks of the same frame as the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.fitting.crops import fold_crop
from export3d.fitting.detections import Detections
from export3d.heads.clips.extractor import LinearExtractor
from export3d.landmarks import mirror_points
from export3d.tracking.alignment import Alignment, crop_squares
from export3d.tracking.mesh_regressor import MeshConfig, MeshNet, turn_to_template
from export3d.tracking.regressor import pose_from_camera

_MIRROR_PAIRS = {33: 263, 263: 33, 61: 291, 291: 61, 234: 454, 454: 234, 1: 1, 10: 10, 152: 152}
"""MediaPipe's outer corners of the eyes, corners of the mouth, ears, tip of the nose, forehead, chin."""

CALIBRATION_EVERY = 10
"""Every tenth person of the training clips is kept for the gain."""

_CHUNK = 500  # frames that the extractor fits at once: the derivatives of each take 160 kB


@dataclass(frozen=True, kw_only=True)
class MeshTraining:
    """Settings of the training of the mesh network."""

    epochs: int = 60
    batch: int = 256
    rate: float = 2e-3
    """Highest learning rate of Adam; it falls to zero along a cosine."""
    noise: float = 0.15
    """Noise on the standardised features."""
    face_offset: float = 0.25
    """How far a face is moved towards another person's mean features, as a share of the difference of two people: real
    faces differ from the synthetic ones as these do from each other."""
    pose_weight: float = 1.0
    """Weight of the camera in the loss; beta has 1."""
    gain_cost: float = 0.02
    """A regression shrinks towards the mean. Each number of beta is amplified, at most to the spread of the truth, and
    only as far as this much of its R^2 is lost (both within a person, on people kept for it)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.rate <= 0.0 or min(self.noise, self.face_offset) < 0.0:
            raise ValueError(
                "MeshTraining: epochs, batch and rate must be positive, noise and face_offset not negative"
            )
        if not 0.0 <= self.gain_cost < 1.0:
            raise ValueError(f"MeshTraining: gain_cost must be in [0, 1); got {self.gain_cost}")


@dataclass(frozen=True)
class MeshSamples:
    """Meshes in the crop ``(N, 478, 3)``, the answers for the crop: pose ``(N, 9)``, beta ``(N, 64)``; whose they are
    ``(N,)``; and beta of the mirrored frame ``(N, 64)``."""

    mesh: Tensor
    pose: Tensor
    beta: Tensor
    person: Tensor
    beta_mirror: Tensor

    def __len__(self) -> int:
        return len(self.mesh)

    def part(self, chosen: Tensor) -> MeshSamples:
        """The samples where `chosen` ``(N,)`` bool is true."""
        return MeshSamples(*(t[chosen] for t in (self.mesh, self.pose, self.beta, self.person, self.beta_mirror)))


def meshes_in_crops(detections: Detections, alignment: Alignment) -> np.ndarray:
    """``(N, 478, 3)`` as `export3d.tracking.regressor.mesh_in_crop` gives them, for the crops of the found points."""
    squares = crop_squares(detections.found_landmarks, alignment)[:, None]
    flat = (detections.mesh[..., :2] - squares[..., :2]) / squares[..., 2:] + 0.5
    return np.concatenate([flat, detections.mesh[..., 2:] / squares[..., 2:]], axis=-1).astype(np.float32)


def mesh_samples(detections: Detections, extractor: LinearExtractor, alignment: Alignment) -> MeshSamples:
    """Detected meshes in their crops, with the fit to the exact landmarks and the exact camera of the crop.

    The fit in the clips is one to noisy landmarks; its noise cannot be foreseen, so training goes without it.
    """
    squares = torch.from_numpy(crop_squares(detections.found_landmarks, alignment)).float()
    exact = torch.from_numpy(detections.true_landmarks).split(_CHUNK)
    cameras = [Camera.from_vector(p) for p in torch.from_numpy(detections.true_camera).split(_CHUNK)]
    pose, beta, mirror = [], [], []
    for landmarks, camera, square in zip(exact, cameras, squares.split(_CHUNK), strict=True):
        pose.append(pose_from_camera(fold_crop(camera, square, extractor.fitted_points(landmarks, camera))))
        beta.append(extractor.fit(landmarks, camera))
        mirror.append(extractor.fit(mirror_points(landmarks), camera.mirrored()))
    return MeshSamples(
        torch.from_numpy(meshes_in_crops(detections, alignment)),
        torch.cat(pose),
        torch.cat(beta),
        torch.from_numpy(detections.clip),
        torch.cat(mirror),
    )


def mean_mesh(mesh: Tensor, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Mean of meshes ``(N, 478, 3)`` turned to each other, and weights ``(478,)`` that favour points which stay put."""
    template, weight = mesh[0], torch.full((mesh.shape[1],), 1.0 / mesh.shape[1])
    for _ in range(rounds):
        turned, _ = turn_to_template(mesh, template, weight)
        template = turned.mean(0)
        variance = (turned - template).square().sum(-1).mean(0)
        weight = 1.0 / (variance + 0.2 * variance.median())
        weight = weight / weight.sum()
    return template, weight


def mirror_indices(template: Tensor) -> Tensor:
    """``(478,)``: point i of the mirrored face is point [i] of the face; by nearness to the mirrored template.

    The mean face may look aside, so the mirrored one is turned onto it first: as it is, and by MediaPipe's known pairs, which
    a mesh of other points need not have. The nearest counts.
    """
    flipped = template * template.new_tensor([-1.0, 1.0, 1.0])
    flipped = flipped + (template.mean(0) - flipped.mean(0))
    uniform = torch.full((len(template),), 1.0 / len(template))
    known, wanted = torch.zeros(len(template)), torch.arange(len(template))
    known[list(_MIRROR_PAIRS)] = 1.0 / len(_MIRROR_PAIRS)
    wanted[list(_MIRROR_PAIRS)] = torch.tensor(list(_MIRROR_PAIRS.values()))
    by_pairs = turn_to_template(flipped[None], template[wanted], known)[0][0]
    best, partner = float("inf"), wanted
    for turned in (flipped, by_pairs):
        for _ in range(6):
            distance, found = torch.cdist(turned, template).min(1)
            turned = turn_to_template(turned[None], template[found], uniform)[0][0]
        if float(distance.mean()) < best:
            best, partner = float(distance.mean()), found
    return partner


def mirrored_samples(samples: MeshSamples, indices: Tensor) -> MeshSamples:
    """The samples of the mirrored frames."""
    mesh = samples.mesh[:, indices] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([1.0, 0.0, 0.0])
    # A mirrored rotation D R D: entries that couple x with another axis change sign, and so does the origin's x.
    sign = samples.pose.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    return MeshSamples(mesh, samples.pose * sign, samples.beta_mirror, -1 - samples.person, samples.beta)


def train_mesh(
    samples: MeshSamples,
    config: MeshConfig,
    settings: MeshTraining,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> MeshNet:
    """Fit the network to nine people of ten, and its gain to the tenth.

    `progress` is called after each epoch with its number, the number of epochs and the loss.
    """
    torch.manual_seed(settings.seed)
    people = samples.person.unique()
    kept = torch.isin(samples.person, people[CALIBRATION_EVERY - 1 :: CALIBRATION_EVERY])
    train = samples if not kept.any() else samples.part(~kept)
    net = MeshNet(config)
    template, steadiness = mean_mesh(train.mesh[:: max(1, len(train) // 2000)])
    net.get_buffer("template").copy_(template)
    net.get_buffer("steadiness").copy_(steadiness)
    mirrored = mirrored_samples(train, mirror_indices(template))
    _set_statistics(net, train, mirrored)
    with torch.no_grad():
        features = torch.cat([net.features(train.mesh), net.features(mirrored.mesh)])
    pose = (torch.cat([train.pose, mirrored.pose]) - net.get_buffer("pose_mean")) / net.get_buffer("pose_scale")
    beta = torch.cat([train.beta, mirrored.beta])
    faces, _ = _means(features, torch.cat([train.person, mirrored.person]))
    faces[:, config.components :] = 0.0  # the pose tells nothing of the person
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=1e-4)
    steps = -(-len(features) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.epochs * steps, pct_start=0.1
    )
    for epoch in range(settings.epochs):
        net.train()
        total = 0.0
        for batch in torch.randperm(len(features)).split(settings.batch):
            seen = features[batch] + settings.noise * torch.randn(len(batch), features.shape[1])
            other = torch.randint(len(faces), (2, len(batch)))
            seen = seen + settings.face_offset * torch.rand(len(batch), 1) * (faces[other[0]] - faces[other[1]])
            told_pose, told_beta = net.answer(seen)
            loss = settings.pose_weight * (told_pose - pose[batch]).square().mean()
            loss = loss + (told_beta - beta[batch]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        if progress:
            progress(epoch + 1, settings.epochs, total / len(features))
    net.eval()
    if kept.any():
        held = samples.part(kept)
        with torch.no_grad():
            told = net(held.mesh)[1]
        net.get_buffer("beta_gain").copy_(calibrated_gain(told, held.beta, held.person, settings.gain_cost))
        net.get_buffer("beta_mean").copy_(told.mean(0))
    return net


def calibrated_gain(told: Tensor, truth: Tensor, person: Tensor, cost: float) -> Tensor:
    """``(64,)`` factors, at least 1, on each number's distance from its mean.

    With slope b of the truth on the answer, a gain g loses (g - b)^2 var(answer) / var(truth) of the R^2 that the best
    one has; the gain goes up to sd(truth) / sd(answer), but not past that loss.
    """
    told, truth = within(told, person), within(truth, person)
    power = told.square().mean(0).clamp_min(1e-12)
    full = (truth.square().mean(0) / power).sqrt()
    slope = (told * truth).mean(0) / power
    return torch.minimum(full, slope + cost**0.5 * full).clamp_min(1.0)


def within(values: Tensor, person: Tensor) -> Tensor:
    """Values ``(N, D)`` minus the mean of each person ``(N,)``."""
    means, number = _means(values, person)
    return values - means[number]


def _means(values: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
    """``(P, D)`` mean of each person, and which of them ``(N,)`` each row is of."""
    _, number = person.unique(return_inverse=True)
    total = values.new_zeros(int(number.max()) + 1, values.shape[1]).index_add(0, number, values)
    return total / torch.bincount(number)[:, None], number


def _set_statistics(net: MeshNet, train: MeshSamples, mirrored: MeshSamples) -> None:
    """Principal components of the turned meshes, and the spread of everything."""
    template, steadiness = net.get_buffer("template"), net.get_buffer("steadiness")
    mesh = torch.cat([train.mesh, mirrored.mesh])[:: max(1, 2 * len(train) // 10000)]
    turned, place = turn_to_template(mesh, template, steadiness)
    flat = (turned - template).flatten(1).double()
    variance, axes = torch.linalg.eigh(flat.T @ flat / len(flat))
    count = net.config.components
    spread = variance.flip(0)[:count].clamp_min(1e-10).sqrt()
    net.get_buffer("basis").copy_(axes.flip(1)[:, :count] / spread)
    net.get_buffer("place_mean").copy_(place.mean(0))
    net.get_buffer("place_scale").copy_(place.std(0).clamp_min(1e-4))
    pose = torch.cat([train.pose, mirrored.pose])
    net.get_buffer("pose_mean").copy_(pose.mean(0))
    net.get_buffer("pose_scale").copy_(pose.std(0).clamp_min(1e-3))
