"""`export3d pretrain` and `export3d train`: parse, build, run the loop, print one result line (docs/training.md)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro
from rich.console import Console

from export3d.checks import check_choice
from export3d.cli.common import Events, refuse_overwriting_inputs, training_display
from export3d.configs import config_to_dict
from export3d.data import ClipDataset, ClipSource
from export3d.errors import Export3DError, UsageError
from export3d.portrait.loading import RENAMED
from export3d.training.loop.distributed import World, joined_world
from export3d.training.loop.memory import keep_freed_memory
from export3d.training.loop.run import LoopOptions, LoopResult, Task, run_loop
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.config import TRAIN_PRESETS, TrainConfig
from export3d.training.phases.pretrain import PretrainTask
from export3d.training.phases.pretrain_config import PRETRAIN_PRESETS, PretrainConfig
from export3d.training.phases.train import MODEL_FILE, TrainTask

STOPPED_CODE = 128
"""And the signal's number: what shells say of a program that a signal ended."""
O = TypeVar("O")


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Where and how fast; none of it is part of the configuration that a resumed run must repeat."""

    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu` or `cuda`."""
    threads: int = 0
    """CPU threads of this process; 0 keeps PyTorch's choice (OMP_NUM_THREADS, or all cores)."""
    cache_gb: float = 4.0
    """Memory for decoded frames; what does not fit is decoded each time it is drawn."""
    dry_run: bool = False
    """Print the resolved configuration, parameters, memory and time estimates; train nothing."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Heads rendered while training goes on; used with --heads-stream. All of it decides the result."""

    model: Path | None = None
    """Head model (npz of `export3d heads import`); default: EXPORT3D_HEAD_MODEL, else the head in code."""
    frames: int = 40
    """Frames of a person."""
    pool: int = 32
    """People that one step can draw from."""
    renew_every: int = 4
    """Steps after which one person of the pool is replaced."""
    seed: int = 0
    """Position of the first person in the train split."""
    supersample: int = 2
    """Rendered at this many times the size, then averaged."""
    quality: Literal["fast", "full"] = "full"
    """`fast` halves textures, light directions and hair layers."""
    held_out: int = 8
    """People of the validation split for sample sheets and measurements; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What both commands are told besides their configuration."""

    data: Path | None = None
    """Folder of clip shards (export3d heads, export3d prepare)."""
    heads_stream: int = 0
    """Instead of --data: render this many people of the train split while training goes on."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Run folder."""
    preset: str = "portrait"
    """`paper`, `paper-small`, `portrait` or `tiny`; every value can be changed by its own option."""
    split: str = "train"
    """Clips of this split are trained on."""
    held_out: Path | None = None
    """Folder of other identities for sample sheets and measurements; by default the val or test clips of --data."""
    heads: StreamOptions = field(default_factory=StreamOptions)
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(default_factory=LoopOptions)
    machine: Annotated[MachineOptions, tyro.conf.arg(name="")] = field(default_factory=MachineOptions)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions):
    """Phase 0: learn the expression basis from clips by contrast within each clip (CLeBS, Sec. 3.1).

    Rerunning the same command resumes.
    """

    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Phases 1 and 2: reconstruct the driving frame, then also against a discriminator (Secs. 3.4, 6.3, 6.4).

    Rerunning the same command resumes.
    """

    expression: Path | None = None
    """Run folder of `export3d pretrain` (or its expression.safetensors); left out, that of --start goes on. Frozen, unless
    --model.expression.no-pretrained, which starts there and trains on at --expression-rate (not the paper)."""
    face_network: Path | None = None
    """Run folder or face_network.safetensors for --perceptual face_network; by default the --expression run."""
    vgg: Path | None = None
    """VGG16 weights for --perceptual lpips (docs/training.md says which file)."""
    lpips_heads: Path | None = None
    """LPIPS's linear layers for VGG16."""
    start: Path | None = None
    """Begin with this model's weights instead of random ones."""
    ablation: str = "full"
    """Variant of Tables 3 and 4: full, direct-3dmm, e2e-lebs-n25, e2e-lebs-n10, e2e-lebs-n5, cross-attention."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def pretrain_main(argv: list[str]) -> int:
    """Entry point of `export3d pretrain`; returns the exit code."""
    default = PretrainOptions(output=tyro.MISSING, config=PRETRAIN_PRESETS[_preset(argv, PRETRAIN_PRESETS)])
    options = _parse(PretrainOptions, argv, default, "export3d pretrain")
    size = options.config.image_encoder.image_size
    with _world(options.machine) as world, _clips(options, size, world) as (dataset, held_out):
        task = PretrainTask(options.config, dataset, world, held_out=held_out, cache_gb=options.machine.cache_gb)
        if options.machine.dry_run:
            return _print_dry_run(options.config, task, task.module, dataset, world)
        return _run(options, task, world, command="pretrain", config=options.config, data=dataset.facts(), inputs={})


def train_main(argv: list[str]) -> int:
    """Entry point of `export3d train`; returns the exit code."""
    default = TrainOptions(output=tyro.MISSING, config=TRAIN_PRESETS[_preset(argv, TRAIN_PRESETS)])
    options = _parse(TrainOptions, argv, default, "export3d train")
    if options.start is not None:
        refuse_overwriting_inputs(options.output / MODEL_FILE, options.start)
    size = options.config.model.image_size
    with _world(options.machine) as world, _clips(options, size, world) as (dataset, held_out):
        config, task, inputs = _train_task(options, dataset, held_out, world)
        if options.machine.dry_run:
            return _print_dry_run(config, task, task.model, dataset, world)
        return _run(options, task, world, command="train", config=config, data=dataset.facts(), inputs=inputs)


def _train_task(
    options: TrainOptions, dataset: ClipSource, held_out: ClipSource | None, world: World
) -> tuple[TrainConfig, TrainTask, dict[str, Any]]:
    from export3d.training.phases.setup import prepare_training
    from export3d.training.phases.sheets import make_sheet

    setup = prepare_training(
        options.config,
        options.ablation,
        dataset.extractor,
        expression=options.expression,
        face_network=options.face_network,
        vgg=options.vgg,
        lpips_heads=options.lpips_heads,
        start=options.start,
    )
    task = setup.task(dataset, world, sheet_clips=held_out, cache_gb=options.machine.cache_gb)
    if isinstance(task, TrainTask):
        task.make_sheet = make_sheet
    return setup.config, task, setup.notes


@contextmanager
def _clips(options: RunOptions, size: int, world: World) -> Iterator[tuple[ClipSource, ClipSource | None]]:
    """The training clips and the held-out ones: from a folder, or rendered as they are needed at `size` px."""
    if (options.data is None) == (options.heads_stream == 0):
        raise UsageError("Give either --data FOLDER or --heads-stream N (people rendered while training goes on).")
    if options.data is not None:
        yield ClipDataset(options.data, split=options.split), _held_out(options.data, options.held_out)
        return
    if options.split != "train":
        raise UsageError(f"--heads-stream renders people of the split 'train' alone; got --split {options.split}.")
    from export3d.heads.clips.extractor import LinearExtractor
    from export3d.heads.clips.one_clip import ClipsConfig
    from export3d.heads.clips.stream import HeadStream, HeadStreamConfig
    from export3d.heads.shape.model_file import load_head

    chosen = options.heads
    shared = {name: getattr(chosen, name) for name in ("frames", "seed", "supersample", "quality")}
    clips = ClipsConfig(identities=options.heads_stream, size=size, **shared)
    config = HeadStreamConfig(clips=clips, pool=chosen.pool, renew_every=chosen.renew_every)
    head = load_head(chosen.model)
    extractor = LinearExtractor.build(head)
    with ExitStack() as streams:
        stream = streams.enter_context(closing(HeadStream(config, head, extractor, device=world.device)))
        held_out: ClipSource | None = None
        if options.held_out is not None:
            held_out = ClipDataset(options.held_out)
        elif chosen.held_out > 0 and world.is_main:
            others = replace(clips, identities=chosen.held_out, seed=0, split="validation")
            measured = HeadStreamConfig(clips=others, pool=chosen.held_out)
            held_out = streams.enter_context(closing(HeadStream(measured, head, extractor, device=world.device)))
        yield stream, held_out


def _held_out(folder: Path, other: Path | None) -> ClipDataset | None:
    """All clips of the other folder if one is given, else the validation clips, else the test clips, else none."""
    if other is not None:
        return ClipDataset(other)
    splits = {clip.split for clip in ClipDataset(folder).manifest.clips}
    for split in ("val", "test"):
        if split in splits:
            return ClipDataset(folder, split=split)
    return None


def _run(
    options: RunOptions,
    task: Task[Any],
    world: World,
    *,
    command: str,
    config: PretrainConfig | TrainConfig,
    data: dict[str, Any],
    inputs: dict[str, Any],
) -> int:
    console = Console(stderr=True)
    run = None
    if world.is_main:
        run = RunFolder(options.output, command, config_to_dict(config), {**data, "inputs": inputs})
    try:
        with training_display(console, world.is_main) as show:
            result = run_loop(task, run, options.loop, world, show)
    finally:
        if run is not None:
            run.close()
    line = _result_line(options.output, task, result)
    if world.is_main and not Events.tell("result", message=line):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    by_signal = result.stopped_by is not None and result.stopped_by.startswith("SIG")
    return STOPPED_CODE + signal.Signals[str(result.stopped_by)] if by_signal else 0


def _result_line(output: Path, task: Task[Any], result: LoopResult) -> str:
    done = f"{output}: step {result.step} of {task.total_steps}, {result.samples_per_s:.1f} samples/s"
    if result.finished:
        return f"{done}. Finished."
    return f"{done}. Stopped by {result.stopped_by}; the same command goes on from here."


def _preset(argv: list[str], presets: dict[str, Any]) -> str:
    """The preset must be known before parsing, because it gives every other option its default."""
    name = "portrait"
    for place, word in enumerate(argv):
        if word == "--preset" and place + 1 < len(argv):
            name = argv[place + 1]
        elif word.startswith("--preset="):
            name = word.removeprefix("--preset=")
    return check_choice("--preset", RENAMED.get(name, name), presets)


def _parse(cls: type[O], argv: list[str], default: O, program: str) -> O:
    try:
        return tyro.cli(cls, args=list(argv), default=default, prog=program)
    except Export3DError:
        raise
    except ValueError as error:  # a configuration's own check
        raise UsageError(f"{program}: {error}") from error


def _world(machine: MachineOptions) -> Any:
    keep_freed_memory()
    if machine.threads > 0:
        torch.set_num_threads(machine.threads)
    elif "OMP_NUM_THREADS" not in os.environ and "WORLD_SIZE" in os.environ:
        torch.set_num_threads(1)
    return joined_world(machine.device)


def _print_dry_run(
    config: PretrainConfig | TrainConfig,
    task: PretrainTask | TrainTask,
    module: torch.nn.Module,
    dataset: ClipSource,
    world: World,
) -> int:
    import json

    from export3d.training.loop.estimate import estimate_run

    lines = estimate_run(task, module, dataset)  # in every process: the timed steps exchange gradients
    if world.is_main and not Events.tell("result", message="\n".join(lines), config=config_to_dict(config)):
        console = Console()
        console.print_json(json.dumps(config_to_dict(config)))
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0
