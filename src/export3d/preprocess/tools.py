"""What a preparation works with: a face tracker and a coefficient model, made once in each process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from export3d.preprocess.options import PrepareOptions
from export3d.tracking import CoefficientModel, FaceTracker, GazeMap, ObservingModel


@dataclass(frozen=True)
class Tools:
    """Both are kept for all videos of a process; the tracker is reset between shots."""

    face_tracker: FaceTracker
    coefficients: CoefficientModel | ObservingModel
    read_gaze: Callable[[np.ndarray], np.ndarray] | None = None
    """Expression scores (52,) -> gaze (2,), NaN where the eyes are closed; None stores no gaze."""


ToolMaker = Callable[[PrepareOptions], Tools]
"""Makes the tools in a worker; must be importable there (a function of a module)."""


def make_tools(options: PrepareOptions) -> Tools:
    """MediaPipe and the coefficient model that the options name.

    Raises:
        MissingExtraError: mediapipe is not installed.
        DownloadError, UsageError, CheckpointError: A model file is missing or not what it should be.
    """
    from export3d.tracking.coefficients import open_coefficients
    from export3d.tracking.mediapipe_tracker import MediaPipeTracker

    tracker, gaze = MediaPipeTracker(options.face_landmarker), GazeMap.load().read
    reads = open_coefficients(options.coefficients, faces=tracker.info, file=options.deep3d_checkpoint)
    return Tools(tracker, reads, gaze)
