"""One face over successive frames, and its way into clips (Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch

from export3d.camera import Camera
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.quality import Quality, face_sharpness, measure
from export3d.tracking import CoefficientModel, Crop, Face, ObservingModel

FIXED_ENLARGEMENT = 1.6
"""Side of a fixed crop / longer side of the union of the face's boxes (from the same author's later release)."""


@dataclass(frozen=True, kw_only=True)
class TrackedFace:
    """One frame of a track."""

    number: int
    """Of the frame at the target rate."""
    time: Fraction
    face: Face
    crop: Crop
    """The aligned crop of the coefficient model."""
    outside: float
    observed: tuple[np.ndarray, np.ndarray] | None
    """beta and camera, where the model looks at pixels."""
    image: np.ndarray | None = None
    """The stored picture; None until the second pass of a fixed crop."""
    sharpness: float = 0.0


@dataclass
class Track:
    """Frames of one face that wait to become a clip."""

    frames: list[TrackedFace] = field(default_factory=list)

    def take_full(self, options: PrepareOptions) -> list[TrackedFace] | None:
        """The first `max_frames` frames, as soon as enough follow them for another clip."""
        if len(self.frames) < options.max_frames + options.min_frames:
            return None
        taken, self.frames = self.frames[: options.max_frames], self.frames[options.max_frames :]
        return taken

    def take_rest(self, options: PrepareOptions) -> list[list[TrackedFace]]:
        """What is left at the end: one piece, or two equal ones if it is longer than a clip may be."""
        rest, self.frames = self.frames, []
        if len(rest) <= options.max_frames:
            return [rest] if rest else []
        half = (len(rest) + 1) // 2 if len(rest) // 2 >= options.min_frames else options.max_frames
        return [rest[:half], rest[half:]]


def fixed_crop(frames: list[TrackedFace]) -> Crop:
    """One square for a whole clip: around the union of the face's boxes, enlarged."""
    boxes = np.stack([frame.face.box for frame in frames])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    center = (low + high) / 2.0
    return Crop(float(center[0]), float(center[1]), FIXED_ENLARGEMENT * float((high - low).max()))


def moved_camera(camera: np.ndarray, aligned: Crop, other: Crop) -> np.ndarray:
    """The same camera for another crop of the same frame: only the intrinsics change.

    Args:
        camera: ``(25,)`` for the square `aligned`.

    Returns:
        ``(25,)`` float32 for the square `other`.
    """
    view = Camera.from_vector(torch.from_numpy(camera.astype(np.float64))[None])
    scale = aligned.side / other.side
    matrix = view.intrinsics.clone()
    matrix[:, 0, 0] *= scale
    matrix[:, 1, 1] *= scale
    for row, start, target in ((0, aligned.center_x, other.center_x), (1, aligned.center_y, other.center_y)):
        in_frame = start - aligned.side / 2.0 + matrix[:, row, 2] * aligned.side
        matrix[:, row, 2] = (in_frame - target) / other.side + 0.5
    return Camera(view.cam_to_world, matrix).to_vector()[0].float().numpy()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The arrays of a clip and its quality."""

    arrays: dict[str, np.ndarray]
    quality: Quality


def measure_clip(
    frames: list[TrackedFace],
    coefficients: CoefficientModel | ObservingModel,
    fixed: Crop | None,
    read_gaze: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Measured:
    """Coefficients, cameras, landmarks, gaze and quality of a clip's frames.

    Args:
        frames: with their pictures.
        coefficients: asked for all frames at once, unless it has already looked at each.
        fixed: the clip's own square if it is not the aligned crop of each frame.
        read_gaze: expression scores (52,) -> gaze (2,); see `gaze_of`.
    """
    aligned = np.stack([frame.crop.to_crop(frame.face.landmarks_px) for frame in frames])  # (T, 68, 2)
    observed = [frame.observed for frame in frames if frame.observed is not None]
    if len(observed) == len(frames):
        beta = np.stack([beta for beta, _ in observed])
        camera = np.stack([camera for _, camera in observed])
    elif isinstance(coefficients, ObservingModel):
        raise ValueError("frames of a model that observes must hold what it observed")
    else:
        beta, camera = coefficients.coefficients(aligned)
    crops, landmarks = [frame.crop for frame in frames], aligned
    if fixed is not None:
        camera = np.stack([moved_camera(p, crop, fixed) for p, crop in zip(camera, crops, strict=True)])
        crops = [fixed] * len(frames)
        landmarks = np.stack([fixed.to_crop(frame.face.landmarks_px) for frame in frames])
    confidence = np.array([frame.face.confidence for frame in frames], dtype=np.float32)
    arrays = {
        "beta": beta,
        "camera": camera,
        "landmarks": landmarks,
        "confidence": confidence,
        "crop": np.array([(crop.center_x, crop.center_y, crop.side) for crop in crops]),
    }
    gaze = None if read_gaze is None else gaze_of(frames, read_gaze)
    if gaze is not None:
        arrays["gaze"] = gaze
    quality = measure(
        sharpness=np.array([frame.sharpness for frame in frames]),
        face_px=np.array([frame.face.height_px for frame in frames]),
        confidence=confidence,
        outside=np.array([frame.outside for frame in frames]),
        camera=camera,
    )
    return Measured(arrays={name: array.astype(np.float32) for name, array in arrays.items()}, quality=quality)


def gaze_of(frames: list[TrackedFace], read_gaze: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Gaze ``(T, 2)`` of a clip, radians; None if a face has no scores or the eyes are never open.

    Closed eyes keep the gaze before them, those at the beginning have the first gaze that is known.
    """
    scores = [frame.face.blendshapes for frame in frames]
    if any(row is None for row in scores):
        return None
    read = np.stack([read_gaze(row) for row in scores if row is not None])
    known = np.flatnonzero(np.isfinite(read).all(axis=1))
    if not len(known):
        return None
    before = np.searchsorted(known, np.arange(len(read)), side="right") - 1
    return read[known[np.maximum(before, 0)]]


def sharpness_of(image: np.ndarray, face: Face, crop: Crop) -> float:
    """Sharpness of a stored picture of a face."""
    return face_sharpness(image, crop.to_crop(face.landmarks_px))
