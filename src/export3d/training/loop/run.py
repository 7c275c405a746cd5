"""The training loop that pre-training and both phases share: batches, steps, logs, states, stopping and resuming."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from export3d.errors import TrainingError
from export3d.training.batches.prefetch import Prefetcher
from export3d.training.loop.distributed import World
from export3d.training.loop.run_folder import RunFolder
from export3d.training.loop.state import state_path
from export3d.training.loop.stopping import noted_signals, wants_to_stop

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What may differ between a run and its resumption: none of it changes the result."""

    max_minutes: float | None = None
    """Stop after this time with a state saved; the same command goes on later."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    state_every: int = 500
    """Steps between training states."""
    state_minutes: float = 10.0
    """A state is also written when this time has passed since the last one."""
    keep_states: int = 2
    """How many training states are kept."""
    sheet_every: int = 1000
    """Steps between reports: sample sheets and measurements on held-out clips. 0 for none."""
    export_every: int = 0
    """Steps between extra model files kept under their step's number. 0 keeps only the newest model."""
    tensorboard: bool = False
    """Also write TensorBoard files into the run folder (extra 'train')."""

    def __post_init__(self) -> None:
        if min(self.log_every, self.state_every, self.keep_states) < 1:
            raise ValueError("log_every, state_every and keep_states must be at least 1")


class Task(Protocol[B]):
    """What is trained. `step` is the only method that changes the state."""

    @property
    def total_steps(self) -> int: ...

    @property
    def samples_per_step(self) -> int: ...

    def load_batch(self, step: int) -> B:
        """This process's share of batch `step`: a pure function of the step."""
        ...

    def step(self, step: int, batch: B) -> dict[str, Tensor]:
        """One optimiser step; returns scalars to log. Raises `TrainingError` on NaN or infinity, state unchanged."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        ...

    def load_state(self, content: dict[str, Any]) -> None: ...

    def report(self, step: int, run: RunFolder) -> dict[str, float]:
        """Write sample sheets or measure on held-out clips; returns numbers to log."""
        ...

    def model_files(self, step: int | None) -> tuple[str, ...]:
        """Names of the files that `export` writes: with the number of a step, or without."""
        ...

    def export(self, run: RunFolder, step: int, numbered: bool) -> None:
        """Write the model for use."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """How a loop ended."""

    step: int
    finished: bool
    stopped_by: str | None
    """`SIGTERM`, `SIGINT`, `SIGHUP`, `max_minutes`, or None."""
    samples_per_s: float
    """Mean over this call."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a progress display is told after each step."""

    step: int
    total_steps: int
    samples_per_s: float
    metrics: dict[str, float]
    """The last logged means; empty before the first log line."""
    message: str | None = None


def run_loop(
    task: Task[B],
    run: RunFolder | None,
    options: LoopOptions,
    world: World,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoopResult:
    """Train until the task is done, the time is up, or a signal asks to stop; always leaves a good state.

    Args:
        run: the run folder in the main process, None in the others.
    """
    step = _resume(task, run, world, on_progress)
    first, start, last_state = step, time.monotonic(), time.monotonic()
    total, meter = task.total_steps, _Meter()
    writer = _tensorboard(run) if options.tensorboard and run is not None else None
    if options.export_every and first % options.export_every == 0:
        _export(task, run, first, numbered=True)  # the run may have died between this state and its numbered model
    batches = Prefetcher(task.load_batch, step, total, pin=torch.cuda.is_available())
    stopped_by, saved_at = None, step
    latest: dict[str, float] = {}
    try:
        with noted_signals() as signals:
            while step < total:
                before = time.monotonic()
                batch = batches.next()
                waited = time.monotonic() - before
                metrics = _step(task, run, step, batch, options)
                step += 1
                meter.add(metrics, waited)
                if step % options.log_every == 0 or step == total:
                    latest = meter.means(world, task.samples_per_step)
                    _log(run, writer, step, task.samples_per_step, latest)
                if options.sheet_every and (step % options.sheet_every == 0 or step == total):
                    measured = task.report(step, run) if run is not None else {}
                    _log(run, writer, step, task.samples_per_step, measured)
                    world.barrier()
                now = time.monotonic()
                if on_progress is not None:
                    rate = (step - first) * task.samples_per_step / max(now - start, 1e-9)
                    on_progress(Progress(step=step, total_steps=total, samples_per_s=rate, metrics=latest))
                out_of_time = options.max_minutes is not None and now - start >= 60.0 * options.max_minutes
                stopped_by = wants_to_stop(signals, out_of_time, step, world)
                due = step % options.state_every == 0 or now - last_state > 60.0 * options.state_minutes
                if due or stopped_by is not None or step == total:
                    _save(task, run, step, options)
                    last_state, saved_at = now, step
                if options.export_every and step % options.export_every == 0:
                    _export(task, run, step, numbered=True)
                if stopped_by is not None:
                    break
    finally:
        batches.close()
        if writer is not None:
            writer.close()
    if saved_at == step:
        _export(task, run, step, numbered=False)
    world.barrier()
    rate = (step - first) * task.samples_per_step / max(time.monotonic() - start, 1e-9)
    return LoopResult(step=step, finished=step >= total, stopped_by=stopped_by, samples_per_s=rate)


def _step(task: Task[B], run: RunFolder | None, step: int, batch: B, options: LoopOptions) -> dict[str, Tensor]:
    """One step; if it fails, the batch and the state before it are kept."""
    try:
        return task.step(step, batch)
    except TrainingError:
        if run is not None:
            run.save_bad_batch(step, batch)
        _save(task, run, step, options)
        raise


def require_finite(values: dict[str, Tensor], step: int) -> None:
    """Raise `TrainingError` naming the first value that is NaN or infinite (one wait for the device)."""
    names = list(values)
    finite = torch.stack([torch.isfinite(values[name].detach()).all() for name in names])
    if bool(finite.all()):
        return
    bad = [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
    raise TrainingError(
        f"step {step}: {', '.join(bad)} is NaN or infinite. The step was not applied; its batch and the state before it "
        "are saved in the run folder. Lower the learning rate or look at the batch."
    )


def cosine_rate(fraction: float, decay_from: float, floor: float) -> float:
    """Factor of the learning rate: 1 until `decay_from` of the run, then half a cosine down to `floor`."""
    if fraction < decay_from or decay_from >= 1.0:
        return 1.0
    through = min((fraction - decay_from) / (1.0 - decay_from), 1.0)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * through))


