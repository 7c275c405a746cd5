"""The bundled gaze map from nothing: a ridge regression on what MediaPipe found in rendered heads (no paper section)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.files import write_atomically
from export3d.fitting.detections import Detections, Progress, seen_and_unseen
from export3d.fitting.mesh_regressor import mean_mesh, mirror_indices, within
from export3d.fitting.regressor_report import r2, rounded
from export3d.fitting.ridge import ridge_map
from export3d.heads.clips.motion import weights_to_gaze
from export3d.tracking.faces import FaceTracker
from export3d.tracking.gaze import CLOSED_BELOW, GazeMap, eye_features
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.mesh_regressor import NUM_MESH, turn_to_template

RIDGE = 0.01
"""Of the standardised features' variance: weights stay small, at the cost of 0.01 of R^2."""

_TEMPLATE_MESHES = 2000


@dataclass(frozen=True)
class GazeReport:
    """What was fitted and how well it reads people it was not fitted to."""

    results: dict[str, object]
    r2: tuple[float, float]

    def line(self, path: Path) -> str:
        """The one line for the command's end."""
        return f"{path}: R2 of gaze on other people: sideways {self.r2[0]:.3f}, up and down {self.r2[1]:.3f}"


def build_gaze_map(
    output: Path,
    data: Sequence[Path],
    *,
    test_data: Path | None = None,
    detections_folder: Path | None = None,
    report_path: Path | None = None,
    command: str = "export3d train-gaze",
    tracker: FaceTracker | None = None,
    progress: Progress | None = None,
) -> GazeReport:
    """Look at rendered clips, fit, measure and save.

    Args:
        data: rendered clips to fit to.
        test_data: rendered clips of other people to measure on; without it every fifth person of `data` is kept.
        detections_folder: keeps what the tracker found, for the next time.
        command: what was typed, for the report.
        tracker: default: MediaPipe.

    Raises:
        DataError: No clips, clips without truth, no face, or a tracker that gives no dense mesh.
    """
    tracker = tracker or MediaPipeTracker()
    test = None if test_data is None else ClipDataset(test_data)
    sets = [ClipDataset(path) for path in data]
    train, unseen = seen_and_unseen(sets, test, tracker, detections_folder, progress)
    if not (train.has_mesh and unseen.has_mesh):
        raise DataError(f"train-gaze: the face tracker '{tracker.info.name}' gives no dense mesh with irises.")
    gaze_map = fit_gaze_map(train)
    pose = _pose_alone(train, unseen)
    rows = measure_gaze(gaze_map, unseen, pose)
    told = gaze_map.read_features(*eye_features(unseen.mesh, gaze_map.template, gaze_map.steadiness))
    results: dict[str, object] = {
        "command": command,
        "date": date.today().isoformat(),
        "seed": None,
        "fitted_to": {"people": len(np.unique(train.clip)), "frames": len(train.mesh), "ridge": RIDGE},
        "measured_on": {
            "people": len(np.unique(unseen.clip)),
            "frames": len(unseen.mesh),
            "unknown_share": rounded(np.isnan(told[:, 0]).mean()),
            "closed_below": CLOSED_BELOW,
        },
        "rows": rows,
        "sha256": gaze_map.save(output),
    }
    if report_path is not None:
        write_atomically(report_path, (json.dumps(results, indent=1) + "\n").encode())
    sideways, up = (float(row["r2"]) if isinstance(row["r2"], float) else float("nan") for row in rows)
    return GazeReport(results, (sideways, up))


