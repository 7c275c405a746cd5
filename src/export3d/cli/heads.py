"""`export3d heads render|import`: synthetic talking heads (docs/data.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from export3d.heads.clips import ClipsConfig, render_clips
from export3d.heads.motion_csv import from_csv
from export3d.heads.parametric import ParametricHead

Output = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """Render clips of synthetic heads with exact labels, as the same shards that real videos become.

    Rerunning the same command finishes an interrupted render. The same settings give the same bytes, whatever the
    number of workers.
    """

    output: Output
    """Folder for the clip shards."""

    identities: int
    """How many heads; one clip each."""

    frames: int | None = None
    """Frames of a clip; 16, or all rows of --motion-file."""

    size: int = 256
    """Side of a frame in pixels."""

    seed: int = 0
    """Position of the first identity in its split."""

    split: Literal["train", "validation", "test"] = "train"
    """Which identities. The splits share none."""

    motion: Literal["independent", "trajectory"] = "independent"
    """Frames drawn one by one (for training), or a continuous talking sequence."""

    motion_file: Path | None = None
    """CSV of blendshape weights (ARKit, Live Link Face) that drives every head instead."""

    fps: int = 25
    """Frames per second of a continuous sequence."""

    workers: int = 1
    """Processes of one thread each; more than the cores you have does not help."""

    head_model: Path | None = None
    """npz of `export3d heads import`. Without it: the file in $EXPORT3D_HEAD_MODEL, else a small head made in code."""

    supersample: int = 2
    """Samples per pixel along each side."""

    quality: Literal["fast", "full"] = "full"
    """`fast` takes smaller textures, fewer light directions and fewer hair layers."""

    static_share: float = 0.7
    """Share of heads whose light, body and backdrop turn with the head, which makes all views consistent."""

    resting_offset: bool = True
    """Give each head a resting face of its own."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Turn ICT-FaceKit's folder of OBJ files (FaceXModel, MIT licence) into one compact head model file."""

    path: tyro.conf.Positional[Path]
    """The folder FaceXModel."""

    output: Output = Path("ict_facekit.npz")
    """The npz to write."""


HeadsOptions = (
    Annotated[RenderOptions, tyro.conf.subcommand("render")] | Annotated[ImportOptions, tyro.conf.subcommand("import")]
)


def heads_main(argv: list[str]) -> int:
    """Entry point of `export3d heads`; `argv` without the words `export3d heads`."""
    options = tyro.cli(HeadsOptions, args=argv, prog="export3d heads")  # type: ignore[arg-type]
    if isinstance(options, RenderOptions):
        _render(options)
    else:
        _import(options)
    return 0


def _render(options: RenderOptions) -> None:
    frames = options.frames
    if frames is None:
        frames = 16 if options.motion_file is None else len(from_csv(options.motion_file))
    config = ClipsConfig(
        identities=options.identities,
        frames=frames,
        size=options.size,
        seed=options.seed,
        split=options.split,
        motion=options.motion,
        motion_file=None if options.motion_file is None else str(options.motion_file),
        fps=options.fps,
        supersample=options.supersample,
        quality=options.quality,
        static_share=options.static_share,
        resting_offset=options.resting_offset,
    )
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task({"render": "rendering heads", "pack": "writing shards"}[stage])
            bar.update(tasks[stage], completed=done, total=total)

        manifest = render_clips(
            options.output, config, head_model=options.head_model, workers=options.workers, on_progress=report
        )
    size_mb = sum(shard.bytes for shard in manifest.shards) / 1e6
    console.print(
        f"{options.output}: {len(manifest.clips)} clips of {frames} frames, {options.size} px, "
        f"{len(manifest.shards)} shards, {size_mb:.1f} MB."
    )


def _import(options: ImportOptions) -> None:
    head = ParametricHead.from_obj_folder(options.path)
    head.to_npz(options.output)
    Console().print(
        f"{options.output}: {len(head.vertices)} vertices, {len(head.identity_basis)} identity and "
        f"{len(head.expression_basis)} expression modes. Use it with --head-model, or set EXPORT3D_HEAD_MODEL to it."
    )
