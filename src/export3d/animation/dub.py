"""A film as the source: each frame is a portrait of its own, of which a driver changes parts; the rest stays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from export3d.animation.animator import Animator
from export3d.animation.combined import Clock
from export3d.animation.drivers import ClipDriver, Driver, DrivingFrame
from export3d.animation.lost import hold_lost
from export3d.animation.parallel import made_beside
from export3d.animation.person import crop_places, planes
from export3d.animation.regions import FACE_REGIONS, MOUTH, BetaReading, Strengths, mixed_state
from export3d.animation.transfer import TransferOptions, smooth, transfer
from export3d.animation.video_output import Output, Progress, VideoOptions, VideoReport
from export3d.animation.weights import MouthReading
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.landmarks import LEFT_EYE, RIGHT_EYE
from export3d.provenance import Finish
from export3d.tracking import Crop, LostFaces

Until = Literal["loop", "hold", "shortest"]

DUBBED = {name: float(name in MOUTH) for name in (*FACE_REGIONS, "pose")}
"""What a film takes from its driver when nothing else is said."""

SIGMA_S = 0.04
"""The film's own face is averaged over such a Gaussian, so that the tracker's jitter does not show."""

_LOWER_FACE = (*range(2, 15), *range(35, 30, -1))
_BOTH_EYES = tuple(tuple(range(eye.start, eye.stop)) for eye in (LEFT_EYE, RIGHT_EYE))

OUTLINES: dict[str, tuple[tuple[int, ...], ...]] = {
    "lips": (_LOWER_FACE,),
    "jaw": (_LOWER_FACE,),
    "eyes": _BOTH_EYES,
    "brows": ((17, 18, 19, 20, 21, 39, 36), (22, 23, 24, 25, 26, 45, 42)),
    "gaze": _BOTH_EYES,
}
"""Region -> outlines of what it moves, among the 68 landmarks. Lips pull at the cheeks, and the jaw at both."""

GROWTH, RIM = 0.05, 0.02
"""A mask is so much wider than its outlines, and so soft at its rim, as shares of the crop's side."""

CLOSE = 0.01
"""Farther outside than this only the driven head itself is taken, not what the model puts behind it."""

_MASK_PX = 256
_NEAR = 5  # pixels of the mask
_UNSEEN, _SEEN = 1.0, 4.0  # levels of change, mean of what is near: the film's pixels, those that were made


@dataclass(frozen=True, kw_only=True)
class DubOptions:
    """What a film takes from its driver, and how long it lasts."""

    strengths: Strengths = field(default_factory=lambda: dict(DUBBED))
    """How far each region of the face goes with the driver; the head's pose is the film's."""

    until: Until | None = None
    """As long as the driver: the film starts again (`loop`), or its last frame stays (`hold`); or as long as the shorter of
    the two. None: the film's own length, with the driver's last face where the driver is shorter."""

    driver_sound: bool = False
    """The driver's sound instead of the film's."""

    def __post_init__(self) -> None:
        if self.strengths["pose"] > 0.0:
            raise UsageError(
                "a film as --source keeps its own head pose; choose --regions among "
                f"{', '.join(FACE_REGIONS)}, or give a photo as --source."
            )
        if not any(self.strengths.values()):
            raise UsageError("nothing of the film would change: no region has a strength above 0.")


