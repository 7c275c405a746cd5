"""`export3d train-gaze`, `train-mouth` and `train-camera`: what the tracker reads from MediaPipe's mesh (no paper section)."""

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
class FitOptions:
    """Fit what the tracker reads from the mesh on rendered heads; MediaPipe looks at them, the fit itself takes seconds."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write, .safetensors."""
    data: tuple[Path, ...]
    """Folders of rendered clips (`export3d heads render`)."""
    test_data: Path | None = None
    """Rendered clips of other people to measure on. Without it every fifth person of --data is kept for that."""
    detections: Path | None = None
    """Folder that keeps what MediaPipe found, so that the next fit need not look again."""
    frames: int = 12000
    """Look at no more than about so many frames of each folder."""
    report: Path | None = None
    """Write the measured errors to this JSON file."""


def train_gaze_main(argv: Sequence[str]) -> int:
    """Run `export3d train-gaze` with these arguments."""
    say(_run("train-gaze", argv))
    return 0


def train_mouth_main(argv: Sequence[str]) -> int:
    """Run `export3d train-mouth` with these arguments."""
    say(_run("train-mouth", argv))
    return 0


def train_camera_main(argv: Sequence[str]) -> int:
    """Run `export3d train-camera` with these arguments."""
    say(_run("train-camera", argv))
    return 0


def _run(command: str, argv: Sequence[str]) -> str:
    """Fit, measure and write as asked; returns the result line."""
    options = parse(FitOptions, argv, command=command)
    check_targets((options.output, ".safetensors"), (options.report, ".json"))
    if options.detections is not None and not options.detections.is_dir():
        raise OutputError(f"--detections {options.detections}: no such folder. Make it first.")
    if options.frames < 1:
        raise UsageError(f"--frames: expected at least 1; got {options.frames}.")
    if not options.data:
        raise UsageError(f"{command}: --data needs at least one folder of rendered clips.")
    from export3d.fitting.gaze import build_gaze_map
    from export3d.fitting.head_fit import build_head_fit
    from export3d.fitting.mouth import build_mouth_map

    builds = {"train-gaze": build_gaze_map, "train-mouth": build_mouth_map, "train-camera": build_head_fit}
    with progress_bar(command, None) as progress:
        report = builds[command](
            options.output,
            options.data,
            test_data=options.test_data,
            detections_folder=options.detections,
            report_path=options.report,
            frames=options.frames,
            command=shlex.join(["export3d", command, *argv]),
            progress=lambda stage, done, total: progress(done),
        )
    return report.line(options.output)
