"""`export3d prepare INPUT... -o DIR`: raw videos become training clips (docs/data.md)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from export3d.cli.common import entry, say, stage_bars
from export3d.downloads import FACE_LANDMARKER
from export3d.errors import UsageError
from export3d.preprocess import PrepareOptions, RunOptions, find_inputs, prepare
from export3d.preprocess.report import Report


@dataclass(frozen=True, kw_only=True)
class PrepareCommand:
    """Turn raw videos into training clips: 25 fps, one face, aligned 256 x 256 crops, coefficients, cameras.

    Running the same command again continues where the last run stopped.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Videos, folders (any videos, VFHQ, TalkingHead-1KH) or CSV lists."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the data set to make or continue."""
    workers: int | None = None
    """Processes; default: one for each core. 0 works in this process."""
    ray: str | None = None
    """Address of a Ray cluster to work on instead, e.g. auto after `ray start --head`."""
    clips_per_shard: int = 64
    """Clips in one tar."""
    dry_run: bool = False
    """List the videos that would be prepared, and do nothing."""
    options: Annotated[PrepareOptions, tyro.conf.arg(name="")] = field(default_factory=PrepareOptions)


def run(command: PrepareCommand) -> str:
    """Prepare, or only list, as asked; returns the result line."""
    if command.workers is not None and command.workers < 0:
        raise UsageError(f"--workers: expected 0 or more; got {command.workers}.")
    if command.workers is not None and command.ray is not None:
        raise UsageError("--workers and --ray exclude each other.")
    if command.clips_per_shard < 1:
        raise UsageError(f"--clips-per-shard: expected at least 1; got {command.clips_per_shard}.")
    options = command.options
    named = os.environ.get(str(FACE_LANDMARKER.variable))
    if options.face_landmarker is None and named:  # so that a rerun without the variable is refused
        options = replace(options, face_landmarker=Path(named))
    if command.dry_run:
        return _list(command)
    workers = command.workers if command.workers is not None else len(os.sched_getaffinity(0))
    with stage_bars(Console(stderr=True)) as tell:
        report = prepare(
            list(command.inputs),
            command.output,
            options,
            RunOptions(workers=workers, ray=command.ray),
            clips_per_shard=command.clips_per_shard,
            progress=lambda step, done, total, what: tell(step, done, total),
        )
    return _summary(report, command.output)


prepare_main = entry("prepare", PrepareCommand, run)


def _summary(report: Report, folder: Path) -> str:
    lost = f", {report.videos_lost} of {report.videos} videos gave nothing" if report.videos_lost else ""
    return (
        f"{folder}: {report.clips} clips, {report.frames} frames, {report.hours:.2f} hours, {report.identities} "
        f"identities{lost}; see {folder / 'report.html'}"
    )


def _list(command: PrepareCommand) -> str:
    found = find_inputs(list(command.inputs), command.options)
    for job in found.jobs:
        cuts = f"  {len(job.cuts)} cuts" if len(job.cuts) > 1 else ""
        say(f"{job.source}{cuts}")
    for loss in found.losses:
        say(f"{loss.source}: {loss.reason}")
    return f"{len(found.jobs)} videos, {len(found.losses)} lost, {len(found.ignored)} other files"
