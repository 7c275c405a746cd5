"""Which layout an input has, and the work in it (docs/data.md)."""

from __future__ import annotations

from pathlib import Path

from export3d.errors import UsageError
from export3d.preprocess.folder import read_csv, read_folder, walk_files
from export3d.preprocess.jobs import Inputs, merge_inputs
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.talkinghead import LIST_SUFFIX, read_talkinghead
from export3d.preprocess.vfhq import read_vfhq

_MAX_LOOKED_AT = 20_000  # names seen before an unknown folder counts as a plain folder of videos


def find_inputs(inputs: list[Path], options: PrepareOptions) -> Inputs:
    """All work in the inputs, in a fixed order.

    Raises:
        UsageError: An input does not exist, is malformed, or holds nothing; a video appears twice.
    """
    if not inputs:
        raise UsageError("no input was given. Give videos, folders, or a CSV list.")
    parts = []
    for path in inputs:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder.")
        path = path.absolute()
        layout = options.layout if options.layout != "auto" else detect_layout(path)
        reader = {"folder": read_folder, "vfhq": read_vfhq, "talkinghead": read_talkinghead, "csv": read_csv}[layout]
        if path.is_file() and layout in ("vfhq", "talkinghead"):
            raise UsageError(f"{path}: --layout {layout} needs the data set's folder, not a file in it.")
        if path.is_dir() and layout == "csv":
            raise UsageError(f"{path}: --layout csv needs a CSV file; this is a folder.")
        parts.append(reader(path, options))
    return merge_inputs(parts)


def detect_layout(path: Path) -> str:
    """`csv`, `vfhq`, `talkinghead` or `folder`, by names only."""
    if path.is_file():
        return "csv" if path.suffix.lower() == ".csv" else "folder"
    for number, file in enumerate(walk_files(path)):
        parts = file.relative_to(path).parts
        if any(part.startswith("Clip+") for part in parts) or file.name == "meta_info.zip":
            return "vfhq"
        if file.name.endswith(LIST_SUFFIX) or "cropped_clips" in parts[:-1]:
            return "talkinghead"
        if number >= _MAX_LOOKED_AT:
            break
    return "folder"
