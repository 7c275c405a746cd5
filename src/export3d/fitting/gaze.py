"""The bundled gaze map from nothing: a ridge regression on what MediaPipe found in rendered heads (no paper section)."""

from __future__ import annotations

import numpy as np
import torch

from export3d.errors import DataError
from export3d.face_state import mirrored_name
from export3d.fitting.detections import Detections, Progress
from export3d.fitting.maps import looked_at, write_map
from export3d.fitting.mesh_regressor import within
from export3d.fitting.options import FitOptions
from export3d.fitting.regressor_report import r2, rounded
from export3d.fitting.ridge import ridge_map_with_bias
from export3d.heads.clips.motion import weights_to_gaze
from export3d.tracking.faces import BLENDSHAPE_NAMES, FaceTracker
from export3d.tracking.gaze import BLINKS, CLOSED_ABOVE, EYE_SCORES, GazeMap
from export3d.tracking.mediapipe_tracker import MediaPipeTracker

RIDGE = 0.01
"""Of the scores' mean variance: weights stay small."""

MIRROR_SCORES = [BLENDSHAPE_NAMES.index(mirrored_name(name)) for name in BLENDSHAPE_NAMES]
"""Score i of the mirrored face is score [i] of the face."""


def build_gaze_map(
    options: FitOptions,
    command: str = "export3d train-gaze",
    tracker: FaceTracker | None = None,
    progress: Progress | None = None,
) -> str:
    """Look at rendered clips, fit, measure and save; returns the one line for the command's end.

    Args:
        command: what was typed, for the report.
        tracker: default: MediaPipe.

    Raises:
        DataError: No clips, clips without truth, no face, or a tracker that gives no scores.
    """
    tracker = tracker or MediaPipeTracker()
    train, unseen = looked_at(options, tracker, progress)
    if not (len(train.scores) and len(unseen.scores)):
        raise DataError(f"train-gaze: the face tracker '{tracker.info.name}' gives no expression scores.")
    gaze_map = fit_gaze_map(train)
    rows = measure_gaze(gaze_map, unseen, _pose_alone(train, unseen))
    unknown = rounded(np.isnan(gaze_map.read(unseen.scores)[:, 0]).mean())
    on = {"unknown_share": unknown, "closed_above": CLOSED_ABOVE}
    write_map(gaze_map, options, command, (train, unseen), rows=rows, fitted_to={"ridge": RIDGE}, measured_on=on)
    sideways, up = (float(row["r2"]) if isinstance(row["r2"], float) else float("nan") for row in rows)
    return f"{options.output}: R2 of gaze on other people: sideways {sideways:.3f}, up and down {up:.3f}"


def fit_gaze_map(detections: Detections, ridge: float = RIDGE) -> GazeMap:
    """Fit the eyes' scores to the true gaze over the frames in which the eyes are not closed.

    Every frame counts as its mirror image too, so that a mirrored face gives a mirrored gaze.

    Raises:
        DataError: No frame has open eyes.
    """
    chosen = (detections.scores[:, BLINKS] <= CLOSED_ABOVE).any(axis=1)
    if not chosen.any():
        raise DataError("train-gaze: no rendered frame has open eyes. Render other clips: export3d heads render")
    scores = detections.scores[chosen].astype(np.float64)
    gaze = weights_to_gaze(detections.true_weights[chosen])
    rows = np.concatenate([scores, scores[:, MIRROR_SCORES]])[:, EYE_SCORES]
    fitted, bias = ridge_map_with_bias(
        rows, np.concatenate([gaze, gaze * [-1.0, 1.0]]), ridge * rows.var(axis=0).mean()
    )
    weight = np.zeros((scores.shape[1], 2), np.float32)
    weight[list(EYE_SCORES)] = fitted
    return GazeMap(weight=weight, bias=bias.astype(np.float32))


def measure_gaze(gaze_map: GazeMap, seen: Detections, pose_alone: np.ndarray) -> list[dict[str, object]]:
    """One row for each axis, over the frames whose gaze is not unknown.

    Args:
        pose_alone: ``(N, 2)`` what the head's pose alone says: the synthetic eyes tend to stay on the camera.
    """
    told = gaze_map.read(seen.scores).astype(np.float64)
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


def _pose_alone(train: Detections, seen: Detections) -> np.ndarray:
    """``(N, 2)`` gaze from yaw and pitch of the head, by a regression on the frames to fit to."""
    rows, others = (
        np.c_[part.true_angles()[:, :2], np.ones(len(part.scores))].astype(np.float64) for part in (train, seen)
    )
    return others @ np.linalg.lstsq(rows, weights_to_gaze(train.true_weights), rcond=None)[0]
