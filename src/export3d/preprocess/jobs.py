"""What there is to prepare: videos and, inside each, the pieces to cut out (Sec. 4.1; docs/data.md)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

from export3d.errors import UsageError

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .m2ts .mts .flv .wmv .3gp .ogv .mjpeg .y4m .gif".split()
)
"""Names that a folder of videos is searched for; anything else there is listed in the report and left alone."""

_MAX_CUT = 20

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the listed size."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A piece of a video that is prepared on its own; by default the whole of it.

    Frame numbers count the frames of the source from 0; times are seconds of the source's own clock.
    """

    name: str = ""
    """Unique in its video; goes into the clip's key and the report."""
    identity: str = ""
    split: str = "train"
    start_s: Fraction | None = None
    """First time that belongs to the cut."""
    end_s: Fraction | None = None
    """First time that no longer does."""
    first_frame: int | None = None
    last_frame: int | None = None
    """Inclusive."""
    box: Box | None = None
    """Fixed crop; scaled by actual size / listed size. Outside is cut off, not filled."""
    listed_size: tuple[int, int] | None = None
    """(width, height) that `box` and `guide` refer to; None: the source's own."""
    guide: bytes = b""
    """float32 ``(N, 5, 2)``: five points for each native frame of the cut that say which face is meant; in pixels of
    the listed size, before the crop. Bytes, since a data set has millions of them."""
    guide_fps: Fraction | None = None
    """Rate at which the guide's entries follow each other."""


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """One unit of work: a video file, a folder of frames, or frames in an archive."""

    key: str
    """Letters, digits, `_`, `-`: names files and clips. Depends on the path inside the input only."""
    path: Path
    source: str
    """How the report names it: the path inside the input."""
    kind: Literal["video", "frames", "archive"] = "video"
    inside: str = ""
    """Folder inside an archive."""
    fps: Fraction | None = None
    """Native rate of a folder or archive of frames."""
    cuts: tuple[Cut, ...] = (Cut(),)

    @classmethod
    def of_video(cls, source: str, path: Path, cuts: Iterable[Cut]) -> VideoJob:
        """The job of a video file, known by its path inside the input."""
        key = make_key(source, path.stem)
        return cls(key=key, path=path.absolute(), source=display_name(source), cuts=tuple(cuts))


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Something that was found but cannot be prepared, with the reason."""

    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All work of a run, in a fixed order, and what was set aside before the work began."""

    jobs: tuple[VideoJob, ...]
    losses: tuple[Loss, ...] = ()
    ignored: tuple[str, ...] = ()
    """Files that no layout has a use for."""


def merge_inputs(parts: list[Inputs]) -> Inputs:
    """Put several inputs together, ordered by key.

    Raises:
        UsageError: The same video appears twice, or nothing was found.
    """
    jobs = sorted((job for part in parts for job in part.jobs), key=lambda job: (job.source, job.key))
    seen: dict[str, VideoJob] = {}
    for job in jobs:
        if job.key in seen:
            raise UsageError(
                f"{job.path}: has the same name '{job.source}' as {seen[job.key].path}. Give each video once, or "
                "prepare the folders one after another into different data sets."
            )
        seen[job.key] = job
    losses = tuple(loss for part in parts for loss in part.losses)
    ignored = tuple(name for part in parts for name in part.ignored)
    if not jobs and not losses:
        raise UsageError(
            f"no video was found in the inputs ({len(ignored)} other files). Give a folder of videos, a VFHQ or "
            "TalkingHead-1KH folder, or a CSV list; see docs/data.md."
        )
    return Inputs(jobs=tuple(jobs), losses=losses, ignored=ignored)


def inside(root: Path, path: Path) -> str:
    """A file's path inside the input `root`, whose name comes first."""
    return PurePosixPath(root.name, *path.relative_to(root).parts).as_posix()


def make_key(source: str, stem: str) -> str:
    """A readable name and eight digits of a hash, so that no two sources share a key: `my_clip-1a2b3c4d`."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:40]
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{readable}-{digest}" if readable else digest


def display_name(path: Path | str) -> str:
    """A path as text that can be written anywhere; bytes that are not UTF-8 become a replacement mark."""
    return os.fsencode(str(path)).decode("utf-8", "replace")


def split_of(identity: str, val_share: float, test_share: float) -> str:
    """Split by a hash of the identity: the same person never appears in two splits, whatever else is prepared."""
    place = int(hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()[:8], 16) / 2**32
    if place < test_share:
        return "test"
    return "val" if place < test_share + val_share else "train"


def clip_key(job: VideoJob, cut: Cut, number: int) -> str:
    """`<video>[-<cut>]-<number>`: at most 49 + 1 + 20 + 5 characters."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", cut.name)
    if len(name) > _MAX_CUT or name != cut.name:
        name = f"{name[: _MAX_CUT - 9]}-{hashlib.sha256(cut.name.encode()).hexdigest()[:8]}"
    return f"{job.key}{'-' + name if name else ''}-{number:03d}"
