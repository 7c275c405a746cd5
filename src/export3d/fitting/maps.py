"""What the fits of the tracker's maps share: looking at rendered clips, and the report of what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from export3d.files import measured_now, write_json
from export3d.fitting import detections
from export3d.fitting.detections import Detections, Progress
from export3d.fitting.options import FitOptions
from export3d.tracking.faces import FaceTracker


class SavedMap(Protocol):
    """What was fitted."""

    def save(self, path: Path) -> str:
        """Write it; returns the file's hash."""
        ...


def looked_at(
    options: FitOptions, tracker: FaceTracker, progress: Progress | None = None
) -> tuple[Detections, Detections]:
    """What the tracker finds in the clips to fit to, and in those to measure on.

    Raises:
        DataError: No clips, clips without truth, or no face.
    """
    test = None if options.test_data is None else detections.ClipDataset(options.test_data)
    clips = [detections.ClipDataset(path) for path in options.data]
    return detections.seen_and_unseen(clips, test, tracker, options.detections, progress, frames=options.frames)


def write_map(
    found: SavedMap,
    options: FitOptions,
    command: str,
    seen: tuple[Detections, Detections],
    *,
    rows: Any,
    fitted_to: Mapping[str, Any],
    measured_on: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> None:
    """Save a map, and what was measured where a report is asked for.

    Args:
        seen: what it was fitted to, and what it was measured on.
        rows: what was measured.
        fitted_to, measured_on: further facts of these.
        seed: of the fit; None draws no random numbers.
    """
    train, unseen = ({"people": len(np.unique(part.clip)), "frames": len(part.clip)} for part in seen)
    results = {
        "command": command,
        **measured_now(),
        "seed": seed,
        "fitted_to": {**train, **fitted_to},
        "measured_on": {**unseen, **(measured_on or {})},
        "rows": rows,
        "sha256": found.save(options.output),
    }
    if options.report is not None:
        write_json(options.report, results)
