"""What became of one video, kept as a small JSON file; its clips wait beside it until the shards are made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from export3d.data.clip import ClipKey, Split
from export3d.errors import DataError
from export3d.files import write_atomically
from export3d.preprocess.jobs import VideoJob
from export3d.reading import Count, Frames, checked, read_json, reading

RESULT_FORMAT = "export3d-prepared-video"
RESULT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class KeptClip:
    """A clip in a video's part file."""

    key: ClipKey
    cut: str
    frames: Frames
    identity: str
    split: Split
    offset: Count
    bytes: Count
    start_s: float
    end_s: float
    quality: dict[str, Any]
    yaw_counts: tuple[int, ...]
    pitch_counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A stretch of frames that did not become a clip."""

    cut: str
    start_s: float
    end_s: float
    frames: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """Everything that a finished video leaves."""

    key: str
    source: str
    fingerprint: str
    """Size and date of the file: a changed file is prepared again."""
    extractor: dict[str, str]
    num_decoded: int
    """Frames read from the file (once for each pass)."""
    num_frames: int
    """Frames at the target rate."""
    clips: tuple[KeptClip, ...]
    drops: tuple[Drop, ...]
    errors: tuple[str, ...]
    """Texts of what went wrong while reading."""
    part_bytes: Count
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU time spent in each step, all threads of the process together."""

    def save(self, folder: Path) -> None:
        """Write `<key>.json` atomically."""
        content = {"format": RESULT_FORMAT, "version": RESULT_VERSION, **asdict(self)}
        write_atomically(folder / f"{self.key}.json", json.dumps(content, indent=1, ensure_ascii=False).encode())

    @staticmethod
    def load(path: Path) -> VideoResult:
        """Read a result.

        Raises:
            DataError: Not a result of this version.
        """
        problem, remedy = "damaged record of a prepared video", "Remove it and run again."
        content = read_json(path, problem, DataError, remedy)
        if (content.get("format"), content.get("version")) != (RESULT_FORMAT, RESULT_VERSION):
            raise DataError(f"{path}: made by another version of export3d. Prepare into a new folder.")
        with reading(path, problem, DataError, remedy):
            return checked(content, VideoResult)


def fingerprint(job: VideoJob) -> str:
    """Size and modification time of a job's file, or number, size and latest time of a folder's frames."""
    if job.kind == "frames":
        stats = [path.stat() for path in sorted(job.path.iterdir()) if path.is_file()]
        latest = max((stat.st_mtime_ns for stat in stats), default=0)
        return f"{len(stats)} files {sum(stat.st_size for stat in stats)} bytes {latest}"
    stat = job.path.stat()
    return f"{stat.st_size} bytes {stat.st_mtime_ns}"


def part_path(staging: Path, key: str) -> Path:
    """Where the clips of a finished video wait for their shard."""
    return staging / f"{key}.part"