class _Meter:
    """Sums scalars on their device; reads them only when a line is logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._waited = 0.0
        self._since = time.monotonic()

    def add(self, metrics: dict[str, Tensor], waited: float) -> None:
        for name, value in metrics.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        self._waited += waited

    def means(self, world: World, samples_per_step: int) -> dict[str, float]:
        names = sorted(self._sums)
        result: dict[str, float] = {}
        if names:
            values = torch.stack([self._sums[name] / self._counts[name] for name in names])
            result = dict(zip(names, world.mean(values).tolist(), strict=True))
        elapsed = max(time.monotonic() - self._since, 1e-9)
        result["seconds_per_step"] = elapsed / max(self._steps, 1)
        result["samples_per_s"] = self._steps * samples_per_step / elapsed
        result["waited_for_data"] = self._waited / elapsed
        self.__init__()
        return result


def _resume(
    task: Task[Any], run: RunFolder | None, world: World, on_progress: Callable[[Progress], None] | None
) -> int:
    """Load the newest readable state into the task in every process; returns its step."""
    content: dict[str, Any] | None = None
    if run is not None:
        content, complaints = run.newest_state()
        for line in complaints:
            if on_progress is not None:
                on_progress(Progress(step=0, total_steps=task.total_steps, samples_per_s=0.0, metrics={}, message=line))
    if world.size > 1:
        shared = [content]
        torch.distributed.broadcast_object_list(shared, src=0)
        content = shared[0]
    if content is None:
        if run is not None:
            run.forget_metrics_after(0)
        return 0
    task.load_state(content)
    step = int(content["step"])
    if run is not None:
        run.forget_metrics_after(step)
    return step


def _export(task: Task[Any], run: RunFolder | None, step: int, numbered: bool) -> None:
    """Write the model of this step, unless its files are there and not older than the state they are made of."""
    if run is None or step == 0:
        return
    state = state_path(run.path, step)
    made = state.stat().st_mtime_ns if state.exists() else None
    files = [run.path / name for name in task.model_files(step if numbered else None)]
    if made is None or not all(file.is_file() and file.stat().st_mtime_ns >= made for file in files):
        task.export(run, step, numbered=numbered)
        for file in files:  # a clock set back must not make a model look old
            written = max(made or 0, file.stat().st_mtime_ns)
            os.utime(file, ns=(written, written))


def _save(task: Task[Any], run: RunFolder | None, step: int, options: LoopOptions) -> None:
    if run is not None:
        run.save_state(step, task.state(), options.keep_states)


def _log(run: RunFolder | None, writer: Any, step: int, samples_per_step: int, values: dict[str, float]) -> None:
    if run is not None and values:
        run.log({"step": step, "samples": step * samples_per_step, **values})
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)


def _tensorboard(run: RunFolder) -> Any:
    from export3d.errors import MissingExtraError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("--tensorboard needs the extra 'train': pip install 'export3d[train]'.") from error
    return SummaryWriter(str(run.path / "tensorboard"))
