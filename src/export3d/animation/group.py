"""Several faces of one photograph, all by one driver or each by its own, put back into it (not in the paper)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import tee
from pathlib import Path

import numpy as np
import torch

from export3d.animation.animator import Animator
from export3d.animation.combined import Clock
from export3d.animation.driven import driven_frames
from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.parallel import made_beside
from export3d.animation.scene import board_of
from export3d.animation.targets import check_target, is_still
from export3d.animation.transfer import TransferOptions
from export3d.animation.video_output import Output, Progress, VideoOptions, VideoReport
from export3d.errors import FaceCutOffError, FaceTooSmallError, UsageError
from export3d.images import read_image
from export3d.provenance import Finish
from export3d.tracking import LostFaces


def find_everyone(animator: Animator, path: Path, chosen: Sequence[int] | None) -> tuple[list[Animator], list[str]]:
    """An animator for each face of a photograph, from left to right, and why others are left out.

    Args:
        animator: for whole photographs (`framing` photo).
        chosen: numbers of faces from the left, from 0 on; None is all that can be driven.

    Raises:
        NoFaceError, FaceTooSmallError, FaceCutOffError: Nobody can be driven, or one who was chosen cannot.
        UsageError: A number that no face has.
    """
    tracker = animator.tracker
    before, tracker.choice = tracker.choice, "largest"
    try:
        count = 1 + len(tracker.portrait(read_image(path), where=str(path)).others)
        found, left_out = [], []
        for number in range(count) if chosen is None else chosen:
            tracker.choice, other = number, animator.twin()
            try:
                other.portrait(path)
            except (FaceTooSmallError, FaceCutOffError) as error:
                if chosen is not None:
                    raise
                left_out.append(f"face {number} is left out: {error}")
                continue
            found.append(other)
    finally:
        tracker.choice = before
    return found, left_out


class Group:
    """People in one photograph.

    Args:
        animators: one for each, with `Subject.whole`.
        height: of the result in pixels; see `pasteboard`.
    """

    def __init__(self, animators: Sequence[Animator], *, height: int | None) -> None:
        self.animators = list(animators)
        self._boards = [board_of(animator, height=height) for animator in animators]
        self._ground = self._boards[0].photo
        for board in self._boards:
            self._ground = board.emptied(self._ground)
        self._farthest_first = sorted(range(len(self._boards)), key=lambda index: self._boards[index].side)

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.animators[0].device

    def twin(self) -> Group:
        """The same for another thread."""
        other = copy(self)
        other.animators = [animator.twin() for animator in self.animators]
        return other

    def picture(self, frames: Sequence[DrivingFrame]) -> np.ndarray:
        """The photograph, uint8 ``(H, W, 3)``, with each person's face and head as their frame has it."""
        made = self._ground
        for index in self._farthest_first:
            head = self.animators[index].layer(frames[index].state, frames[index].camera)
            made = self._boards[index].lay(head, made)
        return made


def animate_group(
    animators: Sequence[Animator],
    drivers: Sequence[Driver],
    path: Path,
    *,
    video: VideoOptions,
    motion: Sequence[TransferOptions],
    on_lost: str = "hold",
    finish: Finish | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """Drive several people of one photograph; times and sound are the first driver's.

    Args:
        animators: from `find_everyone`.
        drivers: one for all, or one for each. The others are laid on the first one's clock from their first frame on.
        motion: as many as drivers.
        on_lost: for the first driver; the others are held.

    Raises:
        NoFaceError, FaceLostError: See `LostFaces`.
        UsageError: Another number of drivers.
        OutputError: The file cannot be written; nothing is left behind.
    """
    check_drivers(len(animators), len(drivers))
    check_target(path)
    started = time.perf_counter()
    first, lost = drivers[0], LostFaces(on_lost, name=drivers[0].name)
    group = Group(animators, height=video.size)
    frames = _together(animators, drivers, lost, motion=motion, rigid=video.rigid)
    clock = {"time_base": first.time_base, "copy_audio_from": first.audio}
    with Output(path, first.fps, video, finish or Finish(), **clock) as output:
        if is_still(path):
            output.write(next(group.picture(each) for each in frames if each[0].found))
        else:
            for each, image in made_beside(group, frames, lambda each, worker: worker.picture(each), video.workers):
                output.write(image, each[0].pts, each[0].duration)
                if progress is not None:
                    progress(output.num_frames)
    return output.report(started, lost)


def check_drivers(faces: int, drivers: int) -> None:
    """One driver for all, or one for each.

    Raises:
        UsageError: Another number.
    """
    if drivers not in (1, faces):
        raise UsageError(
            f"--driving: {drivers} files for {faces} faces; give one for all of them, or one for each from left to right."
        )


def _together(
    animators: Sequence[Animator],
    drivers: Sequence[Driver],
    lost: LostFaces,
    *,
    motion: Sequence[TransferOptions],
    rigid: bool,
) -> Iterator[list[DrivingFrame]]:
    """At each time of the first driver, a frame for each person."""
    if len(drivers) == 1:  # tracked once for all
        copies = tee(drivers[0], len(animators))
        drivers = [_Copy(drivers[0], frames) for frames in copies]
        motion = [motion[0]] * len(animators)
    policies = [lost, *(LostFaces("hold" if lost.policy == "abort" else lost.policy, name=d.name) for d in drivers[1:])]
    main, *others = (
        driven_frames(animator, driver, policy, motion=how, rigid=rigid)
        for animator, driver, policy, how in zip(animators, drivers, policies, motion, strict=True)
    )
    clocks: list[Clock] = []
    start: int | None = None
    for frame in main:
        if start is None:
            start = frame.pts
            clocks = [Clock(each, driver.time_base) for each, driver in zip(others, drivers[1:], strict=True)]
        now = float((frame.pts - start) * drivers[0].time_base)
        seen = [clock.at(now) for clock in clocks]
        at_rest = [(a.subject.state, a.subject.camera) for a in animators[1:] if a.subject is not None]
        yield [frame, *(one or replace(frame, state=s, camera=c) for one, (s, c) in zip(seen, at_rest, strict=True))]


class _Copy:
    """One of several readers of a driver."""

    def __init__(self, driver: Driver, frames: Iterator[DrivingFrame]) -> None:
        self._driver, self._frames = driver, frames
        self.name, self.fps, self.time_base = driver.name, driver.fps, driver.time_base
        self.num_frames_hint, self.audio, self.problems = driver.num_frames_hint, driver.audio, driver.problems
        self.relative_only = driver.relative_only

    def __iter__(self) -> Iterator[DrivingFrame]:
        return self._frames

    def close(self) -> None:
        self._driver.close()
