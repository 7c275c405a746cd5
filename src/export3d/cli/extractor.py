"""What the commands that animate share: which model of coefficients reads the faces, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from export3d.portrait import Model
    from export3d.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions:
    """What reads beta and the camera off a face."""

    coefficients: Literal["auto", "regressor", "arkit52", "deep3d"] = "auto"
    """What beta is; auto takes what the model was trained on."""

    extractor: Path | None = None
    """File of what reads beta: Deep3DFaceRecon's checkpoint (epoch_20.pth) for a model that was trained on bfm64, or another
    regressor than the bundled one."""


def open_tracker(options: ExtractorOptions, model: Model, face: str | None) -> Tracker:
    """A tracker whose coefficients and crops are those that the model was trained on.

    Raises:
        UsageError: The extractor is missing.
        CheckpointError: It is damaged or another one.
    """
    from export3d.tracking import Tracker
    from export3d.tracking.coefficients import open_coefficients
    from export3d.tracking.mediapipe_tracker import MediaPipeTracker

    faces = MediaPipeTracker()
    space = model.config.expression.space
    reads = open_coefficients(options.coefficients, faces=faces.info, file=options.extractor, space=space)
    return Tracker(faces, reads, choice=face, size=model.config.image_size)
