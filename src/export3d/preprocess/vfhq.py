"""VFHQ's layout: clip names, meta_info files, archives of PNG frames, own downloads (facts 8.1; docs/data.md)."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from export3d.errors import DataError, UsageError
from export3d.preprocess.folder import choose_split, walk_files
from export3d.preprocess.jobs import VIDEO_SUFFIXES, Box, Cut, Inputs, Loss, VideoJob, display_name, make_key
from export3d.preprocess.options import PrepareOptions
from export3d.reading import reading, shortened

FRAME_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))
ARCHIVE_SUFFIXES = frozenset((".zip", ".tar"))
TEST_FOLDER = "VFHQ-Test"
"""Clips below a folder of this name are the official test split of 50."""

_NTSC = Fraction(1000, 1001)


MAX_MEMBER_BYTES = 1 << 28
"""Of a picture or a list in an archive, unpacked."""


@dataclass(frozen=True)
class ClipName:
    """`Clip+{video id}+P{person}+C{clip}+F{start}-{end}`; frame numbers at the native rate."""

    video_id: str
    person: int
    clip: int
    first_frame: int
    end_frame: int

    @staticmethod
    def parse(name: str) -> ClipName | None:
        """Split on '+' into exactly five parts (the id itself may start with '-'); None if it is no such name."""
        parts = name.split("+")
        if len(parts) != 5 or parts[0] != "Clip" or not parts[1]:
            return None
        numbers = [re.fullmatch(pattern, part) for pattern, part in zip(_PATTERNS, parts[2:], strict=True)]
        if not all(numbers):
            return None
        person, clip, (first, end) = (match.groups() for match in numbers if match)
        return ClipName(parts[1], int(person[0]), int(clip[0]), int(first), int(end))

    @property
    def identity(self) -> str:
        """One person of one video."""
        return f"{self.video_id}-P{self.person}"


_PATTERNS = (r"P(\d+)", r"C(\d+)", r"F(\d+)-(\d+)")


@dataclass(frozen=True, kw_only=True)
class MetaInfo:
    """One file of meta_info."""

    video_id: str
    width: int
    height: int
    fps: Fraction
    landmarks: np.ndarray
    """``(N, 5, 2)`` float32, five points for each frame, in pixels of the full frame."""
    crop: Box
    """x0, y0, x1, y1 in pixels of the full frame."""

    @staticmethod
    def parse(text: str, where: str) -> MetaInfo:
        """Read a meta_info file.

        Raises:
            UsageError: A line is missing or malformed; names the file and the line.
        """
        header: dict[str, str] = {}
        landmarks: list[list[float]] = []
        crop: Box | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if words[0] == "CROP":
                numbers = _numbers(words[-4:], 4, f"{where}, line {number}")
                crop = (numbers[0], numbers[1], numbers[2], numbers[3])
            elif words[0] == "FRAME":
                continue
            elif ":" in line:
                name, _, value = line.partition(":")
                header[name.strip()] = value.strip()
            else:
                # frame number, index, box x0 y0 w h, five points
                landmarks.append(_numbers(words, 16, f"{where}, line {number}")[6:])
        lacking = [name for name in ("Video ID", "H", "W", "FPS") if name not in header]
        if lacking or crop is None:
            names = ", ".join([*lacking, *([] if crop else ["CROP"])])
            raise UsageError(f"{where}: not a VFHQ meta_info file: no line {names}.")
        try:
            height, width = int(header["H"]), int(header["W"])
        except ValueError as error:
            raise UsageError(f"{where}: H and W must be whole numbers ({error}).") from error
        if not (0 <= crop[0] < crop[2] and 0 <= crop[1] < crop[3]):
            raise UsageError(f"{where}: CROP must be x0 y0 x1 y1 with x0 < x1 and y0 < y1; got {crop}.")
        fps = exact_fps(header["FPS"], where)
        return MetaInfo(
            video_id=header["Video ID"],
            width=width,
            height=height,
            fps=fps,
            landmarks=np.array(landmarks, dtype=np.float32).reshape(-1, 5, 2),
            crop=crop,
        )


def exact_fps(text: str, where: str) -> Fraction:
    """`29.97` or `30000/1001` -> a fraction; decimals near a multiple of 1000/1001 become exactly that.

    Raises:
        UsageError: Not a rate between 1 and 240.
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{where}: expected a frame rate such as 29.97 or 30000/1001; got '{text}'.") from error
    if not 1 <= value <= 240:
        raise UsageError(f"{where}: expected a frame rate of 1 to 240; got '{text}'.")
    whole = round(value)
    ntsc = round(value / _NTSC) * _NTSC
    if "/" in text or abs(value - whole) < Fraction(1, 1000):
        return value if "/" in text else Fraction(whole)
    return ntsc if abs(value - ntsc) < Fraction(6, 1000) else value


