"""`export3d train-gaze`: the map from MediaPipe's irises to gaze (no paper section)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from export3d.cli.common import check_targets, parse, progress_bar, say
from export3d.errors import OutputError, UsageError


@dataclass(frozen=True, kw_only=True)
class TrainGazeOptions:
    """Fit the tracker's gaze map on rendered heads; MediaPipe looks at them, the fit itself takes seconds."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Gaze file to write, .safetensors."""
    data: tuple[Path, ...]
    """Folders of rendered clips (`export3d heads render`)."""
    test_data: Path | None = None
    """Rendered clips of other people to measure on. Without it every fifth person of --data is kept for that."""
    detections: Path | None = None
    """Folder that keeps what MediaPipe found, so that the next fit need not look again."""
    report: Path | None = None
    """Write the measured R^2 to this JSON file."""


def train_gaze_main(argv: Sequence[str]) -> int:
    """Run `export3d train-gaze` with these arguments."""
    options = parse(TrainGazeOptions, argv, command="train-gaze")
    say(run(options, shlex.join(["export3d", "train-gaze", *argv])))
    return 0


def run(options: TrainGazeOptions, command: str) -> str:
    """Fit, measure and write as asked; returns the result line. `command` is what was typed, for the report."""
    check_targets((options.output, ".safetensors"), (options.report, ".json"))
    if options.detections is not None and not options.detections.is_dir():
        raise OutputError(f"--detections {options.detections}: no such folder. Make it first.")
    if not options.data:
        raise UsageError("train-gaze: --data needs at least one folder of rendered clips.")
    from export3d.fitting.gaze import build_gaze_map

    with progress_bar("fitting the gaze map", None) as progress:
        report = build_gaze_map(
            options.output,
            options.data,
            test_data=options.test_data,
            detections_folder=options.detections,
            report_path=options.report,
            command=command,
            progress=lambda stage, done, total: progress(done),
        )
    return report.line(options.output)
