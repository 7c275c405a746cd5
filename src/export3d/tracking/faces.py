"""What tracking passes around: faces, and the Protocols of face trackers and coefficient models (Sec. 4,
data)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from export3d.face_state import ARKIT_NAMES
from export3d.landmarks import LEFT_EYE, RIGHT_EYE
from export3d.tracking.alignment import Alignment, Crop


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face found in one frame."""

    box: np.ndarray
    """``(4,)`` x0, y0, x1, y1 in pixels of the frame; may reach outside it."""

    landmarks_px: np.ndarray
    """``(68, 2)`` float32, x right, y down, in pixels of the frame: the centre of the first pixel is at
    (0.5, 0.5)."""

    confidence: float
    """0 to 1."""

    blendshapes: np.ndarray | None = None
    """``(52,)`` scores in 0..1 in the order of `BLENDSHAPE_NAMES`, where the tracker gives them."""

    matrix: np.ndarray | None = None
    """``(4, 4)`` head pose in the tracker's own metric space, where the tracker gives it."""

    mesh: np.ndarray | None = None
    """``(478, 3)`` float32, MediaPipe's dense mesh, where the tracker gives it: x and y as in `landmarks_px`, and depth
    in the same scale, smaller towards the viewer."""

    @property
    def height_px(self) -> float:
        """Height of the box."""
        return float(self.box[3] - self.box[1])

    @property
    def centre(self) -> np.ndarray:
        """``(2,)`` middle of the box."""
        middle: np.ndarray = (self.box[:2] + self.box[2:]) / 2.0
        return middle

    @property
    def size_px(self) -> float:
        """Longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())

    @cached_property
    def roll(self) -> float:
        """How the face is turned in the picture's plane, radians from -pi to pi: the angle of the line between the eyes,
        positive clockwise as one sees it."""
        right, left = self.landmarks_px[LEFT_EYE].mean(axis=0), self.landmarks_px[RIGHT_EYE].mean(axis=0)
        return float(np.arctan2(*(right - left)[::-1]))

    @property
    def area_px(self) -> float:
        """Area of the box."""
        return float(max(self.box[2] - self.box[0], 0.0) * max(self.box[3] - self.box[1], 0.0))


@dataclass(frozen=True)
class ExtractorInfo:
    """What made a set of coefficients; stored with everything that is derived from them."""

    name: str
    version: str
    sha256: str
    """Hash of the weights file, or an empty string where there is none."""
    expression_space: str
    """`ict64`, `bfm64` or `arkit52`; an empty string for trackers that only give landmarks."""


class FaceTracker(Protocol):
    """Finds the faces of a frame. Frames of one clip come in order; `reset` starts another clip."""

    info: ExtractorInfo

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        """uint8 ``(H, W, 3)`` RGB -> the faces in it, in any order.

        Args:
            near: the face of the frame before that is followed. The tracker may look for that one first, and then gives
                no others.
        """
        ...

    def reset(self) -> None:
        """Forget the previous frame."""
        ...

    def close(self) -> None:
        """Free what the tracker holds."""
        ...


class CoefficientModel(Protocol):
    """Turns landmarks of an aligned crop into expression coefficients and a camera."""

    info: ExtractorInfo
    alignment: Alignment
    """The crop that the model was made for."""

    def coefficients(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(N, 68, 2)`` in [0, 1] of the crop -> beta ``(N, 64)`` and camera p ``(N, 25)``, float32."""
        ...


@runtime_checkable
class ObservingModel(Protocol):
    """A coefficient model that needs more than landmarks: the pixels, the blendshapes or the matrix."""

    info: ExtractorInfo
    alignment: Alignment

    def observe(self, frame: np.ndarray, face: Face, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Frame uint8 ``(H, W, 3)``, one of its faces and its crop -> beta ``(64,)`` and camera p ``(25,)``,
        float32."""
        ...


def moved(before: Face, now: Face) -> float:
    """How far a face has gone, in its own size, has grown (natural logarithm) or turned (radians): the most of them."""
    gone = float(np.linalg.norm(now.centre - before.centre)) / max(now.size_px, 1e-6)
    grown = abs(float(np.log(max(now.size_px, 1e-6) / max(before.size_px, 1e-6))))
    return max(gone, grown, abs(float(np.angle(np.exp(1j * (now.roll - before.roll))))))


def box_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes ``(4,)``."""
    (left, top, right, bottom), (x0, y0, x1, y1) = a.tolist(), b.tolist()
    shared = max(min(right, x1) - max(left, x0), 0.0) * max(min(bottom, y1) - max(top, y0), 0.0)
    total = (right - left) * (bottom - top) + (x1 - x0) * (y1 - y0) - shared
    return shared / total if total > 0.0 else 0.0


BLENDSHAPE_NAMES: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft",
    "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft",
    "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft",
    "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""MediaPipe's 52 scores, in its order; Left and Right are the subject's own."""


def arkit_weights_of(face: Face) -> np.ndarray:
    """``(52,)`` float32: the face's scores as `FaceState.weights`, NaN for those that its tracker does not give."""
    weights = np.full(len(ARKIT_NAMES), np.nan, dtype=np.float32)
    if face.blendshapes is not None:
        weights[_COLUMNS] = face.blendshapes[_TOLD]
    return weights


_TOLD = [place for place, name in enumerate(BLENDSHAPE_NAMES) if name in ARKIT_NAMES]
_COLUMNS = [ARKIT_NAMES.index(BLENDSHAPE_NAMES[place]) for place in _TOLD]
