"""How well the back ends of the metrics read faces whose truth is known: landmarks, pose, expression, identity (Sec. 4.2).

The same path as in `export3d evaluate`: a tracker follows the frames of each clip. Only people whom no training saw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import DataError, UsageError
from export3d.evaluation.metrics.backends import FaceBackend, FaceMeasures, IdentityBackend
from export3d.evaluation.metrics.truth import angle_error_deg, require_unseen_truth
from export3d.evaluation.scores.expression_content import LEADING
from export3d.evaluation.scores.run import Backends
from export3d.files import finite
from export3d.fitting.identity import verify
from export3d.heads.clips.extractor import NUM_EXPRESSION
from export3d.identity.crops import METRIC_SIZE_PX
from export3d.landmarks import BROWS, EYES, MOUTH, NOSE
from export3d.training.phases.expression_report import without_mean

PARTS = {"jaw": slice(0, 17), "brows": BROWS, "nose": NOSE, "eyes": EYES, "mouth": MOUTH}
YAW_BINS_DEG = (0.0, 15.0, 30.0, 180.0)
LEAST_VARIANCE = 1e-6
"""A column that varies less is constant up to rounding (true modes vary by 1) and has no R^2."""

LEAST_IDENTITIES = 4
"""Verification needs two people in each half; with fewer it is left out."""

Progress = Callable[[int], None]


def measure_backends(
    dataset: ClipDataset,
    backends: Backends,
    *,
    clips: int | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Read every frame and compare with the truth.

    Args:
        dataset: synthetic clips of people whom no training saw.
        backends: `faces` must be there; without `identities` there is no verification.
        seed: of the pairs of the verification.

    Returns:
        JSON-ready: `faces`, `by_yaw`, `landmarks`, `pose`, `expression` (None in another expression space than the
        data's) and `identity` (None without a network or with fewer than 4 people). What has no value is None.

    Raises:
        DataError: A clip is of the train split or has no exact truth, or no face was found at all.
        UsageError: No face back end.
    """
    if backends.faces is None:
        raise UsageError("measuring back ends needs one that finds faces: leave --landmarks none out.")
    count = len(dataset) if clips is None else min(clips, len(dataset))
    require_unseen_truth(dataset, count)
    seen = _read(dataset, backends.faces, backends.identities, count, on_progress)
    true, pose = seen.truth, seen.pose
    found = np.asarray(np.isfinite(pose).all(axis=1))
    if not found.any():
        raise DataError(f"{dataset.folder}: no face was found in {len(found)} frames; nothing can be measured.")
    same_space = backends.faces.info.expression_space == dataset.extractor["expression_space"]
    labels = np.unique(seen.people, return_inverse=True)[1]
    landmark_px = np.linalg.norm(seen.landmarks - true["landmarks"] * METRIC_SIZE_PX, axis=-1)
    result: dict[str, Any] = {
        "faces": {
            "clips": count,
            "identities": int(labels.max()) + 1,
            "frames": len(found),
            "found": int(found.sum()),
            "share_found": float(found.mean()),
        },
        "by_yaw": _by_yaw(found, landmark_px, pose[:, :3], true["camera"]),
        "landmarks": landmark_errors(seen.landmarks[found], true["landmarks"][found] * METRIC_SIZE_PX),
        "pose": pose_errors(pose[found, :3], true["camera"][found]),
        "expression": None,
        "identity": None,
    }
    if same_space:
        betas = (seen.expression[found], true["beta"][found], true["true_beta"][found])
        result["expression"] = expression_r2(*betas, seen.clip[found])
    if seen.embeddings is not None and labels.max() + 1 >= LEAST_IDENTITIES:
        result["identity"] = asdict(verify(seen.embeddings, labels, seed=seed))
    return finite(result, nan=None)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the back ends read in N frames, and the truth."""

    landmarks: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    embeddings: np.ndarray | None
    truth: dict[str, np.ndarray]  # landmarks, camera, beta, true_beta
    people: list[str]
    clip: np.ndarray  # (N,) number of the clip


def _read(
    dataset: ClipDataset,
    faces: FaceBackend,
    identities: IdentityBackend | None,
    count: int,
    on_progress: Progress | None,
) -> _Seen:
    read: list[FaceMeasures] = []
    truth: dict[str, list[np.ndarray]] = {name: [] for name in ("landmarks", "camera", "beta", "true_beta")}
    embedded, people, clip_of = [], [], []
    for index in range(count):
        frames = dataset.frames(index)
        read.append(faces.measure(frames))
        if identities is not None:
            embedded.append(identities.embeddings(frames))
        for name, values in truth.items():
            values.append(dataset.arrays(index)[name])
        people += [dataset.identity(index)] * len(frames)
        clip_of += [index] * len(frames)
        if on_progress is not None:
            on_progress(index + 1)
    true = {name: np.concatenate(values).astype(np.float64) for name, values in truth.items()}
    return _Seen(
        **{name: np.concatenate([getattr(one, name) for one in read]) for name in ("landmarks", "expression", "pose")},
        embeddings=np.concatenate(embedded) if embedded else None,
        truth=true,
        people=people,
        clip=np.array(clip_of),
    )


def landmark_errors(points: np.ndarray, true: np.ndarray) -> dict[str, dict[str, float]]:
    """Distances of ``(N, 68, 2)`` points from the true ones, in the unit of both, for the face and its parts.

    `without_offsets_px` takes off each point's mean displacement first: a tracker that defines a point elsewhere on the
    face is not wrong, only different.
    """
    moved = points - true
    rows = {}
    for name, part in {"all": slice(0, 68), **PARTS}.items():
        here = moved[:, part]
        distance = np.linalg.norm(here, axis=-1)
        rows[name] = {
            "mean_px": float(distance.mean()),
            "p95_px": float(np.percentile(distance, 95)),
            "without_offsets_px": float(np.linalg.norm(here - here.mean(axis=0), axis=-1).mean()),
        }
    return rows


def pose_errors(angles: np.ndarray, camera: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Yaw, pitch, roll read as ``(N, 3)`` radians against the true cameras ``(N, 25)``, in degrees.

    `rotation` is the angle of the whole rotation between the two; it has no bias and no R^2.
    """
    true = _true_angles(camera)
    wrong = np.degrees(angles - true)
    wrong = (wrong + 180.0) % 360.0 - 180.0
    rows: dict[str, dict[str, float | None]] = {}
    for number, name in enumerate(("yaw", "pitch", "roll")):
        rows[name] = {
            **_spread(np.abs(wrong[:, number])),
            "bias_deg": float(wrong[:, number].mean()),
            "r2": float(r2_of_modes(np.degrees(angles[:, [number]]), np.degrees(true[:, [number]]))[0]),
        }
    rows["rotation"] = {**_spread(angle_error_deg(angles, camera)), "bias_deg": None, "r2": None}
    return rows