def fit_gaze_map(detections: Detections, ridge: float = RIDGE) -> GazeMap:
    """Fit the mean of both eyes to the true gaze over the frames in which both are open.

    The eye at the image left is read as the mirror image of the other, so that a mirrored face gives a mirrored gaze.

    Raises:
        DataError: No frame has both eyes open.
    """
    template, steadiness = symmetric_template(torch.from_numpy(detections.mesh))
    features, openings = eye_features(detections.mesh, template, steadiness)
    chosen = (openings >= CLOSED_BELOW).all(axis=1)
    if not chosen.any():
        raise DataError("train-gaze: no rendered frame has both eyes open. Render other clips: export3d heads render")
    eyes = features[chosen].astype(np.float64)
    gaze = weights_to_gaze(detections.true_weights[chosen])
    mean, scale = eyes.mean(axis=(0, 1)), np.maximum(eyes.std(axis=(0, 1)), 1e-6)
    left, right = np.moveaxis((eyes - mean) / scale, 1, 0)
    up = gaze[:, 1].mean()
    weight = [
        ridge_map((right - left) / 2.0, gaze[:, 0], ridge),
        ridge_map((right + left) / 2.0, gaze[:, 1] - up, ridge),
    ]
    return GazeMap(
        template=template,
        steadiness=steadiness,
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        weight=np.stack(weight, axis=1).astype(np.float32),
        bias=np.array([0.0, up], dtype=np.float32),
    )


def symmetric_template(meshes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean mesh ``(478, 3)`` of size 1 that is its own mirror image, and weights ``(478,)`` that are the same on both
    sides."""
    some = meshes[:: max(1, len(meshes) // _TEMPLATE_MESHES)]
    size = (some - some.mean(1, keepdim=True)).square().sum((1, 2)).mean().sqrt()
    template, steadiness = mean_mesh(some / size)
    partner, flip = mirror_indices(template), torch.tensor([-1.0, 1.0, 1.0])
    even = torch.full((NUM_MESH,), 1.0 / NUM_MESH)
    template = template - template.mean(0)
    for _ in range(20):  # symmetric first, about whatever plane; then turned until that plane is x = 0
        mirrored = turn_to_template((template[partner] * flip)[None], template, even)[0][0]
        template = turn_to_template(((template + mirrored) / 2.0)[None], _halved(template, partner, flip), even)[0][0]
        template = template - template.mean(0)
    return _halved(template, partner, flip).numpy(), ((steadiness + steadiness[partner]) / 2.0).numpy()


def measure_gaze(gaze_map: GazeMap, seen: Detections, pose_alone: np.ndarray) -> list[dict[str, object]]:
    """One row for each axis, over the frames whose gaze is not unknown.

    Args:
        pose_alone: ``(N, 2)`` what the head's pose alone says: the synthetic eyes tend to stay on the camera.
    """
    told = gaze_map.read_features(*eye_features(seen.mesh, gaze_map.template, gaze_map.steadiness)).astype(np.float64)
    truth = weights_to_gaze(seen.true_weights)
    known = np.isfinite(told).all(axis=1)
    person = torch.from_numpy(seen.clip[known])
    rows: list[dict[str, object]] = []
    for axis, name in enumerate(("sideways", "up and down")):
        answer, wanted, pose = told[known, axis], truth[known, axis], pose_alone[known, axis]
        inner, inner_wanted = (within(torch.from_numpy(v[:, None]), person).numpy()[:, 0] for v in (answer, wanted))
        spread = (wanted - wanted.mean()) @ (wanted - wanted.mean())
        rows.append(
            {
                "gaze": name,
                "r2": rounded(r2(answer, wanted)),
                "r2_within_clips": rounded(r2(inner, inner_wanted)),
                "r2_of_head_pose_alone": rounded(r2(pose, wanted)),
                "slope": rounded((wanted - wanted.mean()) @ (answer - answer.mean()) / spread) if spread else None,
                "error_deg": rounded(np.rad2deg(np.abs(answer - wanted).mean())),
                "true_sd_deg": rounded(np.rad2deg(wanted.std())),
            }
        )
    return rows


def _halved(template: torch.Tensor, partner: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """The mean of a mesh and its mirror image."""
    return (template + template[partner] * flip) / 2.0


def _pose_alone(train: Detections, seen: Detections) -> np.ndarray:
    """``(N, 2)`` gaze from yaw and pitch of the head, by a regression on the frames to fit to."""
    rows, others = (
        np.c_[part.true_angles()[:, :2], np.ones(len(part.mesh))].astype(np.float64) for part in (train, seen)
    )
    return others @ np.linalg.lstsq(rows, weights_to_gaze(train.true_weights), rcond=None)[0]
