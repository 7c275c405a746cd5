"""VFHQ's layout: clip names, meta_info files, archives of PNG frames, own downloads (docs/data.md)."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from export3d.errors import DataError
from export3d.preprocess.folder import choose_split, walk_files
from export3d.preprocess.jobs import VIDEO_SUFFIXES, Cut, Inputs, Loss, VideoJob, display_name, inside, make_key
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.vfhq_meta import ClipName, MetaInfo, exact_fps
from export3d.reading import reading, shortened

FRAME_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))
ARCHIVE_SUFFIXES = frozenset((".zip", ".tar"))
TEST_FOLDER = "VFHQ-Test"
"""Clips below a folder of this name are the official test split of 50."""

MAX_MEMBER_BYTES = 1 << 28
"""Of a picture or a list in an archive, unpacked."""


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
            split = choose_split(name.identity, options, "test" if place.is_test else None)
            cut = Cut(identity=name.identity, split=split)
            jobs.append(_frames_job(PurePosixPath(root.name, text), meta, place, fps, cut))
        elif meta is not None and name.video_id in found.videos:
            from_videos.setdefault(found.videos[name.video_id], []).append((text, name, meta))
        else:
            reason = f"neither its frames nor the video '{name.video_id}' are here"
            losses.append(Loss(source=display_name(text), reason=reason))
    for path, clips in from_videos.items():
        cuts = (_video_cut(text, name, meta, options) for text, name, meta in clips)
        jobs.append(VideoJob.of_video(inside(root, path), path, cuts))
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


def archive_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of the files in a zip or tar, each with a function that reads it while the iteration stands there."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if not info.is_dir():
                    yield info.filename, partial(_read_member, partial(archive.open, info))
    else:
        with tarfile.open(path) as archive:
            for member in sorted(_tar_files(archive), key=lambda member: member.name):
                yield member.name, partial(_read_member, partial(archive.extractfile, member))


def _tar_files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The plain files; a size below zero would lead the search back to where it was, for ever."""
    for member in archive:
        if member.size < 0:
            raise ValueError(f"the size of the member '{shortened(member.name)}' is {member.size}")
        if member.isfile():
            yield member


def _read_member(open_member: Callable[[], IO[bytes] | None]) -> bytes:
    stream = open_member()
    if stream is None:
        return b""
    with stream:
        content = stream.read(MAX_MEMBER_BYTES + 1)
    if len(content) > MAX_MEMBER_BYTES:
        raise ValueError(f"a member has more than {MAX_MEMBER_BYTES} bytes")
    return content


def _frames_job(source: PurePosixPath, meta: MetaInfo | None, place: _Place, fps: Fraction, cut: Cut) -> VideoJob:
    """`cut`: identity and split; what the meta file says is added."""
    if meta is not None:  # the frames are the crop, perhaps resized: the points move with it
        x0, y0, x1, y1 = meta.crop
        guide = (meta.landmarks - np.array([x0, y0], dtype=np.float32)).tobytes()
        cut = replace(cut, listed_size=(round(x1 - x0), round(y1 - y0)), guide=guide, guide_fps=fps if guide else None)
    return VideoJob(
        key=make_key(source.as_posix(), source.name),
        path=place.path.absolute(),
        source=display_name(source.as_posix()),
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
