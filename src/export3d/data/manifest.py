"""The manifest of a clip data set: every shard and its checksum, every clip and its place, one extractor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export3d.data.clip import ClipKey, FrameFormat, Split
from export3d.errors import DataError
from export3d.files import write_atomically
from export3d.reading import Count, Digest, FileName, Frames, Name, Side, checked, read_json, reading, shortened

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "export3d-clips"
MANIFEST_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One tar file: its name, size in bytes and SHA-256."""

    name: FileName
    bytes: Count
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """One clip: its shard, the byte range of its members there, frame count, identity and split."""

    key: ClipKey
    shard: FileName
    offset: Count
    bytes: Count
    frames: Frames
    identity: Name
    split: Split


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of a data set's bookkeeping. The file is written last: where it is, the set is complete."""

    size: Side
    frame_format: FrameFormat
    extractor: dict[str, Name]
    shards: tuple[ShardEntry, ...]
    clips: tuple[ClipEntry, ...]

    def __post_init__(self) -> None:
        places = {shard.name: shard.bytes for shard in self.shards}
        seen: set[str] = set()
        for clip in self.clips:
            if clip.key in seen:
                raise DataError(f"clip key '{clip.key}' appears twice; keys must be unique in a data set.")
            seen.add(clip.key)
            if clip.offset + clip.bytes > places.get(clip.shard, 0):
                raise DataError(
                    f"clip '{clip.key}': lies beyond the end of shard '{clip.shard}', or the shard is not listed."
                )

    def save(self, folder: Path) -> Path:
        """Write `manifest.json` atomically."""
        path = folder / MANIFEST_NAME
        content = {"format": MANIFEST_FORMAT, "version": MANIFEST_VERSION, **asdict(self)}
        write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        return path

    @staticmethod
    def load(folder: str | Path) -> Manifest:
        """Read a data set's manifest.

        Raises:
            DataError: The folder or the manifest is missing, is not JSON, or is of another format or version.
        """
        path = Path(folder) / MANIFEST_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: no manifest; expected a folder of clip shards with {MANIFEST_NAME}. The manifest "
                "is written "
                "last: if preparing was interrupted, run the same command again."
            )
        content = read_json(path, "the manifest is not valid JSON", DataError)
        if content.get("format") != MANIFEST_FORMAT:
            raise DataError(f"{path}: expected format '{MANIFEST_FORMAT}'; got '{shortened(content.get('format'))}'.")
        if content.get("version") != MANIFEST_VERSION:
            raise DataError(
                f"{path}: version {shortened(content.get('version'))}; this export3d reads version {MANIFEST_VERSION}. "
                "Prepare the data again or use the export3d that wrote it."
            )
        with reading(path, "the manifest lacks or misnames a field", DataError, "See docs/data.md."):
            return checked(content, Manifest)


def require_same_extractor(first: Mapping[str, Any], second: Mapping[str, Any], where: str) -> None:
    """Refuse to mix coefficients of two extractors: their 64 numbers do not mean the same.

    Raises:
        DataError: Names both extractors.
    """
    if dict(first) != dict(second):
        raise DataError(
            f"{where}: made with the extractor {describe_extractor(second)}, but the data set holds clips of "
            f"{describe_extractor(first)}. Their coefficients do not mean the same; use one extractor for "
            "one data set."
        )


def describe_extractor(extractor: Mapping[str, Any]) -> str:
    """`name version (space, hash)` for messages."""
    digest = str(extractor.get("sha256", ""))[:12] or "no file"
    name, version, space = (extractor.get(field) for field in ("name", "version", "expression_space"))
    return f"'{name}' {version} ({space}, {digest})"
