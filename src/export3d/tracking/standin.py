"""Face tracker and coefficient model without weights or dependencies, for tests and synthetic clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from export3d.camera import Camera
from export3d.tracking.alignment import EG3D_ALIGNMENT, Alignment, crop_squares
from export3d.tracking.faces import ExtractorInfo, Face


class GivenLandmarks:
    """A `FaceTracker` that answers with landmarks given by the caller, frame after frame.

    Args:
        frames: for each frame the landmarks ``(68, 2)`` in pixels of each face in it; an empty list is a
            frame without a face. After the last entry, or after `reset`, it starts again.
    """

    def __init__(self, frames: Sequence[Sequence[np.ndarray]], confidence: float = 1.0) -> None:
        if not frames:
            raise ValueError("GivenLandmarks needs at least one frame")
        self.info = ExtractorInfo("given-landmarks", "1", "", "")
        self._faces = [[face_from_landmarks(points, confidence) for points in faces] for faces in frames]
        self._next = 0

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        """The next entry; the frame itself is not looked at."""
        faces = self._faces[self._next % len(self._faces)]
        self._next += 1
        return list(faces)

    def reset(self) -> None:
        """Start again at the first entry."""
        self._next = 0

    def close(self) -> None:
        """Nothing to free."""


class MeasuredCoefficients:
    """A `CoefficientModel` that measures instead of learning: deterministic, smooth in the landmarks, no
    weights.

    beta holds the 64 first coordinates of the landmarks relative to the crop, scaled to about unit size; the
    camera is frontal, with the head's roll read from the line between the eyes. It means nothing; it only
    varies as it should.
    """

    def __init__(self, expression_space: str = "ict64", alignment: Alignment = EG3D_ALIGNMENT) -> None:
        self.info = ExtractorInfo("measured-coefficients", "1", "", expression_space)
        self.alignment = alignment

    def coefficients(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(N, 68, 2)`` in [0, 1] of the crop -> beta ``(N, 64)``, camera ``(N, 25)``."""
        points = np.asarray(landmarks, dtype=np.float64)
        if points.ndim != 3 or points.shape[1:] != (68, 2):
            raise ValueError(f"landmarks must have shape (N, 68, 2); got {points.shape}")
        centre = crop_squares(points, self.alignment)[:, None, :2]
        beta = 10.0 * (points - centre)[:, 36:].reshape(len(points), 64)  # eyes and mouth: 32 points
        eyes = points[:, 45] - points[:, 36]
        roll = torch.from_numpy(-np.arctan2(eyes[:, 1], eyes[:, 0])).float()
        camera = Camera.look_at_head(torch.zeros_like(roll), 0.0, roll).to_vector().numpy()
        return beta.astype(np.float32), camera


def face_from_landmarks(landmarks_px: np.ndarray, confidence: float = 1.0) -> Face:
    """A face whose box is the bounding box of its landmarks ``(68, 2)``."""
    points = np.asarray(landmarks_px, dtype=np.float32)
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return Face(box=box, landmarks_px=points, confidence=confidence)
