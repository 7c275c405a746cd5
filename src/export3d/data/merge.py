"""Join finished data sets into one: shards are linked (or copied), the manifests become one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export3d.data.dataset import ClipDataset
from export3d.data.manifest import MANIFEST_NAME, ClipEntry, Manifest, ShardEntry, require_same_extractor
from export3d.data.writer import shard_name
from export3d.errors import DataError, OutputError, UsageError
from export3d.files import replacing


def merge_datasets(folders: Sequence[str | Path], output: str | Path) -> Manifest:
    """Join data sets that were made with one extractor, one size and one frame format.

    Shards keep their bytes and get new numbers; on one disk they are hard links and cost no space.

    Args:
        folders: two or more finished data sets.
        output: a new folder; its manifest is written last.

    Raises:
        DataError: Different extractors, sizes or formats, a clip key twice, a damaged set, or `output` already holds
            a data set.
        UsageError: Fewer than two folders.
        OutputError: Something cannot be written.
    """
    if len(folders) < 2:
        raise UsageError(f"Joining needs two or more data sets; got {len(folders)}.")
    output = Path(output)
    parts = [(Path(folder), Manifest.load(folder)) for folder in folders]
    if (output / MANIFEST_NAME).exists():
        raise DataError(f"{output}: already holds a data set; name a new folder.")
    first_folder, first = parts[0]
    shards: list[ShardEntry] = []
    clips: list[ClipEntry] = []
    sources: list[Path] = []
    for folder, part in parts:  # everything is checked before anything is written
        ClipDataset(folder).close()  # all shards there, of the right length
        require_same_extractor(first.extractor, part.extractor, str(folder))
        if (part.size, part.frame_format) != (first.size, first.frame_format):
            raise DataError(
                f"{folder}: holds {part.size} px {part.frame_format} frames, but {first_folder} holds {first.size} px "
                f"{first.frame_format} frames; prepare both alike."
            )
        renamed = {}
        for shard in part.shards:
            renamed[shard.name] = shard_name(len(shards))
            sources.append(folder / shard.name)
            shards.append(replace(shard, name=renamed[shard.name]))
        clips += [replace(clip, shard=renamed[clip.shard]) for clip in part.clips]
    manifest = replace(first, shards=tuple(shards), clips=tuple(clips))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for source, shard in zip(sources, shards, strict=True):
            _link(source, output / shard.name)
        manifest.save(output)
    except OSError as error:
        raise OutputError(f"{output}: the data sets could not be joined ({error.strerror or error}).") from error
    return manifest


def _link(source: Path, target: Path) -> None:
    """Hard link where the file system can, else a copy; either appears complete or not at all."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
