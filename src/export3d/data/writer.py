"""Writes clips into WebDataset shards and a manifest; a shard gets its name only when it is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from export3d.checks import check_choice
from export3d.data.clip import FRAME_FORMATS, Clip, validate_clip
from export3d.data.manifest import MANIFEST_NAME, ClipEntry, Manifest, ShardEntry, require_same_extractor
from export3d.data.tar_members import END_OF_ARCHIVE, clip_bytes
from export3d.errors import DataError
from export3d.files import make_folder, publish, temporary_beside, write_error


def shard_name(number: int) -> str:
    """`clips-000000.tar` and so on."""
    return f"clips-{number:06d}.tar"


class ShardFile:
    """One shard under construction: temporary name, then fsync and rename."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.size = 0
        self._path = folder / name
        self._temporary = temporary_beside(self._path)
        self._digest = hashlib.sha256()
        try:
            self._file: BinaryIO = open(self._temporary, "wb")
        except OSError as error:
            raise write_error(self._path, error) from error

    def append(self, content: bytes) -> int:
        """Add bytes; returns the offset at which they start."""
        offset = self.size
        with self._writing():
            self._file.write(content)
        self._digest.update(content)
        self.size += len(content)
        return offset

    def finish(self) -> ShardEntry:
        """End the archive, flush to disk and give it its name."""
        self.append(END_OF_ARCHIVE)
        with self._writing():
            self._file.close()
            publish(self._temporary, self._path)
        return ShardEntry(name=self.name, bytes=self.size, sha256=self._digest.hexdigest())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            raise write_error(self._path, error) from error

    def discard(self) -> None:
        """Forget the unfinished shard."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class ShardWriter:
    """Writes a new data set: ``with ShardWriter(folder) as writer: writer.write(clip)``.

    Args:
        folder: made if missing; must not hold a finished data set.
        clips_per_shard: clips in one tar.
        frame_format: `png` (lossless) or `jpg` (quality 95).

    Raises:
        DataError: The folder already holds a manifest; a clip is invalid, doubled, of another size or of another extractor
            than the first.
        OutputError: Something cannot be written.
    """

    def __init__(self, folder: str | Path, clips_per_shard: int = 64, frame_format: str = "png") -> None:
        if clips_per_shard < 1:
            raise ValueError(f"clips_per_shard must be at least 1; got {clips_per_shard}")
        self.folder = Path(folder)
        self.clips_per_shard = clips_per_shard
        self.frame_format = check_choice("frame_format", frame_format, FRAME_FORMATS)
        self._shards: list[ShardEntry] = []
        self._clips: list[ClipEntry] = []
        self._keys: set[str] = set()
        self._in_shard = 0
        self._shard: ShardFile | None = None
        self._size: int | None = None
        self._extractor: dict[str, str] | None = None
        make_folder(self.folder)
        if (self.folder / MANIFEST_NAME).exists():
            raise DataError(f"{self.folder}: already holds a data set. Choose another folder or remove it first.")

    def write(self, clip: Clip) -> None:
        """Add one clip."""
        validate_clip(clip)
        if clip.key in self._keys:
            raise DataError(f"clip key '{clip.key}' appears twice; keys must be unique in a data set.")
        if self._extractor is None:
            self._extractor = dict(clip.meta["extractor"])
            self._size = clip.meta["size"]
        require_same_extractor(self._extractor, clip.meta["extractor"], f"clip {clip.key}")
        if clip.meta["size"] != self._size:
            raise DataError(f"clip {clip.key}: frames are {clip.meta['size']} px; the data set has {self._size} px.")
        content = clip_bytes(clip, self.frame_format)
        if self._shard is None:
            self._shard = ShardFile(self.folder, shard_name(len(self._shards)))
        offset = self._shard.append(content)
        self._clips.append(
            ClipEntry(
                key=clip.key,
                shard=self._shard.name,
                offset=offset,
                bytes=len(content),
                frames=clip.meta["num_frames"],
                identity=clip.meta["identity"],
                split=clip.meta["split"],
            )
        )
        self._keys.add(clip.key)
        self._in_shard += 1
        if self._in_shard == self.clips_per_shard:
            self._finish_shard()

    def close(self) -> Manifest:
        """Finish the last shard, then write the manifest."""
        self._finish_shard()
        if self._extractor is None or self._size is None:
            raise DataError(f"{self.folder}: no clip was written; a data set holds at least one.")
        manifest = Manifest(
            size=self._size,
            frame_format=self.frame_format,
            extractor=self._extractor,
            shards=tuple(self._shards),
            clips=tuple(self._clips),
        )
        manifest.save(self.folder)
        return manifest

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.finish())
            self._shard = None
            self._in_shard = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.discard()