def dub_video(
    animator: Animator,
    open_source: Callable[[], ClipDriver],
    driver: Driver,
    path: Path,
    *,
    dub: DubOptions,
    video: VideoOptions,
    motion: TransferOptions,
    on_lost: str = "hold",
    finish: Finish | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """Change parts of the face in every frame of a film as a driver's face moves.

    Outside `region_mask` no pixel changes, nor does any of a frame without a face. Times are the film's; the driver's newest
    face at each of them is taken, both from their first frame on.

    Args:
        open_source: gives the film from its start; called again for each round.
        motion: how the driver's face reaches the film's; its strengths are not used.
        on_lost: `hold` keeps frames of the film without a face as they are; see `LostFaces`.

    Raises:
        NoFaceError, FaceLostError: Of film or driver, see `LostFaces`.
        SourceNotAllowedError: It is not one of the allowed portraits.
        OutputError: The file cannot be written; nothing is left behind.
    """
    started = time.perf_counter()
    source = open_source()
    try:
        lost, sound = LostFaces(on_lost, name=source.name), driver.audio if dub.driver_sound else source.audio
        frames = _allowed(_rounds(source, open_source, dub.until, lost), animator, Path(source.name))
        pairs = _pairs(frames, source.time_base, animator, driver, dub=dub, motion=motion)
        finish = finish or Finish()
        with Output(path, source.fps, video, finish, time_base=source.time_base, copy_audio_from=sound) as output:
            picture = partial(_picture, strengths=dub.strengths)
            for (frame, _), image in made_beside(animator, pairs, picture, video.workers):
                output.write(image, frame.pts, frame.duration)
                if progress is not None:
                    progress(output.num_frames)
    finally:
        source.close()
    return output.report(started, lost)


def _rounds(
    source: ClipDriver, open_source: Callable[[], ClipDriver], until: Until | None, lost: LostFaces
) -> Iterator[DrivingFrame]:
    """The film's frames, their faces smoothed; then, without an end, the film again (loop) or its last frame (hold)."""
    last: DrivingFrame | None = None
    for last in _smoothed(source, lost):
        yield last
    while last is not None and until == "hold":
        last = replace(last, pts=last.pts + last.duration)
        yield last
    while last is not None and until == "loop":
        after, first = last.pts + last.duration, None
        with closing(open_source()) as again:
            for frame in _smoothed(again, LostFaces(lost.policy, name=again.name)):
                first = frame.pts if first is None else first
                last = replace(frame, pts=frame.pts - first + after)
                yield last


def _smoothed(source: ClipDriver, lost: LostFaces) -> Iterator[DrivingFrame]:
    """The frames that `lost` keeps; crops and cameras are as each picture has them, so that the face stays in its place."""

    def kept() -> Iterator[DrivingFrame]:
        for frame in source:
            if lost.keeps(frame, index=frame.index, time_s=float(frame.pts * source.time_base)):
                yield frame
        lost.require_a_face()

    seen, calmed = tee(kept())
    for calm, frame in zip(smooth(calmed, SIGMA_S, source.time_base), seen, strict=True):
        yield replace(frame, state=calm.state)


def _allowed(frames: Iterator[DrivingFrame], animator: Animator, source: Path) -> Iterator[DrivingFrame]:
    """The frames; where a shot begins, or a face comes back, it must be one of the allowed ones, or the film itself is."""
    known = -2
    for frame in frames:
        if frame.found and animator.allowed is not None and frame.image is not None:
            if frame.cut or frame.index != known + 1:
                animator.allowed.check(frame.image, source, f"{source}, frame {frame.index}")
            known = frame.index
        yield frame


def _pairs(
    frames: Iterator[DrivingFrame],
    time_base: Fraction,
    animator: Animator,
    driver: Driver,
    *,
    dub: DubOptions,
    motion: TransferOptions,
) -> Iterator[tuple[DrivingFrame, FaceState | None]]:
    """Each frame with the face it shall have, and its own face; None where it has none."""
    reading = BetaReading.of(animator.model)
    clock, start, maps = None, None, animator.weight_maps
    lips = None if maps is None else MouthReading(maps)
    for frame in frames:
        start = frame.pts if start is None else start
        now, own = float((frame.pts - start) * time_base), None
        if frame.found:
            own = animator.own_state(frame.state, frame.camera)
            own = own if lips is None else lips.applied(own, frame.state)  # as the driver's are read
            if clock is None:
                clock = _clock(driver, motion, own, frame, animator)
        other = None if clock is None else clock.at(now)
        if dub.until is not None and clock is not None and clock.is_over(now):
            return
        if own is not None:
            state = own if other is None else mixed_state(own, other.state, dub.strengths, reading)
            frame = replace(frame, state=replace(state, turn=own.turn))
        yield frame, own


def _clock(driver: Driver, motion: TransferOptions, own: FaceState, frame: DrivingFrame, animator: Animator) -> Clock:
    """The driver's faces, as they are for the film's first one."""
    motion = replace(motion, strengths=dict.fromkeys(DUBBED, 1.0))  # regions are mixed frame by frame
    if driver.relative_only:  # a voice knows no face of its own: at rest, it has the mean one
        motion = replace(motion, relative=True)
        own = animator.own_state(FaceState(beta=torch.zeros_like(own.beta), gaze=own.gaze), frame.camera)
    held = hold_lost(driver, LostFaces("hold", name=driver.name), own, frame.camera)
    face = {"own": own, "camera": frame.camera, "maps": animator.weight_maps}
    moved = transfer(held, motion, **face, time_base=driver.time_base)
    return Clock(moved, driver.time_base)


def _picture(pair: tuple[DrivingFrame, FaceState | None], worker: Animator, *, strengths: Strengths) -> np.ndarray:
    """One picture of the result, uint8 ``(H, W, 3)``."""
    frame, own = pair
    assert frame.image is not None  # a clip's frames have one
    if own is None or frame.crop is None or frame.landmarks is None:
        return frame.image
    worker.encode(frame.image, frame.crop, own, frame.camera, landmarks=frame.landmarks)
    still = worker.frame(own, frame.camera)
    made, mask = worker.frame(frame.state, frame.camera), region_mask(frame.landmarks, strengths)
    opacity = worker.render(frame.state, frame.camera).image_opacity
    if opacity is not None:  # what is behind a head that is seen from the side stays the film's
        head = F.interpolate(opacity.float().cpu(), size=mask.shape[-2:], mode="area")[0]
        mask = torch.maximum(region_mask(frame.landmarks, strengths, CLOSE), mask * head)
    return patched(frame.image, made, frame.crop, mask * _changed(still, made))


def _changed(still: np.ndarray, made: np.ndarray) -> Tensor:
    """``(1, M, M)`` in [0, 1]: where the driver changes the picture. Elsewhere the film's own pixels are the better ones."""
    difference = np.abs(made.astype(np.int16) - still).mean(axis=2).astype(np.float32)
    levels = F.interpolate(torch.from_numpy(difference)[None, None], size=(_MASK_PX, _MASK_PX), mode="area")
    near = F.avg_pool2d(levels, 2 * _NEAR + 1, 1, _NEAR, count_include_pad=False)[0]
    return ((near - _UNSEEN) / (_SEEN - _UNSEEN)).clamp(0.0, 1.0)


def region_mask(landmarks: np.ndarray, strengths: Strengths, growth: float = GROWTH) -> Tensor:
    """``(1, S, S)`` in [0, 1]: where in the crop the regions lie that go with the driver, soft at the rim.

    Args:
        landmarks: ``(68, 2)`` in [0, 1] of the crop.
        growth: see `GROWTH`.
    """
    picture = Image.new("L", (_MASK_PX, _MASK_PX))
    draw, width = ImageDraw.Draw(picture), round(2 * growth * _MASK_PX)
    for points in {points for name, each in OUTLINES.items() if strengths[name] > 0.0 for points in each}:
        outline = [(float(x), float(y)) for x, y in landmarks[list(points)] * _MASK_PX]
        draw.polygon(outline, fill=255)
        draw.line([*outline, *outline[:2]], fill=255, width=width, joint="curve")
    soft = np.array(picture.filter(ImageFilter.GaussianBlur(min(RIM, growth) * _MASK_PX)), dtype=np.float32) / 255.0
    soft[[0, -1]] = soft[:, [0, -1]] = 0.0
    return torch.from_numpy(soft)[None]


def patched(image: np.ndarray, made: np.ndarray, crop: Crop, mask: Tensor) -> np.ndarray:
    """A frame uint8 ``(H, W, 3)`` with the picture ``(S, S, 3)`` of its crop where the crop's mask ``(1, M, M)`` is above 0."""
    reach = crop.side / 2.0 * (abs(math.cos(crop.angle)) + abs(math.sin(crop.angle)))
    centre, size = np.array([crop.center_x, crop.center_y]), np.array(image.shape[1::-1])
    x0, y0 = np.floor(centre - reach).clip(0, size - 1).astype(int).tolist()
    x1, y1 = np.ceil(centre + reach).clip(1, size).astype(int).tolist()
    moved = replace(crop, center_x=crop.center_x - x0, center_y=crop.center_y - y0)
    grid = crop_places(moved, (y1 - y0, x1 - x0))[None] * 2.0 - 1.0
    share = F.grid_sample(mask[None], grid, "bilinear", "zeros", align_corners=False)[0]
    square = planes(made)[None]
    if square.shape[-1] > 1.5 * crop.side:  # a small face: averaged first, or it would sparkle
        square = F.interpolate(square, size=[max(round(crop.side), 1)] * 2, mode="area")
    part = planes(image[y0:y1, x0:x1])
    part += share * (F.grid_sample(square, grid, "bicubic", "border", align_corners=False)[0] - part)
    result = image.copy()
    result[y0:y1, x0:x1] = part.round_().clamp_(0.0, 255.0).permute(1, 2, 0).byte().numpy()
    return result
