"""What of a portrait a film shows: the whole photograph, or the square around the face (not in the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from export3d.animation.drivers import DrivingFrame
from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.tracking import Crop
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose, rotation_of, vector_of

Framing = Literal["photo", "face"]

TOLERATED = 0.02
"""A crop may reach beyond the photograph by this share of its side without being cut or warned of."""

WANDER, ZOOM = 0.06, 1.1
"""How far a head goes from where it sits on its shoulders, in scene units, and by what factor it grows or shrinks at most:
the shoulders of the photograph stay where they are."""

WANDER_ALONE, ZOOM_ALONE = 0.12, 1.25
"""The same where the face alone is shown: farther, the square would be emptied."""

ASIDE_RAD = math.radians(10.0)
"""A driver who faces the camera turns a face alone so far at most from the portrait's pose; in a photograph it keeps that."""

FREE_RAD, FARTHEST_RAD = math.radians(15.0), math.radians(25.0)
"""From the first angle on, turns away from there get smaller, and none reaches the second: the photograph does not show what
they would."""

FREE_ALONE_RAD, FARTHEST_ALONE_RAD = math.radians(20.0), math.radians(35.0)
"""The same where the face alone is shown, which has no shoulders to stay on."""

TURN_GAIN = np.array([1.4, 1.27, 1.0])
"""How far heads of photographs are told to nod, turn and tilt per turn that shall be seen: the model shows them flatter than
they are. Of turns up to 25 degrees on eight photographs .74, .89 and 1.0 was read again; with 1.18, .9 of small turns."""

_FACING = np.diag([1.0, -1.0, -1.0])  # rotation of a head that faces the camera

NECK_ROLL_RAD = math.radians(30.0)
"""A neck bends a head sideways no further; what a driver's head is tilted beyond that, the whole person is."""


def turned_by(state: FaceState, camera: np.ndarray) -> FaceState:
    """The face with the turn of its head against a torso that faces the camera ``(25,)``. The torso is upright as long as
    the neck allows; beyond that it tilts with the head."""
    pose = HeadPose.of_camera(camera)
    tilt = float(np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]))
    upright = np.eye(3)
    upright[:2, :2] = plane_turn(float(np.clip(tilt, -NECK_ROLL_RAD, NECK_ROLL_RAD)) - tilt)
    seen = HeadPose(rotation=upright @ pose.rotation, origin=upright @ pose.origin)
    return replace(state, turn=Camera.of_array(seen.camera()).head_turn())


def beyond(shape: tuple[int, ...], crop: Crop) -> float:
    """How far the square of a crop, set upright, reaches beyond a photograph of shape (H, W, ..), as a share of its side."""
    half = crop.side / 2.0
    far = max(
        half - crop.center_x, half - crop.center_y, crop.center_x + half - shape[1], crop.center_y + half - shape[0]
    )
    return max(far, 0.0) / crop.side


def inside(shape: tuple[int, ...], crop: Crop) -> Crop:
    """The largest upright square that lies in both a photograph of shape (H, W, ..) and a crop of it, near the crop's middle;
    the upright crop itself where it hardly reaches beyond."""
    upright = replace(crop, angle=0.0)
    if beyond(shape, crop) <= TOLERATED:
        return upright
    half = crop.side / 2.0
    at = np.array([crop.center_x, crop.center_y])
    low, high = np.maximum(at - half, 0.0), np.minimum(at + half, [shape[1], shape[0]])
    side = float((high - low).min())
    x, y = np.clip(at, low + side / 2.0, high - side / 2.0).tolist()
    return Crop(x, y, side)


