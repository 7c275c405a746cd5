"""A driver's frames as one portrait takes them: lost faces held, the motion carried over, the head held to what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from export3d.animation.animator import Animator
from export3d.animation.drivers import Driver, DrivingFrame
from export3d.animation.framing import anchored, facing, turned_by
from export3d.animation.lost import hold_lost
from export3d.animation.regions import BetaReading
from export3d.animation.transfer import AHEAD, TransferOptions, transfer
from export3d.portrait import PortraitModel
from export3d.tracking import LostFaces


def driven_frames(
    animator: Animator,
    driver: Driver,
    lost: LostFaces,
    *,
    motion: TransferOptions,
    rigid: bool,
    pictures: bool = False,
) -> Iterator[DrivingFrame]:
    """A driver's frames with the face and camera that the animator's portrait takes; `pictures` keeps the driver's own."""
    subject = animator.current()
    held = hold_lost(driver, lost, subject.state, subject.camera)
    motion = replace(motion, relative=motion.relative or driver.relative_only)  # a voice knows no face of its own
    portrait = {"own": subject.state, "camera": subject.camera, "reading": BetaReading.of(animator.model)}
    portrait["maps"] = animator.weight_maps
    frames = held if pictures else (replace(frame, image=None) for frame in held)
    frames = transfer(frames, motion, time_base=driver.time_base, ahead=AHEAD, **portrait)
    for frame in within_reach(frames, animator, motion):
        yield replace(frame, state=replace(frame.state, turn=None) if rigid else turned_by(frame.state, frame.camera))


def within_reach(frames: Iterator[DrivingFrame], animator: Animator, motion: TransferOptions) -> Iterator[DrivingFrame]:
    """Frames whose head goes and turns no farther than the animator's portrait shows it; the paper's model has no limits."""
    subject = animator.current()
    if not isinstance(animator.model, PortraitModel):
        return frames
    held_to = anchored if subject.whole else facing
    return held_to(frames, subject.camera, motion.strengths["pose"], relative=motion.relative)
