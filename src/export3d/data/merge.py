"""Join finished data sets into one: shards are linked (or copied), the manifests become one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export3d.data.manifest import MANIFEST_NAME, Manifest, require_same_extractor
from export3d.data.writer import shard_name
from export3d.errors import DataError, OutputError


def merge_datasets(folders: Sequence[str | Path], output: str | Path) -> Manifest:
    """Join data sets that were made with one extractor, one size and one frame format.

    Shards keep their bytes and get new numbers; on one disk they are hard links and cost no space.

    Args:
        folders: two or more finished data sets.
        output: a new folder; its manifest is written last.

    Raises:
        DataError: Different extractors, sizes or formats, a clip key twice, or `output` already holds a data set.
        OutputError: Something cannot be written.
    """
    output = Path(output)
    parts = [(Path(folder), Manifest.load(folder)) for folder in folders]
    if (output / MANIFEST_NAME).exists():
        raise DataError(f"{output}: already holds a data set; name a new folder.")
    first_folder, first = parts[0]
    shards, clips = [], []
    try:
        output.mkdir(parents=True, exist_ok=True)
        for folder, part in parts:
            require_same_extractor(first.extractor, part.extractor, str(folder))
            if (part.size, part.frame_format) != (first.size, first.frame_format):
                raise DataError(
                    f"{folder}: holds {part.size} px {part.frame_format} frames, but {first_folder} holds {first.size} px "
                    f"{first.frame_format}; prepare both alike."
                )
            renamed = {}
            for shard in part.shards:
                name = shard_name(len(shards))
                renamed[shard.name] = name
                _link(folder / shard.name, output / name)
                shards.append(replace(shard, name=name))
            clips += [replace(clip, shard=renamed[clip.shard]) for clip in part.clips]
        manifest = replace(first, shards=tuple(shards), clips=tuple(clips))
        manifest.save(output)
    except OSError as error:
        raise OutputError(f"{output}: the data sets could not be joined ({error.strerror or error}).") from error
    return manifest


def _link(source: Path, target: Path) -> None:
    """Hard link where the file system can, else a copy; either appears complete or not at all."""
    temporary = target.with_name(f".{target.name}.tmp{os.getpid()}")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
