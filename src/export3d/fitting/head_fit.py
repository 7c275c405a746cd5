"""The bundled head fit from nothing: mean head, trust of its points and correction from rendered heads (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from export3d.camera import FOCAL, Camera
from export3d.errors import DataError
from export3d.fitting.detections import Detections, Progress
from export3d.fitting.maps import looked_at, write_map
from export3d.fitting.mesh_regressor import mean_mesh, mirror_indices
from export3d.fitting.options import FitOptions
from export3d.fitting.ridge import ridge_map
from export3d.tracking.faces import FaceTracker
from export3d.tracking.head_fit import NUM_FEATURES, NUM_MESH, HeadFit, HeadPose, in_plane, place_features
from export3d.tracking.mediapipe_tracker import MediaPipeTracker

COMPONENTS = 100
"""Principal components of the turned face that the correction reads."""

SIDED = 30
"""So many of them also times from where the face is seen."""

RIDGE = 0.2
"""Of the standardised components' variance."""

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
    write_map(fit, options, command, (train, unseen), rows=rows, fitted_to={"components": COMPONENTS})
    degrees, pixels = rows["corrected"]["rotation_deg"], rows["corrected"]["face_px"]
    return f"{options.output}: on other people rotation {degrees:.2f} degrees, place {pixels:.2f} px of 256"


def fit_head(detections: Detections) -> HeadFit:
    """Mean head, weights and correction from the frames and their mirror images."""
    mesh = torch.from_numpy(detections.mesh)
    partner = mirror_indices(mean_mesh(mesh[:: max(1, len(mesh) // 2000)])[0])
    mirrored = mesh[:, partner] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([1.0, 0.0, 0.0])
    cameras = Camera.from_vector(torch.from_numpy(detections.true_camera))
    meshes = torch.cat([mesh, mirrored]).double().numpy()
    poses = [HeadPose.of_camera(p) for p in torch.cat([cameras.to_vector(), cameras.mirrored().to_vector()]).numpy()]
    fit = _without_correction(meshes, poses)
    steps = np.stack([_step(fit.fit_mean(mesh), true) for mesh, true in zip(meshes, poses, strict=True)])
    read = np.linalg.norm(steps[:, :3], axis=1) < MISREAD_RAD
    meshes, poses = meshes[read], [pose for pose, kept in zip(poses, read, strict=True) if kept]
    fit = _without_correction(meshes, poses)
    found = [fit.fit_mean(mesh) for mesh in meshes]
    turned = np.stack([fit.turned(mesh, pose) for mesh, pose in zip(meshes, found, strict=True)])
    mean = turned.mean(0)
    place = np.stack([place_features(pose) for pose in found])
    wanted = np.stack([_step(pose, true) for pose, true in zip(found, poses, strict=True)])
    correction = _correction(turned - mean, place, wanted)
    return replace(fit, mean=mean.astype(np.float32), correction=correction.astype(np.float32))


def _without_correction(meshes: np.ndarray, poses: Sequence[HeadPose]) -> HeadFit:
    rotation = np.stack([pose.rotation for pose in poses])
    template, weight = _mean_head(meshes[..., :2] - 0.5, rotation, np.stack([pose.origin for pose in poses]))
    return HeadFit(
        template=template.astype(np.float32),
        weight=weight.astype(np.float32),
        mean=np.zeros(3 * NUM_MESH, np.float32),
        correction=np.zeros((NUM_FEATURES, 6), np.float32),
    )


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
    inner = angles - np.stack([angles[seen.clip == person].mean(0) for person in seen.clip])
    row = {
        "rotation_deg": np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean(),
        **{f"{name}_deg": np.abs(angles[:, i]).mean() for i, name in enumerate(("yaw", "pitch", "roll"))},
        **{f"{name}_within_deg": np.abs(inner[:, i]).mean() for i, name in enumerate(("yaw", "pitch", "roll"))},
        "face_px": 256.0 * np.mean(away),
        "distance_percent": 100.0 * np.abs(depth).mean(),
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
    between = pose.rotation.T @ true.rotation
    axis = np.array([between[2, 1] - between[1, 2], between[0, 2] - between[2, 0], between[1, 0] - between[0, 1]])
    sine = np.linalg.norm(axis) / 2.0
    angle = np.arctan2(sine, (np.trace(between) - 1.0) / 2.0)
    shift = in_plane(pose) @ (true.origin[:2] - pose.origin[:2])
    return np.concatenate([axis * (angle / max(2.0 * sine, 1e-12)), shift, [np.log(true.origin[2] / pose.origin[2])]])


def _correction(faces: np.ndarray, place: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ridge regression on principal components of the faces ``(N, 1434)``, the first of them from each side, and the place
    ``(N, 7)``; the components are folded into the answer, which reads `features_of`."""
    variance, axes = np.linalg.eigh(faces.T @ faces / len(faces))
    spread = np.sqrt(np.maximum(variance[::-1][:COMPONENTS], 1e-12))
    basis = axes[:, ::-1][:, :COMPONENTS] / spread
    scale = np.maximum(place.std(axis=0), 1e-6)
    scale[-1] = 1.0
    read, place = faces @ basis, place / scale
    columns = [read, read[:, :SIDED] * place[:, :1], read[:, :SIDED] * place[:, 1:2], place]
    answer = ridge_map(np.concatenate(columns, axis=1), wanted, RIDGE)
    ends = np.cumsum([part.shape[1] for part in columns])[:-1]
    whole, aside, above, placed = np.split(answer, ends)
    sided = basis[:, :SIDED]
    return np.concatenate([basis @ whole, sided @ aside / scale[0], sided @ above / scale[1], placed / scale[:, None]])
