"""The clips of one video as they are measured, judged and stored, and the stretches that were dropped (Sec. 4.1)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from export3d.data.clip import Clip, make_meta, validate_clip
from export3d.data.tar_members import clip_bytes
from export3d.preprocess.jobs import Cut, VideoJob, clip_key
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.quality import why_dropped
from export3d.preprocess.results import Drop, KeptClip
from export3d.preprocess.tools import Tools
from export3d.preprocess.tracks import TrackedFace, fixed_crop, measure_clip


class ClipPart:
    """A video's part file with what is in it.

    Attributes:
        clips, drops: What was stored and what was not.
        size: Bytes written.
        seconds: CPU time of each step.
    """

    def __init__(self, job: VideoJob, options: PrepareOptions, tools: Tools, file: BinaryIO) -> None:
        self.job, self.options, self.tools = job, options, tools
        self.clips: list[KeptClip] = []
        self.drops: list[Drop] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.size = 0
        self._file = file

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the CPU time of the block."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - start

    def write(self, cut: Cut, frames: list[TrackedFace], number: int) -> None:
        """Measure, judge and store one clip."""
        fixed = fixed_crop(frames) if self.options.crop == "fixed" else None
        with self.step("coefficients"):
            measured = measure_clip(frames, self.tools.coefficients, fixed, self.tools.read_gaze)
        reason = why_dropped(measured.quality, self.options)
        if reason is not None:
            self.drop_frames(cut, frames, reason)
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
        images = [frame.image for frame in frames if frame.image is not None]
        clip = Clip(key=key, frames=np.stack(images), arrays=measured.arrays, meta=meta)
        with self.step("encode"):
            validate_clip(clip)
            content = clip_bytes(clip, self.options.frame_format)
            self._file.write(content)
        self.clips.append(
            KeptClip(
                key=key,
                cut=cut.name,
                frames=len(frames),
                identity=meta["identity"],
                split=cut.split,
                offset=self.size,
                bytes=len(content),
                start_s=round(start_s, 3),
                end_s=round(end_s, 3),
                quality=meta["quality"],
                yaw_counts=measured.quality.yaw_counts,
                pitch_counts=measured.quality.pitch_counts,
            )
        )
        self.size += len(content)

    def drop_frames(self, cut: Cut, frames: list[TrackedFace], reason: str) -> None:
        """Note frames that did not become a clip."""
        self.drop(cut, float(frames[0].time), float(frames[-1].time), len(frames), reason)

    def drop(self, cut: Cut, start_s: float, end_s: float, frames: int, reason: str) -> None:
        """Note a stretch that did not become a clip."""
        self.drops.append(
            Drop(cut=cut.name, start_s=round(start_s, 3), end_s=round(end_s, 3), frames=frames, reason=reason)
        )


class LostFrames:
    """Collects stretches without a face."""

    def __init__(self, part: ClipPart, cut: Cut) -> None:
        self._part, self._cut = part, cut
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
            self._part.drop(self._cut, float(self._start), float(self._last), self._count, "no face")
        self._start, self._count = None, 0
