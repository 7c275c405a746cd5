"""The bundled head fit from nothing: mean head, trust of its points and correction from rendered heads (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from export3d.camera import FOCAL, Camera
from export3d.errors import DataError
from export3d.fitting.detections import Detections, Progress
from export3d.fitting.maps import looked_at, write_map
from export3d.fitting.mesh_regressor import mean_mesh, mirror_indices
from export3d.fitting.options import FitOptions
from export3d.tracking.faces import FaceTracker
from export3d.tracking.head_fit import COMPONENTS, HIDDEN, NUM_MESH, HeadFit, HeadPose, in_plane, vector_of
from export3d.tracking.mediapipe_tracker import MediaPipeTracker

STEPS, PEOPLE, LOOKS, RATE = 5000, 32, 8, 2e-3
"""Of the training: steps, people in each, frames of each person, highest rate of Adam."""

PERSON_WEIGHT = 0.05
"""What a person's mean error counts beside the errors about it. An error that portrait and driver share moves the whole head
and is hardly seen; one that changes from frame to frame is."""

DROPOUT, NOISE = 0.2, 0.4
"""Share of hidden units left out, and noise on the features: real meshes are noisier in what hardly varies."""

UNITS = torch.tensor([0.02, 0.02, 0.02, 0.012, 0.012, 0.015])
"""Errors that weigh the same: radians, scene units, logarithm of the distance."""

MISREAD_RAD = 0.35
"""Meshes that lie farther from the truth are no faces that were read, but a few that were found upside down; they count for
nothing."""


def build_head_fit(
    options: FitOptions,
    command: str = "export3d train-camera",
    tracker: FaceTracker | None = None,
    progress: Progress | None = None,
) -> str:
    """Look at rendered clips, fit, measure and save; arguments, result and errors as of `build_gaze_map`."""
    tracker = tracker or MediaPipeTracker()
    train, unseen = looked_at(options, tracker, progress)
    if not (train.has_mesh and unseen.has_mesh):
        raise DataError(f"train-camera: the face tracker '{tracker.info.name}' gives no dense mesh.")
    fit = fit_head(train)
    rows = {
        "mean head alone": measure_poses([fit.fit_mean(mesh) for mesh in unseen.mesh], unseen, fit),
        "corrected": measure_poses([fit.fit(mesh) for mesh in unseen.mesh], unseen, fit),
    }
    write_map(fit, options, command, (train, unseen), rows=rows, fitted_to={"components": COMPONENTS}, seed=0)
    degrees, pixels = rows["corrected"]["rotation_deg"], rows["corrected"]["face_px"]
    return f"{options.output}: on other people rotation {degrees:.2f} degrees, place {pixels:.2f} px of 256"


def fit_head(detections: Detections, steps: int = STEPS) -> HeadFit:
    """Mean head, weights and correction from the frames and their mirror images, which count as other people's."""
    mesh = torch.from_numpy(detections.mesh)
    partner = mirror_indices(mean_mesh(mesh[:: max(1, len(mesh) // 2000)])[0])
    mirrored = mesh[:, partner] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([1.0, 0.0, 0.0])
    cameras = Camera.from_vector(torch.from_numpy(detections.true_camera))
    meshes = torch.cat([mesh, mirrored]).double().numpy()
    poses = [HeadPose.of_camera(p) for p in torch.cat([cameras.to_vector(), cameras.mirrored().to_vector()]).numpy()]
    fit = _without_correction(meshes, poses)
    misread = [np.linalg.norm(_step(fit.fit_mean(mesh), true)[:3]) for mesh, true in zip(meshes, poses, strict=True)]
    read = np.flatnonzero(np.array(misread) < MISREAD_RAD)
    meshes, poses, person = meshes[read], [poses[i] for i in read], np.tile(detections.clip, 2)[read]
    person[read >= len(mesh)] += detections.clip.max() + 1
    fit = _without_correction(meshes, poses)
    found = [fit.fit_mean(mesh) for mesh in meshes]
    turned = np.stack([fit.turned(mesh, pose) for mesh, pose in zip(meshes, found, strict=True)])
    fit = replace(fit, mean=turned.mean(0).astype(np.float32), basis=_components(turned - turned.mean(0)))
    features = np.stack([fit.features(face, pose) for face, pose in zip(turned, found, strict=True)])
    wanted = np.stack([_step(pose, true) for pose, true in zip(found, poses, strict=True)])
    return replace(fit, **_correction(features, wanted, person, steps))


def _without_correction(meshes: np.ndarray, poses: Sequence[HeadPose]) -> HeadFit:
    rotation = np.stack([pose.rotation for pose in poses])
    template, weight = _mean_head(meshes[..., :2] - 0.5, rotation, np.stack([pose.origin for pose in poses]))
    nothing = {name: np.zeros(shape, np.float32) for name, shape in HeadFit.SHAPES.items()}
    return HeadFit(**{**nothing, "template": template.astype(np.float32), "weight": weight.astype(np.float32)})


def measure_poses(poses: Sequence[HeadPose], seen: Detections, fit: HeadFit) -> dict[str, float]:
    """Mean errors of the cameras of whole frames against the true ones.

    Degrees; `face_px` is how far the mean head's points are from where the true camera sees them, in pixels of 256;
    `distance_percent` of the head's distance; `within` after each person's mean error is taken off.
    """
    truth = [HeadPose.of_camera(p) for p in seen.true_camera]
    angles = np.degrees(
        Camera.from_vector(torch.from_numpy(np.stack([pose.camera() for pose in poses]))).head_angles().numpy()
        - seen.true_angles()
    )
    cosine = [(np.trace(pose.rotation @ true.rotation.T) - 1.0) / 2.0 for pose, true in zip(poses, truth, strict=True)]
    away = [np.linalg.norm(_seen(fit, a) - _seen(fit, b), axis=1).mean() for a, b in zip(poses, truth, strict=True)]
    depth = np.array([np.log(a.origin[2] / b.origin[2]) for a, b in zip(poses, truth, strict=True)])
    errors = np.concatenate([angles, depth[:, None]], axis=1)
    inner = errors - np.stack([errors[seen.clip == person].mean(0) for person in seen.clip])
    row = {
        "rotation_deg": np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean(),
        **{f"{name}_deg": np.abs(angles[:, i]).mean() for i, name in enumerate(("yaw", "pitch", "roll"))},
        **{f"{name}_within_deg": np.abs(inner[:, i]).mean() for i, name in enumerate(("yaw", "pitch", "roll"))},
        "face_px": 256.0 * np.mean(away),
        "distance_percent": 100.0 * np.abs(depth).mean(),
        "distance_within_percent": 100.0 * np.abs(inner[:, 3]).mean(),
    }
    return {name: round(float(value), 4) for name, value in row.items()}


def _seen(fit: HeadFit, pose: HeadPose) -> np.ndarray:
    local = fit.template @ pose.rotation.T + pose.origin
    flat: np.ndarray = FOCAL * local[:, :2] / local[:, 2:]
    return flat


def _mean_head(points: np.ndarray, rotation: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each point's place in the world from all frames that see it, and its weight, one over its variance in the picture.

    With u the place in the picture, u (z + o_z) = f (x + o_x) is linear in the point; so it is a 3 x 3 solve.
    """
    normal = np.zeros((NUM_MESH, 3, 3))
    right = np.zeros((NUM_MESH, 3))
    for axis in range(2):
        row = FOCAL * rotation[:, None, axis] - points[..., axis, None] * rotation[:, None, 2]
        wanted = points[..., axis] * origin[:, None, 2] - FOCAL * origin[:, None, axis]
        row, wanted = row / origin[:, 2, None, None], wanted / origin[:, 2, None]
        normal += np.einsum("npi,npj->pij", row, row)
        right += np.einsum("npi,np->pi", row, wanted)
    template = np.linalg.solve(normal, right[..., None])[..., 0]
    local = np.einsum("nij,pj->npi", rotation, template) + origin[:, None]
    variance = ((points - FOCAL * local[..., :2] / local[..., 2:]) ** 2).sum(-1).mean(0)
    return template, 1.0 / variance / (1.0 / variance).sum()


def _step(pose: HeadPose, true: HeadPose) -> np.ndarray:
    """``(6,)`` the correction that takes a pose to the true one; the inverse of `head_fit.corrected`."""
    shift = in_plane(pose) @ (true.origin[:2] - pose.origin[:2])
    turn = vector_of(pose.rotation.T @ true.rotation)
    return np.concatenate([turn, shift, [np.log(true.origin[2] / pose.origin[2])]])


def _components(faces: np.ndarray) -> np.ndarray:
    """``(1434, 120)`` principal axes of centred faces ``(N, 1434)``, each over its standard deviation."""
    variance, axes = np.linalg.eigh(faces.T @ faces / len(faces))
    spread = np.sqrt(np.maximum(variance[::-1][:COMPONENTS], 1e-10))
    return (axes[:, ::-1][:, :COMPONENTS] / spread).astype(np.float32)


def _correction(features: np.ndarray, wanted: np.ndarray, person: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """The arrays of the network that gives the corrections ``(N, 6)`` from features ``(N, 122)`` of people ``(N,)``."""
    order = np.argsort(person, kind="stable")
    rows, goal = torch.from_numpy(features[order]), torch.from_numpy(wanted[order]).float() / UNITS
    count = torch.from_numpy(np.unique(person, return_counts=True)[1])
    first = count.cumsum(0) - count
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner, outer = nn.Linear(COMPONENTS + 2, HIDDEN), nn.Linear(HIDDEN, 6)
        net = nn.Sequential(inner, nn.SiLU(), nn.Dropout(DROPOUT), outer)
        adam = torch.optim.Adam(net.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps, pct_start=0.1)
        for _ in range(steps):
            drawn = torch.randint(len(count), (PEOPLE, 1))
            chosen = first[drawn] + (torch.rand(PEOPLE, LOOKS) * count[drawn]).long()
            seen = rows[chosen]
            error = net(seen + NOISE * torch.randn_like(seen)) - goal[chosen]
            mean = error.mean(dim=1, keepdim=True)
            loss = (error - mean).square().mean() + PERSON_WEIGHT * mean.square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
    arrays = (inner.weight.T, inner.bias, outer.weight.T * UNITS, outer.bias * UNITS)
    found = dict(zip(("inner", "inner_bias", "outer", "bias"), arrays, strict=True))
    return {name: tensor.detach().contiguous().numpy() for name, tensor in found.items()}
