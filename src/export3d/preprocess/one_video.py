"""From one video to its clips: decode, resample, find the face, cut, crop, measure, encode (Sec. 4.1)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from export3d.data.clip import Clip, make_meta, validate_clip
from export3d.data.tar_members import clip_bytes
from export3d.errors import Export3DError, ImageSizeError, OutputError, UnreadableVideoError
from export3d.files import publish, temporary_beside
from export3d.preprocess.cut_names import clip_key
from export3d.preprocess.following import FaceFollower
from export3d.preprocess.frames import (
    FrameStream,
    SourceFrame,
    cut_frames,
    guide_points,
    passes,
    read_frames,
    resample,
)
from export3d.preprocess.jobs import Cut, VideoJob
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.quality import outside_share, why_dropped
from export3d.preprocess.results import Drop, KeptClip, VideoResult, fingerprint, part_path
from export3d.preprocess.tools import Tools
from export3d.preprocess.tracks import Track, TrackedFace, fixed_crop, measure_clip, sharpness_of
from export3d.tracking import Face, ObservingModel, crop_image, crop_transform
from export3d.tracking.shots import ShotDetector


def prepare_video(job: VideoJob, options: PrepareOptions, tools: Tools, staging: Path, records: Path) -> VideoResult:
    """Do all the work of one video and leave its clips and its record.

    The part file is complete before the record appears, so a record says that the video is done.

    Args:
        staging: folder for `<key>.part`, the clips as tar records.
        records: folder for `<key>.json`.

    Returns:
        The record; problems of the video itself are in it.

    Raises:
        OutputError: Something cannot be written.
        UsageError: The tools cannot work with these options.
    """
    target = part_path(staging, job.key)
    temporary = temporary_beside(target)
    print_ = fingerprint(job)
    try:
        with open(temporary, "wb") as part:
            work = _VideoWork(job, options, tools, part)
            work.run()
        if work.clips:
            publish(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error}). Check folder and disk.") from error
    finally:
        temporary.unlink(missing_ok=True)
    result = VideoResult(
        key=job.key,
        source=job.source,
        fingerprint=print_,
        extractor=asdict(tools.coefficients.info),
        num_decoded=work.num_decoded,
        num_frames=work.num_frames,
        clips=tuple(work.clips),
        drops=tuple(work.drops),
        errors=tuple(work.errors),
        part_bytes=work.part_bytes,
        seconds={step: round(seconds, 4) for step, seconds in sorted(work.seconds.items())},
    )
    result.save(records)
    return result


@dataclass(frozen=True)
class _Segment:
    """A clip of a fixed crop between the two passes."""

    cut: Cut
    frames: list[TrackedFace]  # without pictures
    number: int


class _VideoWork:
    """The state of one video's preparation."""

    def __init__(self, job: VideoJob, options: PrepareOptions, tools: Tools, part: BinaryIO) -> None:
        self.job, self.options, self.tools = job, options, tools
        self.clips: list[KeptClip] = []
        self.drops: list[Drop] = []
        self.errors: list[str] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.num_decoded = self.num_frames = self.part_bytes = 0
        self._part = part
        self._numbers: dict[str, int] = defaultdict(int)
        self._segments: dict[str, list[_Segment]] = defaultdict(list)

    def run(self) -> None:
        """All cuts, with one decoding for each group of cuts that follow each other."""
        for group in passes(self.job.cuts):
            stream = FrameStream(self._timed(read_frames(self.job)))
            for cut in group:
                self._follow_cut(stream, cut)
            self.num_decoded += stream.num_read
            if self.options.crop == "fixed":
                stream = FrameStream(self._timed(read_frames(self.job)))
                for cut in group:
                    self._fill_segments(stream, cut)

    def _follow_cut(self, stream: FrameStream, cut: Cut) -> None:
        """First pass: faces, tracks; with the aligned crop also the pictures and the clips."""
        follower = FaceFollower(self.options.faces == "all")
        shots = ShotDetector(self.options.shot_threshold)
        self.tools.face_tracker.reset()
        tracks: dict[int, Track] = {}
        lost = _LostFrames(self, cut)
        previous: SourceFrame | None = None
        first_time = Fraction(0)
        why = "the end"
        try:
            for number, frame in resample(cut_frames(stream, cut), Fraction(self.options.fps)):
                self.num_frames += 1
                if previous is not None and frame.index == previous.index:  # a slow source: the same picture again
                    for track in tracks.values():
                        track.frames.append(replace(track.frames[-1], number=number))
                    lost.repeat()
                    continue
                first_time = first_time if previous is not None else frame.time
                previous = frame
                with self._step("shots"):
                    is_cut = shots.is_cut(frame.image)
                if is_cut:
                    self._end(cut, tracks, list(tracks), "a shot change")
                    follower.reset()
                    self.tools.face_tracker.reset()
                with self._step("detect"):
                    faces = self.tools.face_tracker.detect(frame.image)
                found = follower.update(faces, guide_points(cut, frame, first_time))
                self._end(cut, tracks, [track for track in tracks if track not in found], "a lost face")
                for track_id, face in found.items():
                    track = tracks.setdefault(track_id, Track())
                    track.frames.append(self._look(number, frame, face))
                    full = track.take_full(self.options)
                    if full is not None:
                        self._finish(cut, full, "")
                lost.update(frame.time, bool(found))
        except (UnreadableVideoError, ImageSizeError) as error:
            self._note_error(error, cut)
            why = "damage in the file"
        self._end(cut, tracks, list(tracks), why)
        lost.finish()

    def _look(self, number: int, frame: SourceFrame, face: Face) -> TrackedFace:
        coefficients = self.tools.coefficients
        crop = crop_transform(face.landmarks_px, coefficients.alignment)
        height, width = frame.image.shape[:2]
        observed = None
        if isinstance(coefficients, ObservingModel):
            with self._step("coefficients"):
                observed = coefficients.observe(frame.image, face, crop)
        seen = TrackedFace(
            number=number,
            time=frame.time,
            face=face,
            crop=crop,
            outside=outside_share(crop, width, height),
            observed=observed,
        )
        if self.options.crop == "fixed":
            return seen
        with self._step("crop"):
            image = crop_image(frame.image, crop, self.options.size)
            return replace(seen, image=image, sharpness=sharpness_of(image, face, crop))

    def _end(self, cut: Cut, tracks: dict[int, Track], ended: list[int], why: str) -> None:
        for track_id in ended:
            for piece in tracks.pop(track_id).take_rest(self.options):
                self._finish(cut, piece, why)

    def _finish(self, cut: Cut, frames: list[TrackedFace], why: str) -> None:
        """A stretch of one face is complete."""
        if len(frames) < self.options.min_frames:
            reason = f"too short ({len(frames)} frames; --min-frames {self.options.min_frames}), up to {why}"
            self._drop(cut, frames, reason)
            return
        number = self._numbers[cut.name]
        self._numbers[cut.name] += 1
        if self.options.crop == "fixed":
            self._segments[cut.name].append(_Segment(cut, frames, number))
        else:
            self._write(cut, frames, number)

    def _fill_segments(self, stream: FrameStream, cut: Cut) -> None:
        """Second pass of a fixed crop: the squares are known now, cut out the pictures."""
        segments = self._segments.pop(cut.name, [])
        squares = [fixed_crop(segment.frames) for segment in segments]
        waiting: list[dict[int, TrackedFace]] = [{f.number: f for f in segment.frames} for segment in segments]
        filled: list[list[TrackedFace]] = [[] for _ in segments]
        try:
            for number, frame in resample(cut_frames(stream, cut), Fraction(self.options.fps)):
                height, width = frame.image.shape[:2]
                for place, square in enumerate(squares):
                    seen = waiting[place].pop(number, None)
                    if seen is None:
                        continue
                    with self._step("crop"):
                        image = crop_image(frame.image, square, self.options.size)
                        sharpness = sharpness_of(image, seen.face, square)
                    outside = outside_share(square, width, height)
                    filled[place].append(replace(seen, image=image, sharpness=sharpness, outside=outside))
                    if not waiting[place]:
                        self._write(cut, filled[place], segments[place].number)
                        filled[place] = []
        except (UnreadableVideoError, ImageSizeError):
            pass  # the first pass met the same damage and has noted it; all its segments end before
        for place, segment in enumerate(segments):
            if waiting[place]:
                self._drop(cut, segment.frames, "lost between the two passes of a fixed crop")

    def _write(self, cut: Cut, frames: list[TrackedFace], number: int) -> None:
        """Measure, judge and store one clip."""
        fixed = fixed_crop(frames) if self.options.crop == "fixed" else None
        with self._step("coefficients"):
            measured = measure_clip(frames, self.tools.coefficients, fixed, self.tools.read_gaze)
        reason = why_dropped(measured.quality, self.options)
        if reason is not None:
            self._drop(cut, frames, reason)
            return
        key = clip_key(self.job, cut, number)
        start_s, end_s = float(frames[0].time), float(frames[-1].time)
        tracker = self.tools.face_tracker.info
        meta = make_meta(
            key=key,
            num_frames=len(frames),
            size=self.options.size,
            fps=self.options.fps,
            frame_format=self.options.frame_format,
            identity=cut.identity or self.job.source,
            source=self.job.source,
            extractor=asdict(self.tools.coefficients.info),
            split=cut.split,
            quality=measured.quality.to_meta(),
            extra={
                "cut": cut.name,
                "crop": self.options.crop,
                "start_s": round(start_s, 6),
                "end_s": round(end_s, 6),
                "face_tracker": {"name": tracker.name, "version": tracker.version, "sha256": tracker.sha256},
            },
        )
        clip = Clip(key=key, frames=_stack(frames), arrays=measured.arrays, meta=meta)
        with self._step("encode"):
            validate_clip(clip)
            content = clip_bytes(clip, self.options.frame_format)
            self._part.write(content)
        self.clips.append(
            KeptClip(
                key=key,
                cut=cut.name,
                frames=len(frames),
                identity=meta["identity"],
                split=cut.split,
                offset=self.part_bytes,
                bytes=len(content),
                start_s=round(start_s, 3),
                end_s=round(end_s, 3),
                quality=meta["quality"],
                yaw_counts=measured.quality.yaw_counts,
                pitch_counts=measured.quality.pitch_counts,
            )
        )
        self.part_bytes += len(content)

    def _drop(self, cut: Cut, frames: list[TrackedFace], reason: str) -> None:
        self.drop(cut, float(frames[0].time), float(frames[-1].time), len(frames), reason)

    def drop(self, cut: Cut, start_s: float, end_s: float, frames: int, reason: str) -> None:
        """Note a stretch that did not become a clip."""
        self.drops.append(
            Drop(cut=cut.name, start_s=round(start_s, 3), end_s=round(end_s, 3), frames=frames, reason=reason)
        )

    def _note_error(self, error: Export3DError, cut: Cut) -> None:
        text = str(error).replace(str(self.job.path), self.job.source)
        self.errors.append(f"{cut.name}: {text}" if cut.name else text)

    def _timed(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        while True:
            with self._step("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - start


class _LostFrames:
    """Collects stretches without a face."""

    def __init__(self, work: _VideoWork, cut: Cut) -> None:
        self._work, self._cut = work, cut
        self._start: Fraction | None = None
        self._last = Fraction(0)
        self._count = 0

    def update(self, time_s: Fraction, found: bool) -> None:
        """The next frame."""
        if found:
            self.finish()
            return
        if self._start is None:
            self._start = time_s
        self._last = time_s
        self._count += 1

    def repeat(self) -> None:
        """The previous frame again."""
        if self._start is not None:
            self._count += 1

    def finish(self) -> None:
        """A face again, or the end."""
        if self._start is not None:
            self._work.drop(self._cut, float(self._start), float(self._last), self._count, "no face")
        self._start, self._count = None, 0


def _stack(frames: list[TrackedFace]) -> np.ndarray:
    images = [frame.image for frame in frames if frame.image is not None]
    return np.stack(images)
