"""From the driving motion to the portrait's: absolute or relative, expression, pose or both, and smoothing.

Faces are handled whole, field by field: a new field of `FaceState` needs no change here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from export3d.animation.drivers import DrivingFrame
from export3d.animation.regions import REGIONS, BetaReading, Strengths, mixed_camera, mixed_state
from export3d.animation.weights import WeightTransfer
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.portrait import WeightMaps
from export3d.tracking import Crop
from export3d.tracking.gaze import GAZE_LIMIT_RAD
from export3d.tracking.head_fit import HeadPose
from export3d.tracking.smoothing import REACH, Track, smoothed_at

AHEAD = 25
"""Frames of a file by which a driver's face at rest is known from the start: about a second. Without them brows and lids of
short clips are off until the face has shown itself."""

LIMITS: dict[str, tuple[float, float]] = {"gaze": (-GAZE_LIMIT_RAD, GAZE_LIMIT_RAD), "weights": (0.0, 1.0)}
"""Field -> where a relative motion ends; other fields have no end."""


FARTHEST_ASIDE = 0.4
"""A moving head goes no farther from the middle of the picture, scene units: more than half of it stays to be seen."""

DISTANCES = (1.9, 4.5)
"""Nearest and farthest place of a moving head, scene units."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How the driving motion reaches the portrait. The default is the paper's: expression and camera as they are."""

    strengths: Strengths = field(default_factory=lambda: dict.fromkeys(REGIONS, 1.0))
    """How far each region goes with the driver: 0 keeps the portrait's own, 1 takes the driver's, 2 overdoes it."""

    relative: bool = False
    """Add the driver's change since its neutral face to the portrait's own expression, pose and gaze."""

    neutral: DrivingFrame | None = None
    """With `relative`: the driver's neutral face (`neutral_face`); its first one when None."""

    shift: bool = True
    """Let the head move in the picture as the driver's does from its first frame on: aside, up and down, nearer and
    farther. Else it stays where the driver's crop puts it."""

    smooth_s: float = 0.0
    """Standard deviation in seconds of a centred Gaussian over face and camera; 0 leaves them as tracked."""

    def __post_init__(self) -> None:
        if self.neutral is not None and not self.relative:
            raise UsageError("--neutral is the face that --relative starts from; give --relative too.")
        if self.smooth_s < 0:
            raise UsageError(f"the smoothing time must not be negative; got {self.smooth_s} s.")


def transfer(
    frames: Iterable[DrivingFrame],
    options: TransferOptions,
    *,
    own: FaceState,
    camera: np.ndarray,
    time_base: Fraction,
    reading: BetaReading | None = None,
    maps: WeightMaps | None = None,
    ahead: int = 0,
) -> Iterator[DrivingFrame]:
    """Driving frames -> frames with the face and camera that the portrait shall take.

    Args:
        own: the portrait's own face.
        reading: tells the regions of a face apart (`BetaReading.of`); not needed where all go equally far.
        camera: ``(25,)``, the portrait's own camera.
        time_base: clock of the frames' `pts`, seconds per unit.
        maps: what beta and single weights tell of each other (the portrait model's); None: the model has none.
        ahead: so many frames of faces that are seen are read before the first is given (`AHEAD`; 0 where each counts at once).

    Raises:
        UsageError: The driver tells single weights alone, and the model reads none.
    """
    if options.shift:
        frames = move_in_plane(frames)
    if options.smooth_s > 0:
        frames = smooth(frames, options.smooth_s, time_base)
    first = options.neutral
    weights = WeightTransfer(own, maps)
    frames, coming = _looked_ahead(frames, 0 if options.relative else ahead)
    weights.expect([frame.state for frame in coming if frame.found])
    for frame in frames:
        told, blind = frame.state, bool(frame.state.beta.isnan().any())
        if blind:
            if maps is None or own.weights is None:
                raise UsageError("the driver tells single weights alone, which only the portrait model reads.")
            frame = replace(frame, state=replace(told, beta=own.beta))
        state, seen = frame.state, frame.camera
        if options.relative:
            if frame.found:  # each number has its own first time: the first frame may be a blink, of unknown gaze
                first = frame if first is None else replace(first, state=first_known(first.state, frame.state))
            if first is None:  # nothing to compare with yet: the portrait at rest
                state, seen = own, camera
            else:
                state = relative_state(state, first.state, own)
                seen = relative_camera(seen, first.camera, camera)
            if blind and maps is not None and state.weights is not None:
                state = replace(state, beta=maps.adjusted(own.beta, state.weights))
        else:
            state = weights(told, frame.found, frame.voiced)
        state = mixed_state(own, state, options.strengths, reading)
        yield replace(frame, state=state, camera=mixed_camera(camera, seen, options.strengths["pose"]))


def _looked_ahead(frames: Iterable[DrivingFrame], count: int) -> tuple[Iterator[DrivingFrame], list[DrivingFrame]]:
    """The frames, and the first ones of them; of senders and takes, which tell weights alone, none is waited for."""
    frames = iter(frames)
    coming = list(islice(frames, min(count, 1)))
    if coming and not coming[0].state.beta.isnan().any():
        coming += islice(frames, count - 1)
        return chain(coming, frames), coming
    return chain(coming, frames), []


