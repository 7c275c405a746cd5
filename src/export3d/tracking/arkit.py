"""MediaPipe's blendshape scores as a coefficient model: the expression space `arkit52`."""

from __future__ import annotations

import numpy as np

from export3d.camera import RADIUS
from export3d.errors import UsageError
from export3d.tracking.alignment import EG3D_ALIGNMENT, Alignment, Crop
from export3d.tracking.faces import ExtractorInfo, Face
from export3d.tracking.head_fit import HeadPose, smallest_turn

BETA_DIM = 64
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])


class BlendshapeModel:
    """An `ObservingModel`: beta is the 52 scores, padded with zeros to 64; the camera comes from the facial matrix.

    Args:
        tracker: what made the faces; its name, version and file hash become the extractor's, since the scores are its.
    """

    alignment: Alignment = EG3D_ALIGNMENT

    def __init__(self, tracker: ExtractorInfo) -> None:
        self.info = ExtractorInfo(f"{tracker.name}-blendshapes", tracker.version, tracker.sha256, "arkit52")

    def observe(self, frame: np.ndarray, face: Face, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """One face -> beta ``(64,)``, camera p ``(25,)``. The pixels are not looked at.

        Raises:
            UsageError: The tracker gives no blendshapes.
        """
        if face.blendshapes is None or face.matrix is None:
            raise UsageError(
                "arkit52 coefficients need a face tracker that gives blendshapes, as MediaPipe's Face Landmarker does. "
                "Choose --coefficients regressor."
            )
        beta = np.zeros(BETA_DIM, dtype=np.float32)
        beta[: len(face.blendshapes)] = face.blendshapes
        return beta, camera_from_matrix(face.matrix)


def camera_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Camera p ``(25,)`` float32 from a facial matrix ``(4, 4)``.

    The matrix maps the canonical face (x right, y up, z towards the viewer) to the space of a camera at 0 that looks
    along -z. A face off the optical axis is seen from the side even if it looks straight ahead; the crop's camera
    looks along the line of sight, so that angle is taken out first. The camera stands at EG3D's distance.
    """
    left, _, right = np.linalg.svd(matrix[:3, :3].astype(np.float64))
    rotation = left @ right  # the nearest rotation: the matrix also holds a scale
    head = smallest_turn(np.array([0.0, 0.0, -1.0]), matrix[:3, 3].astype(np.float64)).T @ rotation
    return HeadPose(rotation=_TO_OPENCV @ head, origin=np.array([0.0, 0.0, RADIUS])).camera()
