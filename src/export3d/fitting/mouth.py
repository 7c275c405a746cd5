"""The bundled map of the mouth from nothing: a ridge regression on what MediaPipe found in rendered heads (no paper section).

Only what changes within a person counts: what a mouth looks like at rest is not told from how it is held.
"""

from __future__ import annotations

import numpy as np
import torch

from export3d.errors import DataError
from export3d.face_state import mirrored_name
from export3d.fitting.detections import Detections, Progress
from export3d.fitting.gaze import MIRROR_SCORES
from export3d.fitting.maps import looked_at, write_map
from export3d.fitting.mesh_regressor import within
from export3d.fitting.options import FitOptions
from export3d.fitting.regressor_report import r2, rounded
from export3d.fitting.ridge import ridge_map
from export3d.heads.clips.motion import arkit_weights
from export3d.tracking.faces import FaceTracker
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.mouth import (
    COLUMNS,
    LIPS,
    MIRROR_LIPS,
    MOUTH_SCORES,
    MOUTH_WEIGHTS,
    MouthMap,
    facing_front,
    mouth_features,
)

RIDGE = 0.007
"""Of the features' own variances."""

MIRROR_WEIGHTS = [MOUTH_WEIGHTS.index(mirrored_name(name)) for name in MOUTH_WEIGHTS]
"""Weight i of the mirrored face is weight [i] of the face."""


def build_mouth_map(
    options: FitOptions,
    command: str = "export3d train-mouth",
    tracker: FaceTracker | None = None,
    progress: Progress | None = None,
) -> str:
    """Look at rendered clips, fit, measure and save; arguments and result as of `build_gaze_map`.

    Raises:
        DataError: No clips, clips without truth, no face, or a tracker that gives no mesh or no scores.
    """
    tracker = tracker or MediaPipeTracker()
    train, unseen = looked_at(options, tracker, progress)
    for part in (train, unseen):
        if not (part.has_mesh and len(part.scores)):
            raise DataError(
                f"train-mouth: the face tracker '{tracker.info.name}' gives no mesh or no expression scores."
            )
    mouth = fit_mouth_map(train)
    told, truth = (within(values, torch.from_numpy(unseen.clip)).numpy() for values in _read(mouth, unseen))
    rows = [
        {
            "weight": name,
            "r2_within_clips": rounded(r2(told[:, place], truth[:, place])),
            "slope": rounded(told[:, place] @ truth[:, place] / (truth[:, place] @ truth[:, place])),
        }
        for place, name in enumerate(MOUTH_WEIGHTS)
    ]
    write_map(mouth, options, command, (train, unseen), rows=rows, fitted_to={"ridge": RIDGE})
    by_name = {row["weight"]: float(row["r2_within_clips"] or "nan") for row in rows}
    words = ", ".join(f"{name} {by_name[name]:.3f}" for name in ("jawOpen", "mouthSmileLeft", "mouthPucker"))
    return f"{options.output}: R2 within other people: {words}"


def fit_mouth_map(seen: Detections, ridge: float = RIDGE) -> MouthMap:
    """Fit the changes of points and scores to those of the true weights, each person's mean taken off.

    Every frame counts as its mirror image too, so that a mirrored face gives mirrored weights.
    """
    features, weights = mouth_features(facing_front(seen.mesh), seen.scores), _truth(seen)
    person = torch.from_numpy(np.concatenate([seen.clip, seen.clip]))
    rows = np.concatenate([features, mirrored_features(features)]).astype(np.float64)
    wanted = np.concatenate([weights, weights[:, MIRROR_WEIGHTS]]).astype(np.float64)
    changes, goals = (within(torch.from_numpy(values), person).numpy() for values in (rows, wanted))
    spread = changes.std(axis=0) + 1e-9
    weight = ridge_map(changes / spread, goals, ridge) / spread[:, None]
    bias = wanted.mean(axis=0) - rows.mean(axis=0) @ weight
    return MouthMap(weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def mirrored_features(features: np.ndarray) -> np.ndarray:
    """Of the mirrored face ``(N, P)``."""
    lips = features[:, : 3 * len(LIPS)].reshape(len(features), -1, 3)[:, list(MIRROR_LIPS)] * [-1.0, 1.0, 1.0]
    places = [MOUTH_SCORES.index(MIRROR_SCORES[place]) for place in MOUTH_SCORES]
    return np.concatenate([lips.reshape(len(features), -1), features[:, 3 * len(LIPS) :][:, places]], axis=1)


def _truth(seen: Detections) -> np.ndarray:
    """True `MOUTH_WEIGHTS` ``(N, Q)``."""
    return arkit_weights(seen.true_weights)[:, COLUMNS]


def _read(mouth: MouthMap, seen: Detections) -> tuple[torch.Tensor, torch.Tensor]:
    """What the map tells ``(N, Q)``, and the truth."""
    told = mouth.read(facing_front(seen.mesh), seen.scores)
    return torch.from_numpy(told).double(), torch.from_numpy(_truth(seen)).double()
