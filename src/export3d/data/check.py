"""Validation of a whole data set: checksums, headers, members, shapes, values (docs/data.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export3d.data.clip import REQUIRED_ARRAYS
from export3d.data.dataset import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import DataError
from export3d.files import TEMPORARY_GLOB, file_sha256

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check_dataset` found."""

    clips: int
    frames: int
    identities: int
    problems: tuple[str, ...]


def check_dataset(folder: str | Path, *, every_frame: bool = True, progress: Progress | None = None) -> CheckReport:
    """Read everything once and list all problems, not only the first.

    Args:
        every_frame: decode all pictures; otherwise the first and the last of each clip.
        progress: told about each shard and clip.

    Raises:
        DataError: The data set cannot be opened at all (no manifest, another version, a shard missing or cut
            short).
    """
    data = ClipDataset(folder)
    problems: list[str] = []
    shards = data.manifest.shards
    for number, shard in enumerate(shards):
        if file_sha256(data.folder / shard.name) != shard.sha256:
            problems.append(f"{data.folder / shard.name}: checksum mismatch: the content is not what was written.")
        if progress is not None:
            progress("shards", number + 1, len(shards))
    listed = {MANIFEST_NAME, *(shard.name for shard in shards)}
    for path in sorted(data.folder.glob("*.tar")) + sorted(data.folder.glob(TEMPORARY_GLOB)):
        if path.name not in listed:
            problems.append(f"{path}: not listed in the manifest; left over from an interrupted run?")
    for index in range(len(data)):
        problems += _clip_problems(data, index, every_frame)
        if progress is not None:
            progress("clips", index + 1, len(data))
    return CheckReport(
        clips=len(data),
        frames=sum(data.num_frames(i) for i in range(len(data))),
        identities=len({data.identity(i) for i in range(len(data))}),
        problems=tuple(problems),
    )


def _clip_problems(data: ClipDataset, index: int, every_frame: bool) -> list[str]:
    """Problems of one clip; one line for each, at most one for its pictures."""
    problems = []
    name = f"{data.folder}, clip {data.keys[index]}"
    try:
        meta = data.meta(index)
        entry = {"num_frames": data.num_frames(index), "identity": data.identity(index), "size": data.size}
        for field, expected in entry.items():
            if meta[field] != expected:
                problems.append(f"{name}: {field} is {meta[field]!r}; the manifest says {expected!r}.")
        missing = [array for array in REQUIRED_ARRAYS if array not in data.arrays(index)]
        if missing:
            problems.append(f"{name}: array(s) {', '.join(missing)} missing.")
        times = range(data.num_frames(index)) if every_frame else {0, data.num_frames(index) - 1}
        for time in times:
            data.frame(index, time)
            if data.has(index, "0000.mask.png"):
                data.mask(index, time)
            if data.has(index, "0000.depth.png"):
                data.depth(index, time)
        if data.has(index, "background.png"):
            data.background(index)
    except DataError as error:
        problems.append(str(error))
    return problems
