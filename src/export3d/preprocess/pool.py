"""One process per core; a process that dies loses only the video in its hands (docs/data.md)."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from export3d.errors import Export3DError, WorkerError
from export3d.files import clear_leftovers
from export3d.preprocess.jobs import VideoJob
from export3d.preprocess.one_video import prepare_video
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.results import VideoResult
from export3d.preprocess.tools import ToolMaker
from export3d.reading import shortened
from export3d.stopping import obey_parent_only

MAX_ATTEMPTS = 2
"""A video whose worker died this often is given up."""


@dataclass(frozen=True)
class Workplace:
    """What a worker needs to know."""

    options: PrepareOptions
    make_tools: ToolMaker
    staging: Path
    records: Path


Outcome = Callable[[VideoJob, VideoResult | None, str], None]
"""Called for each video with its record, or with None and the reason why there is none."""


def run_here(jobs: Iterable[VideoJob], place: Workplace, report: Outcome) -> None:
    """All videos in this process, one after the other."""
    tools = place.make_tools(place.options)
    try:
        for job in jobs:
            try:
                result = prepare_video(job, place.options, tools, place.staging, place.records)
            except Export3DError:
                raise
            except Exception as error:  # as a worker that dies of it: only this video is lost
                report(job, None, f"{type(error).__name__}: {shortened(error)}")
            else:
                report(job, result, "")
    finally:
        tools.face_tracker.close()


def run_in_processes(jobs: Iterable[VideoJob], place: Workplace, report: Outcome, workers: int) -> None:
    """The same with several processes.

    Raises:
        Export3DError: What a worker raised: an option or model file that no video can be prepared with.
        WorkerError: Workers die before they can begin.
    """
    _Pool(deque(jobs), place, report, workers).run()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: VideoJob | None = None
    is_ready: bool = False


class _Pool:
    def __init__(self, jobs: deque[VideoJob], place: Workplace, report: Outcome, workers: int) -> None:
        self._jobs, self._place, self._report = jobs, place, report
        self._context = multiprocessing.get_context("spawn")  # forked copies of torch and MediaPipe may hang
        self._attempts: dict[str, int] = {}
        self._size = max(1, min(workers, len(jobs)))
        self._workers: list[_Worker] = []

    def run(self) -> None:
        try:
            while self._jobs or any(worker.job for worker in self._workers):
                while len(self._workers) < min(self._size, len(self._jobs) + self._num_busy()):
                    self._start()
                self._wait()
        finally:
            for worker in self._workers:
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join()
                worker.pipe.close()
            for folder in (self._place.staging, self._place.records):
                clear_leftovers(folder)  # a worker that is ended while it writes cannot

    def _num_busy(self) -> int:
        return sum(worker.job is not None for worker in self._workers)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._place), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _wait(self) -> None:
        by_pipe: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[pipe]
            try:
                message = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker)
                continue
            if isinstance(message, Export3DError):
                raise message
            if isinstance(message, VideoResult) and worker.job is not None:
                job, worker.job = worker.job, None
                self._report(job, message, "")
            worker.is_ready = True
            self._hand_out(worker)

    def _hand_out(self, worker: _Worker) -> None:
        if self._jobs:
            worker.job = self._jobs.popleft()
            worker.pipe.send(worker.job)

    def _bury(self, worker: _Worker) -> None:
        """A worker died: its video gets another chance, the other workers go on."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.is_ready:
            raise WorkerError(
                f"a worker process ended with code {worker.process.exitcode} before it could begin; its own message is "
                "above. Try --workers 0 to work in one process."
            )
        job = worker.job
        if job is None:
            return
        self._attempts[job.key] = self._attempts.get(job.key, 0) + 1
        if self._attempts[job.key] < MAX_ATTEMPTS:
            self._jobs.append(job)
        else:
            reason = f"the worker process died {MAX_ATTEMPTS} times (exit code {worker.process.exitcode})"
            self._report(job, None, reason)


def _work(pipe: Connection, place: Workplace) -> None:
    """A worker process: videos in, records out, until the pipe closes."""
    torch.set_num_threads(1)
    obey_parent_only()
    try:
        tools = place.make_tools(place.options)
        pipe.send("ready")
        while True:
            job = pipe.recv()
            pipe.send(prepare_video(job, place.options, tools, place.staging, place.records))
    except Export3DError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has finished, or was stopped
