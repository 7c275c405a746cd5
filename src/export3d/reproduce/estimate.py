"""`export3d reproduce --dry-run`: what each stage would cost here, from a few steps in a folder that is thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export3d.evaluation.scores.makers import BASELINES, ModelFrames
from export3d.evaluation.scores.run import choose_pairs, evaluate
from export3d.evaluation.scores.synthetic import score_synthetic
from export3d.files import make_folder
from export3d.heads.clips.rendering import render_clips
from export3d.model import PRESETS, Export3D
from export3d.portrait.loading import load_model
from export3d.reproduce.scores import OpenBackends
from export3d.reproduce.settings import Settings
from export3d.reproduce.training import clips_configs, pretrain_config, train_setup
from export3d.training.loop.distributed import World
from export3d.training.loop.run import Task
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.pretrain import PretrainTask

PROBES = (0.0, 0.25, 0.5, 0.75)
"""Shares of a run at which a step is timed: a preset may render less in its first part."""

TRIAL_HEADS = 2


def estimate(settings: Settings, stages: Sequence[str], open_backends: OpenBackends) -> list[str]:
    """Lines of text: seconds per unit as measured, how many units, and the time of each stage.

    Everything is measured as if nothing were finished. WORK is not touched.

    Raises:
        DataError, CheckpointError: Given clips or runs cannot be used.
    """
    total = 0.0
    lines = []

    def add(stage: str, what: str, seconds: float, count: int) -> None:
        nonlocal total
        total += seconds * count
        lines.append(f"{stage}: {seconds:.3g} s per {what}, {count} of them: {_hours(seconds * count)}")

    with tempfile.TemporaryDirectory(prefix="export3d-estimate-") as name:
        trial = replace(settings, output=Path(name), samples=0, pretrain_steps=0, runs=None)
        if settings.data is None:
            for split, config in clips_configs(settings).items():
                seconds = _render(trial, split)
                if "data" in stages:
                    add("data", f"{split} head of {config.frames} frames", seconds, config.identities)
        dataset = trial.open_train()
        if settings.expression is None and {"pretrain", "train"} & set(stages):
            task = PretrainTask(pretrain_config(settings), dataset, World())
            if "pretrain" in stages:
                add("pretrain", "step", _step_seconds(task), task.total_steps)
            _export(task, make_folder(trial.expression_run), "pretrain")
        if "train" in stages:
            for variant in settings.variants:
                if settings.is_given(variant):
                    continue
                setup = train_setup(settings, variant, dataset, trial.expression_run)
                training = setup.task(dataset, World(), cache_gb=settings.cache_gb)
                what = f"step of {training.samples_per_step} samples"
                add(f"train {variant}", what, _step_seconds(training), training.total_steps)
        if "evaluate" in stages:
            same, cross, truth = _evaluation_seconds(trial, open_backends)
            models = len(settings.variants) + settings.asks_for_main
            clips = settings.sizes.test_identities if settings.test is None else len(settings.open_test())
            clips = min(settings.num_clips, clips)
            add("evaluate", "same-identity pair of a model", same, models * clips)
            add("evaluate", "cross-identity pair of a model", cross, models * clips)
            add("evaluate", "clip against exact truth", truth, models * clips)
    lines.append(f"together, without figures and page: {_hours(total)}")
    return lines


def _render(trial: Settings, split: str) -> float:
    """Seconds per head; leaves a small data set in the trial folder."""
    config = replace(clips_configs(trial)[split], identities=TRIAL_HEADS)
    folder = {"train": trial.train_folder, "test": trial.test_folder}[split]
    marks: list[float] = []
    render_clips(folder, config, head_model=trial.head_model, on_progress=lambda *_: marks.append(time.monotonic()))
    return marks[TRIAL_HEADS] - marks[TRIAL_HEADS - 1]  # the last head: the first one also pays for starting


def _step_seconds(task: Task[Any]) -> float:
    """Mean over a few places of the run; the task must not be trained on afterwards."""
    places = [int(share * task.total_steps) for share in PROBES]
    task.step(0, task.load_batch(0))  # the first one also pays for starting
    return float(np.mean([_seconds(lambda step=step: task.step(step, task.load_batch(step))) for step in places]))


def _export(task: Task[Any], folder: Path, command: str) -> None:
    run = RunFolder(folder, command, {}, {})
    try:
        task.export(run, 0, numbered=False)
    finally:
        run.close()


def _evaluation_seconds(trial: Settings, open_backends: OpenBackends) -> tuple[float, float, float]:
    """Seconds of one pair of each kind, and of one clip against exact truth (0 without truth), for --model or an untrained
    one of the scale."""
    dataset = trial.open_test()
    rows = not trial.asks_for_main
    model = Export3D(PRESETS[trial.sizes.preset]).eval() if rows else load_model(trial.model, device=trial.device)
    maker = ModelFrames(model, dataset, {"name": "estimate"})
    pairs = choose_pairs(dataset, "both", clips=1, seed=trial.seed)
    folder, baselines = trial.output / "pairs", () if rows else BASELINES
    for pair in pairs:
        make_folder(folder / pair.kind)
    with open_backends() as backends:
        seconds = [
            _seconds(
                lambda pair=pair: evaluate(dataset, maker, [pair], backends, folder / pair.kind, baselines=baselines)
            )
            for pair in pairs
        ]
    truth = 0.0
    if dataset.has(0, "0000.mask.png"):
        truth = _seconds(lambda: score_synthetic(model, dataset, clips=1, brief=rows))
    return seconds[0], seconds[1], truth


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