def facing(
    frames: Iterable[DrivingFrame], camera: np.ndarray, strength: float = 1.0, *, relative: bool = False
) -> Iterator[DrivingFrame]:
    """Driving frames whose head goes and turns no farther from the portrait's, by its own camera ``(25,)``, than the portrait
    shows it; in the picture's plane it turns freely.

    Args:
        strength: how far the head goes with the driver's.
        relative: the motion starts from the portrait's own pose already.
    """
    home = HeadPose.of_camera(camera)
    turned, told = np.eye(3) if relative else _towards(home.rotation, strength, ASIDE_RAD), _Turns()
    for frame in frames:
        pose = HeadPose.of_camera(frame.camera)
        rotation = turned @ pose.rotation
        away = rotation @ home.rotation.T
        plane = rotation_of(np.array([0.0, 0.0, math.atan2(away[1, 0] - away[0, 1], away[0, 0] + away[1, 1])]))
        rotation = plane @ _within(plane.T @ rotation, home.rotation, told, FREE_ALONE_RAD, FARTHEST_ALONE_RAD)
        origin = _near(home.origin, pose.origin, home.origin, WANDER_ALONE, ZOOM_ALONE)
        yield replace(frame, camera=HeadPose(rotation=rotation, origin=origin).camera())


def anchored(
    frames: Iterable[DrivingFrame], camera: np.ndarray, strength: float = 1.0, *, relative: bool = False
) -> Iterator[DrivingFrame]:
    """Driving frames whose head begins where the portrait's is, by its own camera ``(25,)``, never leaves its shoulders, and
    turns no farther than the photograph shows it. `strength` as of `facing`; a `relative` motion starts from there already."""
    own = HeadPose.of_camera(camera)
    home = own.origin
    first, turned = (home, np.eye(3)) if relative else (None, _towards(own.rotation, strength, 0.0))
    told = _Turns()
    for frame in frames:
        pose = HeadPose.of_camera(frame.camera)
        if first is None and frame.found:
            first = pose.origin
        start = pose.origin if first is None else first
        rotation = _within(turned @ pose.rotation, own.rotation, told, FREE_RAD, FARTHEST_RAD)
        origin = _near(home, pose.origin, start, WANDER, ZOOM)
        yield replace(frame, camera=HeadPose(rotation=rotation, origin=origin).camera())


def _near(home: np.ndarray, origin: np.ndarray, start: np.ndarray, wander: float, zoom: float) -> np.ndarray:
    """Where a head ``(3,)`` is that has gone from `start` to `origin`, begun at `home`: no farther aside, nearer or away."""
    away = origin[:2] - start[:2]
    length = max(float(np.hypot(*away)), 1e-6)
    aside = home[:2] + away * (wander * np.tanh(length / wander) / length)
    return np.append(aside, home[2] * float(np.clip(origin[2] / max(start[2], 1e-6), 1.0 / zoom, zoom)))


def _towards(home: np.ndarray, strength: float, aside: float) -> np.ndarray:
    """The rotation ``(3, 3)`` that brings a head that faces the camera to within `aside`, radians, of the portrait's pose;
    so much less of it as the head already keeps of the portrait's turn."""
    turn = vector_of(home @ _FACING.T)
    share = max(1.0 - aside / max(float(np.linalg.norm(turn)), 1e-6), 0.0)
    return rotation_of(turn * share * min(strength, 1.0))


class _Turns:
    """Turns away from the portrait's pose as the model must be told them: where a head is on average stays, changes grow."""

    def __init__(self) -> None:
        self._mean, self._count = np.zeros(3), 0

    def __call__(self, turn: np.ndarray) -> np.ndarray:
        """The rotation vector ``(3,)`` to tell, in radians."""
        self._count += 1
        self._mean = self._mean + (turn - self._mean) / self._count
        return turn + (TURN_GAIN - 1.0) * (turn - self._mean)


def _within(rotation: np.ndarray, home: np.ndarray, told: _Turns, free: float, farthest: float) -> np.ndarray:
    """A head's rotation ``(3, 3)`` as it is `told`, no farther than `farthest` from the portrait's; all angles in radians."""
    turn = told(vector_of(rotation @ home.T))
    angle, room = float(np.linalg.norm(turn)), farthest - free
    if angle > free:
        turn = turn / angle * (free + room * math.tanh((angle - free) / room))
    return rotation_of(turn) @ home
