"""`export3d data check | show | merge | export`: look into data sets, join them, take clips out (docs/data.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from export3d.checks import check_choice
from export3d.cli.common import check_targets, entry_of_parts, say, stage_bars
from export3d.data import ClipDataset
from export3d.data.check import check_dataset
from export3d.data.export import export_clip
from export3d.data.manifest import describe_extractor
from export3d.data.merge import merge_datasets
from export3d.data.sheet import contact_sheet
from export3d.errors import DataError, UsageError
from export3d.images import write_sheet


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read a whole data set and list everything that is wrong with it."""

    folder: tyro.conf.Positional[Path]
    """Folder with manifest.json."""
    quick: bool = False
    """Decode only the first and last picture of each clip."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Make a contact sheet of a data set, with landmarks and the head's axes drawn on top."""

    folder: tyro.conf.Positional[Path]
    """Folder with manifest.json."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png")
    """PNG or JPEG to write."""
    clips: int = 12
    """Clips shown, spread over the data set."""
    columns: int = 6
    """Frames of each clip."""
    tile: int = 192
    """Side of one picture in pixels."""
    plain: bool = False
    """Draw nothing on top."""
    split: str | None = None
    """Only clips of this split: train, val or test."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Join data sets into a new one; on one disk the shards are linked and cost no space."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Two or more folders with manifest.json, of one extractor, frame size and frame format."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """New folder."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a clip as an ordinary film, or one of its frames as a picture."""

    folder: tyro.conf.Positional[Path]
    """Folder with manifest.json."""
    clip: str
    """Key of the clip."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """MP4 film, or PNG or JPEG picture."""
    frame: int = 0
    """Which frame becomes the picture."""


def _check(options: CheckOptions) -> str:
    with stage_bars(Console(stderr=True)) as tell:
        result = check_dataset(options.folder, every_frame=not options.quick, progress=tell)
    for problem in result.problems:
        say(problem)
    if result.problems:
        raise DataError(
            f"{options.folder}: {len(result.problems)} problem(s) in {result.clips} clips; they are listed above."
        )
    extractor = describe_extractor(ClipDataset(options.folder).extractor)
    return (
        f"{options.folder}: {result.clips} clips, {result.frames} frames, {result.identities} identities, "
        f"extractor {extractor}: no problem found."
    )


def _show(options: ShowOptions) -> str:
    for name, value in (("--clips", options.clips), ("--columns", options.columns), ("--tile", options.tile)):
        if value < 1:
            raise UsageError(f"{name}: expected at least 1; got {value}.")
    check_choice("--output ending", options.output.suffix.lower(), (".png", ".jpg", ".jpeg"))
    check_targets((options.output,))
    sheet = contact_sheet(
        ClipDataset(options.folder, split=options.split),
        max_clips=options.clips,
        columns=options.columns,
        tile_px=options.tile,
        draw=not options.plain,
    )
    write_sheet(options.output, sheet)
    return f"wrote {options.output}"


def _merge(options: MergeOptions) -> str:
    merged = merge_datasets(options.folders, options.output)
    made = f"{len(merged.clips)} clips in {len(merged.shards)} shards"
    return f"{options.output}: {made} from {len(options.folders)} data sets."


def _export(options: ExportOptions) -> str:
    export_clip(ClipDataset(options.folder), options.clip, options.output, options.frame)
    return f"wrote {options.output}"


PARTS = {
    "check": (CheckOptions, _check),
    "show": (ShowOptions, _show),
    "merge": (MergeOptions, _merge),
    "export": (ExportOptions, _export),
}
data_main = entry_of_parts("data", PARTS)
