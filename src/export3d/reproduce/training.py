"""Stages data, pretrain and train: heads, the expression basis, and one model for each variant of Tables 3 and 4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from export3d.checkpoint import read_checkpoint
from export3d.configs import config_to_dict
from export3d.data import ClipDataset
from export3d.errors import CheckpointError, UsageError
from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips
from export3d.reading import read_log
from export3d.reproduce.settings import Reporter, Settings, Stopped
from export3d.training.loop.distributed import World
from export3d.training.loop.run import LoopOptions, Task, run_loop
from export3d.training.loop.run import Progress as LoopProgress
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.config import TRAIN_PRESETS, TrainConfig
from export3d.training.phases.pretrain import PretrainTask
from export3d.training.phases.pretrain_config import PRETRAIN_PRESETS, PretrainConfig
from export3d.training.phases.pretrain_files import EXPRESSION_FILE, EXPRESSION_KIND
from export3d.training.phases.setup import TrainSetup, prepare_training
from export3d.training.phases.train import without_phase2

WARMUP_SHARE = 10
"""A short run warms up over at most this part of its steps, since a preset's warm-up is meant for a long run."""


def clips_configs(settings: Settings) -> dict[str, ClipsConfig]:
    """What is rendered where no clips are given: `train` and `test`."""
    sizes = settings.sizes
    train = ClipsConfig(
        identities=sizes.train_identities,
        frames=sizes.train_frames,
        size=sizes.size,
        supersample=sizes.supersample,
        quality=sizes.quality,
    )
    return {
        "train": train,
        "test": replace(train, identities=sizes.test_identities, frames=sizes.test_frames, split="test"),
    }


def render_data(settings: Settings, report: Reporter) -> None:
    """Render training and test heads, unless clips were given; finished folders are left alone.

    Raises:
        DataError: A folder holds clips of other settings.
    """
    if settings.data is not None:
        report.line(f"data: {settings.train_folder} and {settings.test_folder} are given")
        return
    folders = {"train": settings.train_folder, "test": settings.test_folder}
    for name, config in clips_configs(settings).items():
        manifest = render_clips(
            folders[name],
            config,
            head_model=settings.head_model,
            workers=settings.workers,
            on_progress=lambda stage, done, total, name=name: report.advance(f"data {name}: {stage}", done, total),
        )
        report.line(f"data: {folders[name]}: {len(manifest.clips)} clips of {config.frames} frames")


def pretrain_config(settings: Settings) -> PretrainConfig:
    """The preset of the scale with its own number of steps."""
    steps = settings.pretrain_steps or settings.sizes.pretrain_steps
    return replace(PRETRAIN_PRESETS[settings.sizes.preset], steps=steps, seed=settings.seed)


def pretrain(settings: Settings, report: Reporter) -> None:
    """CLeBS pre-training into WORK/runs/pretrain, unless a run was given.

    Raises:
        CheckpointError: The given run has no expression encoder.
        TrainingError: WORK holds a run with another configuration or other data.
    """
    if settings.expression is not None:
        path = settings.expression
        read_checkpoint(path / EXPRESSION_FILE if path.is_dir() else path, kind=EXPRESSION_KIND)
        report.line(f"pretrain: {path} is given")
        return
    config, dataset, folder = pretrain_config(settings), settings.open_train(), settings.expression_run
    run = RunFolder(folder, "pretrain", config_to_dict(config), {**dataset.facts(), "inputs": {}})
    try:
        product = (folder / EXPRESSION_FILE, EXPRESSION_KIND)
        if _finished_step(*product) == config.steps:
            report.line(f"pretrain: {folder} is finished ({config.steps} steps)")
            return
        task = PretrainTask(config, dataset, _world(settings), cache_gb=settings.cache_gb)
        _run(task, run, settings, report, of=("pretrain", *product))
    finally:
        run.close()


