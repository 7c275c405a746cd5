"""Two simple layouts: a folder of any videos, and a CSV list (docs/data.md)."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath

from export3d.errors import UsageError
from export3d.preprocess.jobs import (
    VIDEO_SUFFIXES,
    Cut,
    Inputs,
    Loss,
    VideoJob,
    display_name,
    inside,
    make_key,
    split_of,
)
from export3d.preprocess.options import PrepareOptions
from export3d.reading import read_number, reading, shortened

CSV_COLUMNS = ("path", "identity", "split", "start_s", "end_s")
"""Known columns; only `path` is needed."""


def walk_files(root: Path) -> Iterator[Path]:
    """All files below `root` in a fixed order; hidden names are skipped, linked folders are not entered."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def read_folder(root: Path, options: PrepareOptions) -> Inputs:
    """Every video below a folder, or a single video file."""
    jobs, ignored = [], []
    single = root.is_file()
    for path in [root] if single else walk_files(root):
        source = inside(root, path)
        if not single and path.suffix.lower() not in VIDEO_SUFFIXES:
            ignored.append(display_name(source))
            continue
        identity = source if options.identity == "file" or single else str(PurePosixPath(source).parent)
        identity = display_name(identity)
        cut = Cut(identity=identity, split=choose_split(identity, options))
        jobs.append(VideoJob.of_video(source, path, (cut,)))
    return Inputs(jobs=tuple(jobs), ignored=tuple(ignored))


def read_csv(path: Path, options: PrepareOptions) -> Inputs:
    """A CSV list with a header; paths count from the list's own folder.

    Rows of one video become cuts of one job.

    Raises:
        UsageError: No `path` column, an unknown column, a number that is none, or an end before its start.
    """
    with reading(path, "not a CSV list in UTF-8", UsageError), open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
        rows = [{name: row[name] or "" for name in columns} for row in reader]
    for name in columns:
        if name not in CSV_COLUMNS:
            near = difflib.get_close_matches(name, CSV_COLUMNS, n=1, cutoff=0.4)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"{path}: unknown column '{name}'.{hint} Known: {', '.join(CSV_COLUMNS)}.")
    if "path" not in columns:
        raise UsageError(f"{path}: the first line must name the columns; 'path' is needed, got {', '.join(columns)}.")
    cuts: dict[str, list[Cut]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        start, end = (_seconds(row.get(name, ""), f"{where}, {name}") for name in ("start_s", "end_s"))
        if start is not None and end is not None and end <= start:
            raise UsageError(f"{where}: end_s must be above start_s; got {float(end)} and {float(start)}.")
        name = (
            "" if start is None and end is None else f"{float(start or 0):g}-{'' if end is None else f'{float(end):g}'}"
        )
        identity = row.get("identity", "").strip() or row["path"]
        split = row.get("split", "").strip() or choose_split(identity, options)
        if split not in ("train", "val", "test"):
            raise UsageError(f"{where}: split '{split}'; expected train, val or test.")
        cut = Cut(name=name, identity=identity, split=split, start_s=start, end_s=end)
        cuts.setdefault(row["path"].strip(), []).append(cut)
    jobs, losses = [], []
    for name, parts in cuts.items():
        video = Path(name) if Path(name).is_absolute() else path.parent / name
        source = PurePosixPath(path.name, name).as_posix()
        if not video.is_file():
            losses.append(Loss(source=display_name(source), reason="no such file"))
            continue
        if len({part.name for part in parts}) < len(parts):
            raise UsageError(f"{path}: '{name}' is listed twice with the same times.")
        jobs.append(VideoJob(key=make_key(source, video.stem), path=video.absolute(), source=source, cuts=tuple(parts)))
    return Inputs(jobs=tuple(jobs), losses=tuple(losses))


def choose_split(identity: str, options: PrepareOptions, layout_split: str | None = None) -> str:
    """The option, else what the layout says, else the shares."""
    if options.split != "auto":
        return options.split
    return layout_split or split_of(identity, options.val_share, options.test_share)


def _seconds(text: str, where: str) -> Fraction | None:
    if not text.strip():
        return None
    try:
        value = read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{where}: expected seconds; got '{shortened(text)}'.") from error
    if value < 0:
        raise UsageError(f"{where}: expected seconds from 0 on; got '{text}'.")
    return value
