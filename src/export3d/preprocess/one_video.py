"""From one video to its clips: decode, resample, find the face, cut, crop, measure, encode (Sec. 4.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

from export3d.errors import Export3DError, ImageSizeError, OutputError, UnreadableVideoError
from export3d.files import publish, temporary_beside
from export3d.preprocess.following import FaceFollower
from export3d.preprocess.frames import FrameStream, SourceFrame, cut_frames, guide_points, passes, read_frames, resample
from export3d.preprocess.jobs import Cut, VideoJob
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.part import ClipPart, LostFrames
from export3d.preprocess.quality import outside_share
from export3d.preprocess.results import VideoResult, fingerprint, part_path
from export3d.preprocess.tools import Tools
from export3d.preprocess.tracks import Track, TrackedFace, fixed_crop, sharpness_of
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
        with open(temporary, "wb") as file:
            part = ClipPart(job, options, tools, file)
            work = _VideoWork(part)
            work.run()
        if part.clips:
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
        clips=tuple(part.clips),
        drops=tuple(part.drops),
        errors=tuple(work.errors),
        part_bytes=part.size,
        seconds={step: round(seconds, 4) for step, seconds in sorted(part.seconds.items())},
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

    def __init__(self, part: ClipPart) -> None:
        self.part, self.job, self.options, self.tools = part, part.job, part.options, part.tools
        self.errors: list[str] = []
        self.num_decoded = self.num_frames = 0
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
        lost = LostFrames(self.part, cut)
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
                with self.part.step("shots"):
                    is_cut = shots.is_cut(frame.image)
                if is_cut:
                    self._end(cut, tracks, list(tracks), "a shot change")
                    follower.reset()
                    self.tools.face_tracker.reset()
                with self.part.step("detect"):
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
            with self.part.step("coefficients"):
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
        with self.part.step("crop"):
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
            self.part.drop_frames(cut, frames, reason)
            return
        number = self._numbers[cut.name]
        self._numbers[cut.name] += 1
        if self.options.crop == "fixed":
            self._segments[cut.name].append(_Segment(cut, frames, number))
        else:
            self.part.write(cut, frames, number)

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
                    with self.part.step("crop"):
                        image = crop_image(frame.image, square, self.options.size)
                        sharpness = sharpness_of(image, seen.face, square)
                    outside = outside_share(square, width, height)
                    filled[place].append(replace(seen, image=image, sharpness=sharpness, outside=outside))
                    if not waiting[place]:
                        self.part.write(cut, filled[place], segments[place].number)
                        filled[place] = []
        except (UnreadableVideoError, ImageSizeError):
            pass  # the first pass met the same damage and has noted it; all its segments end before
        for place, segment in enumerate(segments):
            if waiting[place]:
                self.part.drop_frames(cut, segment.frames, "lost between the two passes of a fixed crop")

    def _note_error(self, error: Export3DError, cut: Cut) -> None:
        text = str(error).replace(str(self.job.path), self.job.source)
        self.errors.append(f"{cut.name}: {text}" if cut.name else text)

    def _timed(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        while True:
            with self.part.step("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
