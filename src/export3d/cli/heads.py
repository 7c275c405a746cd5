"""`export3d heads render|sheet|entanglement|import`: synthetic talking heads (docs/data.md)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from export3d.cli.common import Events, check_targets, entry_of_parts, say, stage_bars
from export3d.data.tar_members import encode_image
from export3d.errors import UsageError
from export3d.files import make_folder, measured_now, write_atomically, write_json
from export3d.heads.clips.entanglement import EntanglementConfig, measure_entanglement
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.clips.one_clip import ClipsConfig, ClipSettings
from export3d.heads.clips.rendering import render_clips
from export3d.heads.clips.sheet import clip_strip, expression_sheet, pose_sheet, random_sheet, spread_report
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity
from export3d.heads.shape.ict_obj import head_from_ict_folder
from export3d.heads.shape.model_file import load_head, write_head

Output = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


@dataclass(frozen=True, kw_only=True)
class RenderOptions(ClipSettings):
    """Render clips of synthetic heads with exact labels, as the same shards that real videos become.

    Rerunning the same command finishes an interrupted render. The same settings give the same bytes, whatever the
    number of workers.
    """

    output: Output
    """Folder for the clip shards."""
    frames: int | None = None
    """Frames of a clip; 16, or all rows of --motion-file."""
    motion_file: Path | None = None
    """CSV of blendshape weights (ARKit, Live Link Face) that drives every head instead."""
    workers: int = 1
    """Processes of one thread each; more than the cores you have does not help."""
    head_model: Path | None = None
    """npz of `export3d heads import`. Without it: the file in $EXPORT3D_HEAD_MODEL, else a small head made in code."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Turn ICT-FaceKit's folder of OBJ files (FaceXModel, MIT licence) into one compact head model file."""

    path: tyro.conf.Positional[Path]
    """The folder FaceXModel."""
    output: Output = Path("ict_facekit.npz")
    """The npz to write."""


@dataclass(frozen=True, kw_only=True)
class SheetOptions:
    """Draw contact sheets of synthetic heads to look at: nothing is picked, the seeds are taken as they come."""

    output: Output = Path("sheet.png")
    """PNG or JPEG to write."""
    kind: Literal["random", "poses", "expressions", "clip"] = "random"
    """Many heads; or one head in several poses, with several expressions, or in a talking sequence."""
    seed: int = 0
    """First identity, or the one identity."""
    identities: int = 24
    """Heads of a `random` sheet."""
    columns: int = 8
    """Pictures in a row of a `random` or `clip` sheet."""
    size: int = 256
    """Side of a picture in pixels."""
    quality: Literal["fast", "full"] = "full"
    """As in `heads render`."""
    head_model: Path | None = None
    """As in `heads render`."""
    spread: bool = False
    """Also print how skin tones, ages and hair are spread over the heads."""


@dataclass(frozen=True, kw_only=True)
class EntanglementOptions(EntanglementConfig):
    """Measure how much identity the extractor's beta-hat carries, and how well it tells the true expression."""

    output: Output = Path("results/entanglement.json")
    """JSON to write: the table with the command, the seed and the date."""
    head_model: Path | None = None
    """As in `heads render`."""


def _render(options: RenderOptions) -> str:
    frames = options.frames
    if frames is None:
        frames = 16 if options.motion_file is None else len(from_csv(options.motion_file))
    settings = {field.name: getattr(options, field.name) for field in fields(ClipSettings)}
    motion_file = None if options.motion_file is None else str(options.motion_file)
    config = ClipsConfig(**settings, frames=frames, motion_file=motion_file)
    console = Console(soft_wrap=True, quiet=Events.on)
    names = {"render": "rendering heads", "pack": "writing shards"}
    with stage_bars(console, transient=False) as tell:
        manifest = render_clips(
            options.output,
            config,
            head_model=options.head_model,
            workers=options.workers,
            on_progress=lambda stage, done, total: tell(names[stage], done, total),
        )
    size_mb = sum(shard.bytes for shard in manifest.shards) / 1e6
    return (
        f"{options.output}: {len(manifest.clips)} clips of {frames} frames, {options.size} px, "
        f"{len(manifest.shards)} shards, {size_mb:.1f} MB."
    )


def _sheet(options: SheetOptions) -> None:
    frame_format = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg"}.get(options.output.suffix.lower())
    if frame_format is None:
        raise UsageError(f"{options.output}: a sheet is a .png or .jpg file; choose such a name with -o.")
    check_targets((options.output,))
    head = load_head(options.head_model)
    appearance = AppearanceOptions(quality=options.quality)
    seeds = range(options.seed, options.seed + options.identities)
    if options.kind == "random":
        sheet = random_sheet(head, seeds, size=options.size, columns=options.columns, options=appearance)
    else:
        identity = Identity.create(head, options.seed, appearance)
        if options.kind == "poses":
            sheet = pose_sheet(identity, size=options.size)
        elif options.kind == "expressions":
            sheet = expression_sheet(identity, size=options.size)
        else:
            sheet = clip_strip(identity, options.seed, columns=options.columns, size=options.size)
    write_atomically(options.output, encode_image(sheet, frame_format))
    say(f"{options.output}: {sheet.shape[1]}x{sheet.shape[0]}, head model '{head.name}'.")
    if options.spread:
        say(spread_report(seeds, appearance))


def _entanglement(options: EntanglementOptions, typed: str) -> str:
    head = load_head(options.head_model)
    extractor = LinearExtractor.build(head)
    console = Console(soft_wrap=True, quiet=Events.on)
    with console.status("fitting the linear head model to landmarks"):
        rows = measure_entanglement(head, extractor, options)
    table = Table("beta", "resting faces", "id share", "1-NN id", "R2", "R2 in clips", "R2 12 modes")
    for row in rows:
        shares = (row.expression_r2, row.expression_r2_within_clips, row.expression_r2_leading_modes)
        table.add_row(
            row.beta,
            "yes" if row.resting_offset else "no",
            f"{row.between_identity_share:.2f}",
            f"{row.nearest_identity_accuracy:.2f}",
            *("-" if share is None else f"{share:.2f}" for share in shares),
        )
    console.print(table)
    result = {
        "command": typed,
        **measured_now(),
        "head": head.name,
        "extractor": extractor.info,
        "noise_px": extractor.config.noise_px,
        "settings": {field.name: getattr(options, field.name) for field in fields(EntanglementConfig)},
        "chance_of_1_nn": 1.0 / options.identities,
        "rows": [asdict(row) for row in rows],
    }
    make_folder(options.output.parent)
    write_json(options.output, result)
    return f"{options.output}: written; chance of 1-NN is {1.0 / options.identities:.3f}."


def _import(options: ImportOptions) -> str:
    head = head_from_ict_folder(options.path)
    write_head(options.output, head)
    return (
        f"{options.output}: {len(head.vertices)} vertices, {len(head.identity_basis)} identity and "
        f"{len(head.expression_basis)} expression modes. Use it with --head-model, or set EXPORT3D_HEAD_MODEL to it."
    )


PARTS = {
    "render": (RenderOptions, _render),
    "sheet": (SheetOptions, _sheet),
    "entanglement": (EntanglementOptions, _entanglement),
    "import": (ImportOptions, _import),
}
heads_main = entry_of_parts("heads", PARTS, pairs=True, typed=("entanglement",))
