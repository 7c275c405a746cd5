"""A whole preparation: find the work, do what is not done yet, make shards, report (Sec. 4.1; docs/data.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export3d import __version__
from export3d.data.manifest import MANIFEST_NAME, Manifest
from export3d.errors import DataError, UsageError
from export3d.files import clear_leftovers, make_folder, only_user, write_atomically
from export3d.preprocess.cluster import run_on_ray
from export3d.preprocess.jobs import Inputs, Loss, VideoJob
from export3d.preprocess.layouts import find_inputs
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.packing import PLAN_NAME, Plan, carry_out, make_plan
from export3d.preprocess.pool import Workplace, run_here, run_in_processes
from export3d.preprocess.report import Report, make_report, write_report
from export3d.preprocess.results import VideoResult, fingerprint, part_path
from export3d.preprocess.tools import ToolMaker, make_tools
from export3d.reading import read_json, shortened

RECORDS = "prepare"
"""Folder of the records inside the data set; kept, so that a rerun knows what is done."""

STAGING = ".prepare"
"""Folder of unpacked clips inside the data set; gone when the run is complete."""

CONFIG_NAME = "config.json"
CONFIG_FORMAT = "export3d-prepare"

Progress = Callable[[str, int, int, str], None]
"""Called with (step, done, total, what was just done)."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the work is done; nothing here changes the result."""

    workers: int = 1
    """Processes; 0 works in this process."""
    ray: str | None = None
    """Address of a Ray cluster instead of processes."""


def prepare(
    inputs: list[Path],
    folder: Path,
    options: PrepareOptions,
    run: RunOptions,
    *,
    clips_per_shard: int = 64,
    tool_maker: ToolMaker = make_tools,
    progress: Progress | None = None,
) -> Report:
    """Prepare everything in `inputs` into the data set `folder`; a rerun continues.

    Raises:
        UsageError: Inputs or options that cannot be, or options other than those of the first run.
        DataError: Nothing was kept, or the folder is damaged.
        OutputError: Something cannot be written.
    """
    tell = progress or (lambda step, done, total, what: None)
    found = find_inputs(inputs, options)
    records, staging = folder / RECORDS, folder / STAGING
    for place in (records, staging):
        make_folder(place)
    with only_user(records, UsageError):
        if (folder / MANIFEST_NAME).exists() and not (records / CONFIG_NAME).exists():
            raise DataError(f"{folder}: already holds a data set that was not made by prepare. Choose another folder.")
        _keep_config(records, options, clips_per_shard)
        for place in (folder, records, staging):
            clear_leftovers(place)
        plan = Plan.load(records)
        if plan is not None:  # the last run was stopped while it packed
            _pack(plan, folder, records, staging, tell)
        place = Workplace(options, tool_maker, staging.absolute(), records.absolute())
        results, losses = _prepare_videos(found, folder, place, run, tell)
        plan = make_plan(
            results,
            folder,
            size=options.size,
            frame_format=options.frame_format,
            clips_per_shard=clips_per_shard,
            first_clip_only=options.first_clip_only,
        )
        if plan.shards:
            plan.save(records)
            _pack(plan, folder, records, staging, tell)
        else:
            _tidy(staging)
        report = make_report(folder, results, [*found.losses, *losses], list(found.ignored))
        write_report(report, folder)
    if not report.clips:
        raise DataError(f"{folder}: no clip was kept of {len(found.jobs)} videos; {folder / 'report.html'} says why.")
    return report


def _prepare_videos(
    found: Inputs, folder: Path, place: Workplace, run: RunOptions, tell: Progress
) -> tuple[list[VideoResult], list[Loss]]:
    """Records of all videos in the order of the inputs, and videos that have none."""
    packed = Manifest.load(folder).clips if (folder / MANIFEST_NAME).exists() else ()
    done = {clip.key for clip in packed}
    if place.options.first_clip_only:
        done |= {clip.identity for clip in packed}
    results: dict[str, VideoResult] = {}
    losses: dict[str, str] = {}
    waiting: list[VideoJob] = []
    for job in found.jobs:
        try:
            result = _finished(job, place, done)
        except OSError as error:
            losses[job.key] = f"cannot be read ({error.strerror})"
            continue
        if result is None:
            waiting.append(job)
        else:
            results[job.key] = result
    total = len(found.jobs)

    def note(job: VideoJob, result: VideoResult | None, reason: str) -> None:
        if result is None:
            losses[job.key] = reason
        else:
            results[job.key] = result
        tell("videos", len(results) + len(losses), total, job.source)

    tell("videos", len(results) + len(losses), total, "")
    if not waiting:
        pass
    elif run.ray is not None:
        run_on_ray(waiting, place, note, run.ray)
    elif run.workers == 0:
        run_here(waiting, place, note)
    else:
        run_in_processes(waiting, place, note, run.workers)
    by_source = {job.key: job.source for job in found.jobs}
    return (
        [results[job.key] for job in found.jobs if job.key in results],
        [Loss(source=by_source[key], reason=reason) for key, reason in losses.items()],
    )


def _finished(job: VideoJob, place: Workplace, done: set[str]) -> VideoResult | None:
    """The record of a video that needs no more work, or None.

    Args:
        done: keys of clips, and identities, that are in the data set and keep their video from being done again.
    """
    path = place.records / f"{job.key}.json"
    current = fingerprint(job)
    if not path.exists():
        return None
    result = VideoResult.load(path)
    if any(clip.key in done or clip.identity in done for clip in result.clips):
        return result  # in a shard: a changed file no longer counts
    if result.fingerprint != current:
        return None
    part = part_path(place.staging, job.key)
    if result.clips and not (part.exists() and part.stat().st_size == result.part_bytes):
        return None
    return result


def _pack(plan: Plan, folder: Path, records: Path, staging: Path, tell: Progress) -> None:
    carry_out(plan, folder, staging, lambda done, total: tell("shards", done, total, ""))
    (records / PLAN_NAME).unlink()
    _tidy(staging)


def _tidy(staging: Path) -> None:
    """Remove the parts: what they held is in shards, or was not wanted."""
    if staging.exists():
        for path in staging.iterdir():
            path.unlink()
        staging.rmdir()


def _keep_config(records: Path, options: PrepareOptions, clips_per_shard: int) -> None:
    """Store the options of the first run; a rerun must have the same.

    Raises:
        UsageError: Names each option that differs.
    """
    path = records / CONFIG_NAME
    wanted: dict[str, Any] = {"format": CONFIG_FORMAT, "version": 1, "clips_per_shard": clips_per_shard}
    wanted.update({name: _plain(value) for name, value in asdict(options).items()})
    if not path.exists():
        write_atomically(path, json.dumps({**wanted, "created_by": f"export3d {__version__}"}, indent=1).encode())
        return
    stored = read_json(path, "not valid JSON", DataError, "Prepare into a new folder.")
    changes = [
        f"--{name.replace('_', '-')} was {shortened(repr(stored.get(name)))}, now {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if changes:
        raise UsageError(
            f"{records.parent}: was begun with other options: {'; '.join(changes)}. Use the same options to continue, "
            "or another folder."
        )


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, Path) else value