def train_config(settings: Settings) -> TrainConfig:
    """The preset of the scale with its own budget, phase 1 only; the variant's model comes later.

    Raises:
        UsageError: The budget does not fit the preset.
    """
    preset = TRAIN_PRESETS[settings.sizes.preset]
    samples = settings.samples or settings.sizes.samples
    try:
        config = without_phase2(replace(preset, samples=samples, seed=settings.seed, precision=settings.precision))
    except ValueError as error:
        raise UsageError(f"--samples {samples}: {error}") from error
    return replace(config, warmup_steps=min(preset.warmup_steps, config.phase1_steps // WARMUP_SHARE))


def train_setup(settings: Settings, variant: str, dataset: ClipDataset, expression: Path) -> TrainSetup:
    """What the training of a variant needs besides its clips; `expression` is a pre-training run, or its file.

    Raises:
        UsageError, CheckpointError: The pre-training run is missing or does not fit.
    """
    network = expression if expression.is_dir() else expression.parent
    config = train_config(settings)
    return prepare_training(config, variant, dataset.extractor, expression=expression, face_network=network)


def train(settings: Settings, variant: str, report: Reporter) -> None:
    """Train one variant into WORK/runs/VARIANT, or go on with it; a finished one is left alone.

    All variants see the same clips in the same order, with the same loss, seed and number of samples.

    Raises:
        TrainingError: The folder holds a run with another configuration or other data.
        UsageError, CheckpointError: The pre-training run is missing or does not fit.
    """
    model = settings.model_file(variant)
    if settings.is_given(variant):
        report.line(f"train {variant}: {model} is given")
        return
    dataset = settings.open_train()
    setup = train_setup(settings, variant, dataset, settings.expression_run)
    config = setup.config
    facts = {**dataset.facts(), "inputs": setup.notes}
    run = RunFolder(model.parent, "train", config_to_dict(config), facts)
    try:
        if _finished_step(model, "export3d") == config.phase1_steps:
            report.line(f"train {variant}: {model.parent} is finished ({config.samples} samples)")
            return
        task = setup.task(dataset, _world(settings), cache_gb=settings.cache_gb)
        _run(task, run, settings, report, of=(f"train {variant}", model, "export3d"))
    finally:
        run.close()


def is_trained(settings: Settings, variant: str) -> bool:
    """Whether the variant's model is there and has seen all its samples; models of --runs are taken as they are."""
    path = settings.model_file(variant)
    if settings.is_given(variant) or not path.is_file():
        return path.is_file()
    extra = read_checkpoint(path, kind="export3d").extra
    return extra["step"] >= extra["train"]["samples"] // extra["train"]["batch"]


def training_hours(folder: Path) -> float | None:
    """Hours that a run's logged steps took, over all its sittings; None without a log."""
    path = folder / "metrics.jsonl"
    seconds, last = 0.0, 0
    for entry in read_log(path):
        if "seconds_per_step" in entry:
            seconds += entry["seconds_per_step"] * (entry["step"] - last)
            last = entry["step"]
    return seconds / 3600.0 if last else None


def _world(settings: Settings) -> World:
    return World(device=torch.device(settings.device))


def _run(task: Task[Any], run: RunFolder, settings: Settings, report: Reporter, *, of: tuple[str, Path, str]) -> None:
    """The loop of training; raises `Stopped` where it was stopped. `of`: what to call it, the model's file and its kind."""
    label, product, kind = of
    left = report.minutes_left()
    options = LoopOptions(
        max_minutes=None if left is None else max(left, 0.0), log_every=settings.sizes.log_every, sheet_every=0
    )

    def show(progress: LoopProgress) -> None:
        if progress.message is not None:
            report.line(f"{label}: {progress.message}")
        report.progress(f"{label}, {progress.samples_per_s:.1f} samples/s", progress.step, progress.total_steps)

    result = run_loop(task, run, options, _world(settings), show)
    report.line(f"{label}: step {result.step} of {task.total_steps}, {result.samples_per_s:.1f} samples/s")
    if not result.finished:
        raise Stopped(result.stopped_by or "SIGINT")
    if _finished_step(product, kind) != result.step:  # killed between the last state and its model
        task.export(run, result.step, numbered=False)


def _finished_step(path: Path, kind: str) -> int | None:
    """The step of a run's newest model, or None without one; a damaged one is written again from the state."""
    try:
        return int(read_checkpoint(path, kind=kind).extra["step"])
    except (CheckpointError, KeyError):
        return None


def trained_data(dataset: ClipDataset) -> dict[str, Any]:
    """Facts about clips for the results: number of clips and frames, size, people, extractor."""
    return {
        "clips": len(dataset),
        "frames": sum(dataset.num_frames(i) for i in range(len(dataset))),
        "people": len({dataset.identity(i) for i in range(len(dataset))}),
        "size": dataset.size,
        "split": dataset.split,
        "extractor": dataset.extractor,
    }