def expression_r2(read: np.ndarray, stored: np.ndarray, true: np.ndarray, clip: np.ndarray) -> dict[str, Any]:
    """R^2 of coefficients ``(N, 64)`` mode by mode, plain and with the mean of each clip taken off both sides.

    Nothing is fitted: R^2 is 1 - residual / variance, so that a wrong scale counts. `correlation2` forgives the scale.

    Args:
        read: by the back end.
        stored: by the data set's own extractor, which knows the exact camera and landmarks up to noise.
        true: exact; the last 11 are zero and left out.
        clip: ``(N,)`` number of the clip.

    Returns:
        `means` over the leading modes and over all `modes` that vary, `leading_modes` one by one, `r2_per_mode` for all.
    """
    sides = {"stored beta": (read, stored), "true beta": (read[:, :NUM_EXPRESSION], true[:, :NUM_EXPRESSION])}
    per_mode: dict[str, dict[str, np.ndarray]] = {}
    for name, (ours, theirs) in sides.items():
        centred = without_mean(ours, clip), without_mean(theirs, clip)
        per_mode[name] = {
            "r2": r2_of_modes(ours, theirs),
            "r2_within_clips": r2_of_modes(*centred),
            "correlation2": _correlation2(ours, theirs),
            "correlation2_within_clips": _correlation2(*centred),
        }
    means = {
        name: {
            "modes": int(np.isfinite(rows["r2"]).sum()),
            **{f"{kind}_leading": float(values[:LEADING].mean()) for kind, values in rows.items()},
            **{f"{kind}_all": float(np.nanmean(values)) for kind, values in rows.items() if kind.startswith("r2")},
        }
        for name, rows in per_mode.items()
    }
    short = {"stored beta": "stored", "true beta": "true"}
    leading = [
        {"mode": mode}
        | {f"{short[name]}_{kind}": float(rows[kind][mode]) for name, rows in per_mode.items() for kind in rows}
        for mode in range(LEADING)
    ]
    every = {f"{short[name]}_{kind}": rows[kind].tolist() for name, rows in per_mode.items() for kind in rows}
    return {"means": means, "leading_modes": leading, "r2_per_mode": every}


def r2_of_modes(read: np.ndarray, true: np.ndarray) -> np.ndarray:
    """``(D,)`` 1 - residual / variance of each column of ``(N, D)``; NaN where the truth hardly varies."""
    residual = ((read - true) ** 2).sum(axis=0)
    variance = ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    varies = variance > LEAST_VARIANCE * len(true)
    return 1.0 - np.divide(residual, variance, out=np.full_like(residual, np.nan), where=varies)


def _correlation2(read: np.ndarray, true: np.ndarray) -> np.ndarray:
    a, b = read - read.mean(axis=0), true - true.mean(axis=0)
    ours, theirs = (a**2).sum(axis=0), (b**2).sum(axis=0)
    varies = np.minimum(ours, theirs) > LEAST_VARIANCE * len(true)
    return np.divide((a * b).sum(axis=0) ** 2, ours * theirs, out=np.full_like(ours, np.nan), where=varies)


def _by_yaw(
    found: np.ndarray, landmark_px: np.ndarray, angles: np.ndarray, camera: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Faces found and errors for heads turned little and far."""
    yaw = np.abs(np.degrees(_true_angles(camera)[:, 0]))
    wrong = angle_error_deg(angles, camera)
    rows = {}
    for low, high in pairwise(YAW_BINS_DEG):
        inside = (yaw >= low) & (yaw < high)
        seen = inside & found
        rows[f"{low:.0f} to {high:.0f} degrees"] = {
            "frames": int(inside.sum()),
            "share_found": float(found[inside].mean()) if inside.any() else None,
            "landmarks_mean_px": float(landmark_px[seen].mean()) if seen.any() else None,
            "rotation_mean_deg": float(wrong[seen].mean()) if seen.any() else None,
        }
    return rows


def _true_angles(camera: np.ndarray) -> np.ndarray:
    return Camera.from_vector(torch.from_numpy(np.asarray(camera, dtype=np.float64))).head_angles().numpy()


def _spread(errors: np.ndarray) -> dict[str, float | None]:
    return {"mean_deg": float(errors.mean()), "p95_deg": float(np.percentile(errors, 95))}