def read_vfhq(root: Path, options: PrepareOptions) -> Inputs:
    """Find clips as folders or archives of frames, else cut them out of full videos by their meta files.

    Raises:
        UsageError: A malformed meta file.
    """
    found = _search(root)
    jobs, losses = [], list(found.losses)
    from_videos: dict[Path, list[tuple[str, ClipName, MetaInfo]]] = {}
    for text in sorted({*found.frames, *found.metas}):
        name = ClipName.parse(text)
        if name is None:
            losses.append(Loss(source=display_name(text), reason="not a VFHQ clip name of five parts"))
            continue
        meta = found.metas.get(text)
        if text in found.frames:
            place = found.frames[text]
            fps = meta.fps if meta else (exact_fps(options.native_fps, "--native-fps") if options.native_fps else None)
            if fps is None:
                reason = "native frame rate unknown: no meta_info file; add it, or pass --native-fps"
                losses.append(Loss(source=display_name(text), reason=reason))
                continue
            jobs.append(_frames_job(text, name, meta, place, fps, root, options))
        elif meta is not None and name.video_id in found.videos:
            from_videos.setdefault(found.videos[name.video_id], []).append((text, name, meta))
        else:
            reason = f"neither its frames nor the video '{name.video_id}' are here"
            losses.append(Loss(source=display_name(text), reason=reason))
    for path, clips in from_videos.items():
        source = PurePosixPath(root.name, *path.relative_to(root).parts).as_posix()
        cuts = tuple(_video_cut(text, name, meta, options) for text, name, meta in clips)
        jobs.append(
            VideoJob(key=make_key(source, path.stem), path=path.absolute(), source=display_name(source), cuts=cuts)
        )
    return Inputs(jobs=tuple(jobs), losses=tuple(losses), ignored=tuple(found.ignored))


@dataclass(frozen=True)
class _Place:
    """A folder of frames, on disk or inside an archive."""

    path: Path
    inside: str | None
    is_test: bool


@dataclass
class _Found:
    frames: dict[str, _Place]
    metas: dict[str, MetaInfo]
    videos: dict[str, Path]
    losses: list[Loss]
    ignored: list[str]


def _search(root: Path) -> _Found:
    found = _Found({}, {}, {}, [], [])
    for path in walk_files(root):
        suffix = path.suffix.lower()
        is_test = TEST_FOLDER in path.parts
        if suffix in FRAME_SUFFIXES:
            if path.parent.name.startswith("Clip+"):
                found.frames.setdefault(path.parent.name, _Place(path.parent, None, is_test))
            else:
                found.ignored.append(display_name(path.relative_to(root)))
        elif suffix == ".txt" and path.name.startswith("Clip+"):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.metas[path.stem] = MetaInfo.parse(text, display_name(path))
        elif suffix in ARCHIVE_SUFFIXES:
            try:
                with reading(display_name(path.relative_to(root)), "damaged archive", DataError):
                    _search_archive(path, is_test, found)
            except DataError as error:
                found.losses.append(Loss(source=display_name(path.relative_to(root)), reason=str(error)))
        elif suffix in VIDEO_SUFFIXES:
            found.videos[path.stem] = path
        else:
            found.ignored.append(display_name(path.relative_to(root)))
    return found


