"""What measures faces in pictures for AKD, CSIM, AED and APD (Sec. 6.5): Protocols, and one back end for all offline.

Every score is printed with the name, version and file hash of its back end: scores of two back ends cannot be compared.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from export3d.camera import RADIUS, Camera
from export3d.identity.crops import METRIC_SIZE_PX
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.tracker import Tracker

_KEPT = 256  # clips that are remembered, the drivers of a whole table among them; about 2 kB a frame


@dataclass(frozen=True, kw_only=True)
class FaceMeasures:
    """What a back end read in T frames; NaN rows where it found no face.

    Attributes:
        landmarks: ``(T, 68, 2)`` pixels of a 256-pixel image.
        expression: ``(T, 64)`` coefficients in the back end's own expression space.
        pose: ``(T, 6)`` = [yaw, pitch, roll in radians | camera displacement x, y, distance in scene units]; of Deep3DFaceRecon
            its own six numbers.
    """

    landmarks: np.ndarray
    expression: np.ndarray
    pose: np.ndarray


class FaceBackend(Protocol):
    """Measures landmarks, expression and pose. The same back end must read generated and driving frames.

    `info` names what gives expression and pose (AED, APD), `landmark_info` what gives the landmarks (AKD).
    """

    info: ExtractorInfo
    landmark_info: ExtractorInfo

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        """uint8 ``(T, H, H, 3)`` frames of one clip in order -> what was read in them."""
        ...


class IdentityBackend(Protocol):
    """Embeds faces for CSIM, for example ArcFace."""

    info: ExtractorInfo

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """uint8 ``(T, H, H, 3)`` -> ``(T, E)``, NaN rows where no face was found."""
        ...


class PictureDistance(Protocol):
    """A learned distance between two pictures, for example LPIPS. `facts` are printed with the scores."""

    label: str
    facts: dict[str, str]

    def distances(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        """uint8 ``(T, H, H, 3)`` twice -> ``(T,)``."""
        ...


def camera_pose(p: np.ndarray) -> np.ndarray:
    """The 6 pose numbers of APD from cameras ``(T, 25)``: 3 head angles, and the camera's place seen from the head.

    The angles are yaw, pitch, roll in radians; the place is the displacement (x, y, distance) in scene units from the
    standard place 2.7 in front of the head, before the head's rotation (the `shift` of `Camera.look_at_head`).
    """
    camera = Camera.from_vector(torch.from_numpy(np.asarray(p, dtype=np.float64)))
    flip = camera.cam_to_world.new_tensor([1.0, -1.0, -1.0])
    head = (camera.cam_to_world[:, :3, :3] * flip).transpose(1, 2)
    standard = head.new_tensor([0.0, 0.0, RADIUS])
    place = (head @ camera.cam_to_world[:, :3, 3:])[..., 0] - standard
    return torch.cat([camera.head_angles(), place], dim=1).numpy()


class TrackerBackend:
    """The project's own tracker as a back end: works offline, reads landmarks, beta and camera of each frame.

    Args:
        pose: cameras ``(T, 25)`` -> the six numbers of APD ``(T, 6)``.
    """

    def __init__(self, tracker: Tracker, pose: Callable[[np.ndarray], np.ndarray] = camera_pose) -> None:
        self._tracker, self._pose = tracker, pose
        self.info = tracker.info
        self.landmark_info = tracker.face_tracker.info

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        """See `FaceBackend.measure`."""
        count, height = frames.shape[:2]
        landmarks = np.full((count, 68, 2), np.nan)
        expression = np.full((count, 64), np.nan)
        pose = np.full((count, 6), np.nan)
        self._tracker.reset()
        for index, frame in enumerate(frames):
            tracked = self._tracker.frame(frame)
            if not tracked.found or tracked.crop is None:
                continue
            corner = np.array([tracked.crop.center_x, tracked.crop.center_y]) - tracked.crop.side / 2
            pixels = corner + tracked.landmarks * tracked.crop.side
            landmarks[index] = pixels * (METRIC_SIZE_PX / height)
            expression[index] = tracked.beta
            pose[index] = self._pose(tracked.camera[None])[0]
        return FaceMeasures(landmarks=landmarks, expression=expression, pose=pose)


class RememberedFaces:
    """Wraps a back end and keeps what it read in the last clips. A clip that stands still is measured once."""

    def __init__(self, faces: FaceBackend) -> None:
        self._faces = faces
        self._seen: OrderedDict[str, FaceMeasures] = OrderedDict()
        self.info = faces.info
        self.landmark_info = faces.landmark_info

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        """See `FaceBackend.measure`."""
        content = np.ascontiguousarray(frames)
        key = hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()
        if key not in self._seen:
            self._seen[key] = self._measure(content)
            if len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]

    def _measure(self, frames: np.ndarray) -> FaceMeasures:
        if len(frames) < 2 or not (frames == frames[:1]).all():
            return self._faces.measure(frames)
        one = self._faces.measure(frames[:1])
        parts = (one.landmarks, one.expression, one.pose)
        landmarks, expression, pose = (np.repeat(part, len(frames), axis=0) for part in parts)
        return FaceMeasures(landmarks=landmarks, expression=expression, pose=pose)
