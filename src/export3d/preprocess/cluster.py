"""The same work on a Ray cluster (extra `cluster`); one task is one video (docs/data.md)."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch

from export3d.errors import Export3DError, MissingExtraError, WorkerError
from export3d.preprocess.jobs import VideoJob
from export3d.preprocess.one_video import prepare_video
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.pool import MAX_ATTEMPTS, Outcome, Workplace
from export3d.preprocess.results import VideoResult
from export3d.preprocess.tools import ToolMaker, Tools

_TASKS_PER_CPU = 2  # submitted ahead, so that no worker waits for the driver


def run_on_ray(jobs: Iterable[VideoJob], place: Workplace, report: Outcome, address: str) -> None:
    """Prepare videos as Ray tasks of one CPU each.

    Inputs and output must be on a file system that all machines see under the same paths.

    Args:
        address: as for `ray.init`: `auto` for a cluster started with `ray start`, `local` for a new one here.

    Raises:
        MissingExtraError: ray is not installed.
        WorkerError: No cluster at the address.
        Export3DError: What a task raised: an option or model file that no video can be prepared with.
    """
    try:
        ray: Any = importlib.import_module("ray")  # not a plain import: the type checker must pass without ray
    except ImportError as error:
        raise MissingExtraError("--ray needs ray. Install it with: pip install 'export3d[cluster]'") from error
    already = ray.is_initialized()
    if not already:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerError(
                f"--ray {address}: no cluster there ({error}). Start one with: ray start --head"
            ) from error
    try:
        _run(ray, iter(jobs), place, report)
    finally:
        if not already:
            ray.shutdown()


def _run(ray: Any, jobs: Any, place: Workplace, report: Outcome) -> None:
    task = ray.remote(num_cpus=1, max_retries=MAX_ATTEMPTS - 1)(_prepare)
    shared = ray.put(place)
    limit = max(1, int(ray.cluster_resources().get("CPU", 1))) * _TASKS_PER_CPU
    running: dict[Any, VideoJob] = {}
    while True:
        for job in islice(jobs, limit - len(running)):
            running[task.remote(job, shared)] = job
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done)
        try:
            result: VideoResult | Export3DError = ray.get(done)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
            report(job, None, f"the Ray worker died {MAX_ATTEMPTS} times")
            continue
        if isinstance(result, Export3DError):
            raise result
        report(job, result, "")


def _prepare(job: VideoJob, place: Workplace) -> VideoResult | Export3DError:
    """Runs in a Ray worker process, which keeps its tools from task to task."""
    torch.set_num_threads(1)
    try:
        tools = _tools(place.make_tools, place.options)
        return prepare_video(job, place.options, tools, place.staging, place.records)
    except Export3DError as error:
        return error


@functools.lru_cache(maxsize=1)
def _tools(make: ToolMaker, options: PrepareOptions) -> Tools:
    return make(options)
