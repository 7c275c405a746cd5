"""Prepared videos into shards: a plan first, then one shard after another, then the manifest (docs/data.md).

The plan is a pure function of the records, so any number of workers, kills and reruns gives the same shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from export3d.data.manifest import MANIFEST_NAME, ClipEntry, Manifest, ShardEntry, require_same_extractor
from export3d.data.tar_members import END_OF_ARCHIVE
from export3d.data.writer import ShardFile, shard_name
from export3d.errors import DataError
from export3d.files import file_sha256, write_atomically
from export3d.preprocess.results import VideoResult, part_path
from export3d.reading import Count, FileName, checked, read_json, reading

PLAN_NAME = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A clip's way from a part file into a shard."""

    entry: ClipEntry
    part: FileName
    part_offset: Count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be packed."""

    size: int
    frame_format: str
    extractor: dict[str, str]
    shards: tuple[tuple[PlannedClip, ...], ...]

    def save(self, folder: Path) -> None:
        """Write `plan.json` atomically."""
        write_atomically(folder / PLAN_NAME, json.dumps(asdict(self), ensure_ascii=False).encode())

    @staticmethod
    def load(folder: Path) -> Plan | None:
        """The plan of an interrupted packing, or None."""
        path = folder / PLAN_NAME
        if not path.exists():
            return None
        problem, remedy = "the plan of an interrupted packing is damaged", "Remove it and run again."
        content = read_json(path, problem, DataError, remedy)
        with reading(path, problem, DataError, remedy):
            return checked(content, Plan)


def packed_keys(folder: Path) -> set[str]:
    """Keys of the clips that a finished data set in `folder` holds; empty if there is none."""
    return {clip.key for clip in Manifest.load(folder).clips} if (folder / MANIFEST_NAME).exists() else set()


def make_plan(
    results: list[VideoResult],
    folder: Path,
    *,
    size: int,
    frame_format: str,
    clips_per_shard: int,
    first_clip_only: bool,
) -> Plan:
    """Put the clips that are in no shard yet into new shards, in the order of the results.

    Raises:
        DataError: The results, or an existing data set, were made with another extractor.
    """
    done: set[str] = set()
    identities: set[str] = set()
    number = 0
    extractor: dict[str, str] | None = None
    if (folder / MANIFEST_NAME).exists():
        manifest = Manifest.load(folder)
        done = {clip.key for clip in manifest.clips}
        identities = {clip.identity for clip in manifest.clips}
        number = len(manifest.shards)
        extractor = manifest.extractor
    shards: list[list[PlannedClip]] = []
    offset = 0
    for result in results:
        if result.clips:
            extractor = extractor or result.extractor
            require_same_extractor(extractor, result.extractor, result.source)
        for clip in result.clips:
            if clip.key in done or (first_clip_only and clip.identity in identities):
                continue
            identities.add(clip.identity)
            if not shards or len(shards[-1]) == clips_per_shard:
                shards.append([])
                offset = 0
            entry = ClipEntry(
                key=clip.key,
                shard=shard_name(number + len(shards) - 1),
                offset=offset,
                bytes=clip.bytes,
                frames=clip.frames,
                identity=clip.identity,
                split=clip.split,
            )
            offset += clip.bytes
            shards[-1].append(PlannedClip(entry=entry, part=result.key, part_offset=clip.offset))
    return Plan(
        size=size, frame_format=frame_format, extractor=extractor or {}, shards=tuple(tuple(shard) for shard in shards)
    )


def carry_out(plan: Plan, folder: Path, staging: Path, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Write the planned shards that are not there yet, add all to the manifest, remove the parts.

    Raises:
        DataError: A part file has gone or is too short.
        OutputError: Something cannot be written.
    """
    old = Manifest.load(folder) if (folder / MANIFEST_NAME).exists() else None
    entries: list[ShardEntry] = []
    for place, clips in enumerate(plan.shards):
        entries.append(_write_shard(clips, folder, staging))
        if progress is not None:
            progress(place + 1, len(plan.shards))
    # If the manifest already names them, the run was stopped between manifest and tidying up.
    named = {shard.name for shard in old.shards} if old else set()
    fresh = [entry for entry in entries if entry.name not in named]
    new_clips = tuple(clip.entry for shard in plan.shards for clip in shard if clip.entry.shard not in named)
    manifest = Manifest(
        size=plan.size,
        frame_format=plan.frame_format,
        extractor=plan.extractor,
        shards=((*old.shards, *fresh) if old else tuple(fresh)),
        clips=((*old.clips, *new_clips) if old else new_clips),
    )
    manifest.save(folder)
    return manifest


def _write_shard(clips: tuple[PlannedClip, ...], folder: Path, staging: Path) -> ShardEntry:
    name = clips[0].entry.shard
    size = sum(clip.entry.bytes for clip in clips) + len(END_OF_ARCHIVE)
    path = folder / name
    if path.exists() and path.stat().st_size == size:
        return ShardEntry(name=name, bytes=size, sha256=file_sha256(path))
    shard = ShardFile(folder, name)
    try:
        for clip in clips:
            part = part_path(staging, clip.part)
            try:
                with open(part, "rb") as file:
                    file.seek(clip.part_offset)
                    content = file.read(clip.entry.bytes)
            except OSError as error:
                raise DataError(f"{part}: cannot be read ({error.strerror}); run again with a new folder.") from error
            if len(content) != clip.entry.bytes:
                raise DataError(f"{part}: ends before clip {clip.entry.key}; remove it and run the command again.")
            shard.append(content)
    except DataError:
        shard.discard()
        raise
    return shard.finish()
