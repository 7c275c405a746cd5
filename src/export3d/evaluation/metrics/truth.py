"""Errors against exact truth, which synthetic clips store: depth, camera and expression of each frame (beside Sec. 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from export3d.camera import Camera, head_rotation
from export3d.data import ClipDataset
from export3d.data.clip import DEPTH_STEPS
from export3d.errors import DataError
from export3d.evaluation.metrics.backends import FaceMeasures


@dataclass(frozen=True, kw_only=True)
class ClipTruth:
    """What is known of a driving clip.

    Attributes:
        camera: ``(T, 25)``.
        beta: ``(T, 64)`` true expression coefficients, not what an extractor read.
        expression_space: what they mean.
        depth: ``(T, H, H)`` distance along the ray in scene units, 0 where unknown.
    """

    camera: np.ndarray
    beta: np.ndarray
    expression_space: str
    depth: np.ndarray


def require_unseen_truth(dataset: ClipDataset, clips: int) -> None:
    """Refuse what no back end or encoder may be measured on.

    Raises:
        DataError: One of the first clips is of the train split, or has no `true_beta`.
    """
    for index in range(clips):
        where = f"{dataset.folder}: clip {dataset.keys[index]}"
        if dataset.meta(index)["split"] == "train":
            raise DataError(
                f"{where} is of the train split; only people whom training never saw may be measured. Render some with: "
                "export3d heads render --split test"
            )
        if not dataset.has(index, "true_beta.npy"):
            raise DataError(f"{where} has no true_beta; use synthetic clips.")


def read_truth(dataset: ClipDataset, index: int) -> ClipTruth | None:
    """The truth of clip `index`, or None where the clip was not rendered from known numbers."""
    if not (dataset.has(index, "true_beta.npy") and dataset.has(index, "0000.depth.png")):
        return None
    arrays = dataset.arrays(index)
    depths = []
    for t in range(dataset.num_frames(index)):
        depth = dataset.depth(index, t).astype(np.float32) / DEPTH_STEPS
        depths.append(np.where(dataset.mask(index, t) > 127, depth, 0.0))
    return ClipTruth(
        camera=arrays["camera"],
        beta=arrays["true_beta"],
        expression_space=dataset.extractor["expression_space"],
        depth=np.stack(depths),
    )


def score_truth(
    truth: ClipTruth,
    *,
    measured: FaceMeasures | None,
    expression_space: str,
    depth: np.ndarray | None,
    same_identity: bool,
) -> dict[str, np.ndarray]:
    """Metrics of one animated clip with known truth, per frame.

    The camera and the expression are read in the output by a back end, whose own error is part of the number: compare it
    with that of the driving frames themselves.

    Args:
        truth: of the driving clip.
        measured: what the back end read in the output; None leaves out camera and expression.
        expression_space: of the back end; another space than the truth's leaves out the expression.
        depth: ``(T, h, h)`` rendered distance along the ray, scene units; None leaves it out.
        same_identity: the depth of another person's head is no truth for this one.

    Returns:
        `depth_error`: mean absolute error inside the true head, scene units. `camera_angle_error`: angle between the two
        head rotations, degrees. `expression_error`: mean absolute difference of the 64 coefficients.
    """
    values: dict[str, np.ndarray] = {}
    if depth is not None and same_identity:
        values["depth_error"] = np.array([_depth_error(d, t) for d, t in zip(depth, truth.depth, strict=True)])
    if measured is not None:
        values["camera_angle_error"] = angle_error_deg(measured.pose[:, :3], truth.camera)
        if expression_space == truth.expression_space:
            values["expression_error"] = np.abs(measured.expression - truth.beta).mean(axis=1)
    return values


def _depth_error(depth: np.ndarray, truth: np.ndarray) -> float:
    given = torch.from_numpy(np.asarray(depth, dtype=np.float32))[None, None]
    full = F.interpolate(given, size=truth.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    known = truth > 0
    return float(np.abs(full - truth)[known].mean()) if known.any() else float("nan")


def angle_error_deg(angles: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Angle of the rotation between heads turned by `angles` ``(T, 3)`` and as `camera` sees them, degrees."""
    true = Camera.from_vector(torch.from_numpy(np.array(camera, dtype=np.float64))).head_angles()
    ours = head_rotation(*torch.from_numpy(np.nan_to_num(angles)).unbind(-1))
    between = ours.transpose(1, 2) @ head_rotation(*true.unbind(-1))
    # The sine from the antisymmetric part keeps small angles exact, where the arc cosine loses half the digits.
    skew = torch.stack(
        [between[:, 2, 1] - between[:, 1, 2], between[:, 0, 2] - between[:, 2, 0], between[:, 1, 0] - between[:, 0, 1]]
    )
    trace = between.diagonal(dim1=1, dim2=2).sum(dim=1)
    out = torch.rad2deg(torch.atan2(skew.norm(dim=0), trace - 1.0)).numpy()
    return np.where(np.isfinite(angles).all(axis=1), out, np.nan)