def neutral_face(
    frames: Iterable[DrivingFrame], *, time_base: Fraction, shift: bool, at_s: float | None = None
) -> DrivingFrame:
    """The driver's frame at a time, or the one whose face is nearest to its median over the clip: a face at rest.

    Args:
        shift: as in `TransferOptions`, so that its camera can be compared.
        at_s: seconds; None looks for the frame. All of a clip's frames are read then.

    Raises:
        UsageError: No face at that time, or none at all.
    """
    seen: list[DrivingFrame] = []
    for frame in move_in_plane(frames) if shift else frames:
        if not frame.found:
            continue
        seen.append(replace(frame, image=None))
        if at_s is not None and float(frame.pts * time_base) >= at_s - 1e-6:
            return seen[-1]
    if at_s is not None or not seen:
        raise UsageError(
            f"--neutral {'auto' if at_s is None else at_s}: the driver has no face at that time or after it."
        )
    faces = torch.cat([frame.state.beta for frame in seen])
    return seen[int((faces - faces.median(dim=0).values).norm(dim=1).argmin())]


def move_in_plane(frames: Iterable[DrivingFrame]) -> Iterator[DrivingFrame]:
    """Driving frames whose cameras belong to one square of the driver's picture, that of the first face, instead of each
    to its own. After a cut that square is set anew, so that the head goes on from where it was."""
    window = last = seen = None
    cut = False
    for frame in frames:
        crop, cut = frame.crop, cut or frame.cut
        if not frame.found or crop is None:
            yield frame if frame.found or seen is None else replace(frame, camera=seen)
            continue
        if window is None or last is None:
            window = crop
        elif cut:
            window = _window_after_cut(window, last, crop)
        last, cut = crop, False
        pose = HeadPose.of_camera(frame.camera).seen_in(crop, window)
        origin = pose.origin * (np.clip(pose.origin[2], *DISTANCES) / pose.origin[2])
        origin[:2] *= min(1.0, FARTHEST_ASIDE / max(float(np.hypot(*origin[:2])), 1e-6))
        seen = replace(pose, origin=origin).camera()
        yield replace(frame, camera=seen)


def _window_after_cut(window: Crop, before: Crop, after: Crop) -> Crop:
    """The window in which a face lies as far aside and as near as the last one did before the cut."""
    side = after.side * window.side / before.side
    x, y = ((getattr(before, name) - getattr(window, name)) / window.side * side for name in ("center_x", "center_y"))
    return Crop(after.center_x - x, after.center_y - y, side)


def first_known(first: FaceState, later: FaceState) -> FaceState:
    """The first state with the numbers that it lacks (NaN) from a later one."""
    return FaceState.combine(lambda a, b: torch.where(a.isnan(), b, a), first, later)


def relative_state(driving: FaceState, reference: FaceState, own: FaceState) -> FaceState:
    """The portrait's face changed as the driver's changed since the reference; unknown where one of the three is."""
    moved = FaceState.combine(lambda now, then, start: start + (now - then), driving, reference, own)
    ends = {name: getattr(moved, name).clamp(*LIMITS[name]) for name in LIMITS if getattr(moved, name) is not None}
    return replace(moved, **ends)


def relative_camera(driving: np.ndarray, reference: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The portrait's camera moved as the driver's moved since the reference; all ``(25,)``.

    With world-to-camera rotations R and offsets t (the world origin in camera axes): R = R_d R_ref^T R_own and
    t = t_own + t_d - t_ref. Where the driver has not moved, this is the portrait's own camera.
    """
    cameras = Camera.from_vector(torch.from_numpy(np.stack([driving, reference, own]).astype(np.float64)))
    rotation, origin = cameras.world_to_cam()
    turned = rotation[0] @ rotation[1].T @ rotation[2]
    moved = origin[2] + origin[0] - origin[1]
    return _vector(Camera.from_world_to_cam(turned[None], moved[None], cameras.intrinsics[2:]).to_vector()[0])


def smooth(frames: Iterable[DrivingFrame], sigma_s: float, time_base: Fraction) -> Iterator[DrivingFrame]:
    """Each frame as `smoothed_at` has it, without delay; keeps only the frames within the reach in memory."""
    reach = REACH * sigma_s
    window: deque[tuple[float, DrivingFrame]] = deque()
    position = 0  # of the next frame to hand out, within the window
    for frame in frames:
        now = float(frame.pts * time_base)
        window.append((now, frame))
        while position < len(window) and window[position][0] + reach <= now:
            yield _smoothed(window, position, sigma_s)
            position += 1
            while window[0][0] < window[position][0] - reach:
                window.popleft()
                position -= 1
    while position < len(window):
        yield _smoothed(window, position, sigma_s)
        position += 1


def _smoothed(window: deque[tuple[float, DrivingFrame]], position: int, sigma_s: float) -> DrivingFrame:
    near = [frame for _, frame in window]
    track = Track(
        state=FaceState.cat([frame.state for frame in near]),
        cameras=torch.from_numpy(np.stack([frame.camera for frame in near])),
        found=torch.tensor([frame.found for frame in near]),
        time_s=torch.tensor([time_s for time_s, _ in window], dtype=torch.float64),
    )
    state, camera = smoothed_at(track, position, sigma_s)
    return replace(near[position], state=state, camera=_vector(camera))


def _vector(camera: Tensor) -> np.ndarray:
    return camera.float().numpy()