def _search_archive(path: Path, is_test: bool, found: _Found) -> None:
    for name, content in archive_members(path):
        inner = PurePosixPath(name)
        if inner.suffix.lower() in FRAME_SUFFIXES:
            folder = inner.parent
            clip = folder.name if folder.name.startswith("Clip+") else path.stem
            if clip.startswith("Clip+"):
                place = _Place(path, folder.as_posix(), is_test or TEST_FOLDER in inner.parts)
                found.frames.setdefault(clip, place)
        elif inner.suffix == ".txt" and inner.name.startswith("Clip+"):
            text = content().decode("utf-8", "replace")
            found.metas[inner.stem] = MetaInfo.parse(text, f"{display_name(path)}:{name}")


def archive_members(path: Path) -> Iterator[tuple[str, _Content]]:
    """Names of the files in a zip or tar, each with a function that reads it while the iteration stands there."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if not info.is_dir():
                    yield info.filename, _Content(partial(archive.open, info))
    else:
        with tarfile.open(path) as archive:
            for member in sorted(_tar_files(archive), key=lambda member: member.name):
                yield member.name, _Content(partial(archive.extractfile, member))


def _tar_files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The plain files; a size below zero would lead the search back to where it was, for ever."""
    for member in archive:
        if member.size < 0:
            raise ValueError(f"the size of the member '{shortened(member.name)}' is {member.size}")
        if member.isfile():
            yield member


@dataclass(frozen=True)
class _Content:
    """Reads one member of an open archive when called."""

    open_member: Callable[[], IO[bytes] | None]

    def __call__(self) -> bytes:
        stream = self.open_member()
        if stream is None:
            return b""
        with stream:
            content = stream.read(MAX_MEMBER_BYTES + 1)
        if len(content) > MAX_MEMBER_BYTES:
            raise ValueError(f"a member has more than {MAX_MEMBER_BYTES} bytes")
        return content


def _frames_job(
    text: str, name: ClipName, meta: MetaInfo | None, place: _Place, fps: Fraction, root: Path, options: PrepareOptions
) -> VideoJob:
    source = PurePosixPath(root.name, text).as_posix()
    guide = b""
    listed = None
    if meta is not None:  # the frames are the crop, perhaps resized: the points move with it
        x0, y0, x1, y1 = meta.crop
        listed = (round(x1 - x0), round(y1 - y0))
        guide = (meta.landmarks - np.array([x0, y0], dtype=np.float32)).tobytes()
    split = choose_split(name.identity, options, "test" if place.is_test else None)
    cut = Cut(identity=name.identity, split=split, listed_size=listed, guide=guide, guide_fps=fps if guide else None)
    return VideoJob(
        key=make_key(source, text),
        path=place.path.absolute(),
        source=display_name(source),
        kind="frames" if place.inside is None else "archive",
        inside=place.inside or "",
        fps=fps,
        cuts=(cut,),
    )


def _video_cut(text: str, name: ClipName, meta: MetaInfo, options: PrepareOptions) -> Cut:
    return Cut(
        name=f"P{name.person}C{name.clip}F{name.first_frame}-{name.end_frame}",
        identity=name.identity,
        split=choose_split(name.identity, options),
        start_s=name.first_frame / meta.fps,
        end_s=name.end_frame / meta.fps,
        box=meta.crop if options.context == "crop" else None,
        listed_size=(meta.width, meta.height),
        guide=meta.landmarks.tobytes(),
        guide_fps=meta.fps if len(meta.landmarks) else None,
    )


def _numbers(words: list[str], count: int, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise UsageError(f"{where}: expected {count} numbers ({error}).") from error
    if len(numbers) != count:
        raise UsageError(f"{where}: expected {count} numbers; got {len(numbers)}.")
    return numbers
