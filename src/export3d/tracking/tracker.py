"""From a portrait or the frames of a clip to crop, landmarks, beta and camera (Sec. 4, data; Sec. 3.3,
camera p)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from export3d.camera import Camera
from export3d.errors import FaceCutOffError, FaceTooSmallError, NoFaceError
from export3d.face_state import FaceState, unknown_weights
from export3d.tracking.alignment import Crop, crop_image, crop_transform
from export3d.tracking.faces import CoefficientModel, ExtractorInfo, Face, FaceTracker, ObservingModel
from export3d.tracking.following import Followed
from export3d.tracking.gaze import GazeMap, unknown_gaze
from export3d.tracking.mouth import MouthMap
from export3d.tracking.selection import choose_face, parse_choice
from export3d.tracking.shots import ShotDetector
from export3d.tracking.weights import weights_of

MIN_FACE_PX = 40.0
"""Least height of a face in a source portrait; below it the crop is mostly made of interpolated pixels."""

LEVEL_FROM_RAD = math.radians(15.0)
"""Portraits that are tilted by more than this are levelled; the model has learned from heads that tilt less."""

MAX_OUTSIDE_SHARE = 0.15
"""A face with more than this share of its 68 landmarks outside the picture is called cut off."""


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A source image, ready for the encoder."""

    image: np.ndarray
    """uint8 ``(size, size, 3)``, the aligned crop."""
    beta: np.ndarray
    """``(64,)`` float32."""
    camera: np.ndarray
    """``(25,)`` float32."""
    landmarks: np.ndarray
    """``(68, 2)`` float32 in [0, 1] of the crop."""
    crop: Crop
    gaze: np.ndarray = field(default_factory=unknown_gaze)
    """``(2,)`` float32 radians in the head's frame, sideways (+ to the image right) and up; NaN where it is unknown."""
    weights: np.ndarray = field(default_factory=unknown_weights)
    """``(52,)`` float32, single expression weights, order of `ARKIT_NAMES`: see `weights_of`;
    NaN where the tracker gives none."""
    others: tuple[Crop, ...] = ()
    """Of the other faces in the image."""

    @property
    def state(self) -> FaceState:
        """One face, for the model; it knows nothing of the torso."""
        return FaceState.of(beta=self.beta, gaze=self.gaze, weights=self.weights)


@dataclass(frozen=True, kw_only=True)
class TrackedFrame:
    """One frame of a driving clip. Where the face is lost, beta is zero, the camera frontal and the gaze unknown."""

    found: bool
    crop: Crop | None
    landmarks: np.ndarray
    """``(68, 2)`` float32 in [0, 1] of the crop."""
    beta: np.ndarray
    """``(64,)`` float32."""
    camera: np.ndarray
    """``(25,)`` float32."""
    confidence: float
    gaze: np.ndarray = field(default_factory=unknown_gaze)
    """``(2,)`` float32 as in `Portrait`; while the eyes are closed, the last one of the clip."""
    weights: np.ndarray = field(default_factory=unknown_weights)
    """``(52,)`` float32 as in `Portrait`."""
    cut: bool = False
    """Whether another shot begins with this frame."""
    other: bool = False
    """Whether the frame has a face, but not the one that is followed."""

    @property
    def state(self) -> FaceState:
        """One face, for the model; it knows nothing of the torso."""
        return FaceState.of(beta=self.beta, gaze=self.gaze, weights=self.weights)


class Tracker:
    """Finds one face, keeps to it, and gives its coefficients.

    Args:
        face_tracker: default: MediaPipe (`export3d[face]`).
        coefficients: default: the bundled landmark regressor.
        choice: `largest`, `left`, `right` or a number from the left, from 0 on; None refuses several faces.
        size: side of the portrait's crop in pixels.
        gaze: default: the bundled map. Faces without scores have no gaze.
        option: what makes the choice on the command line, for the error text.
    """

    def __init__(
        self,
        face_tracker: FaceTracker | None = None,
        coefficients: CoefficientModel | ObservingModel | None = None,
        choice: str | int | None = None,
        size: int = 256,
        *,
        gaze: GazeMap | None = None,
        option: str = "--face",
    ) -> None:
        self.choice = parse_choice(choice, option)
        self.option = option
        self.size = size
        if coefficients is None:
            from export3d.tracking.regressor import LandmarkRegressor

            coefficients = LandmarkRegressor.load()
        if face_tracker is None:
            from export3d.tracking.mediapipe_tracker import MediaPipeTracker

            face_tracker = MediaPipeTracker(matrix=coefficients.info.expression_space == "arkit52")
        self.face_tracker = face_tracker
        self.coefficients = coefficients
        self.gaze = gaze if gaze is not None else GazeMap.load()
        self._mouth = MouthMap.load()
        self._followed: Followed | None = None
        self._shots = ShotDetector()
        self._last_gaze = unknown_gaze()
        self._num_seen = 0

    @property
    def info(self) -> ExtractorInfo:
        """What made beta and the camera."""
        return self.coefficients.info

    def portrait(self, image: np.ndarray, where: str = "the source image") -> Portrait:
        """The face of a still image, cropped and measured.

        Args:
            image: uint8 ``(H, W, 3)`` RGB, any size.
            where: the image's name, for error texts.

        Raises:
            NoFaceError, SeveralFacesError, FaceTooSmallError, FaceCutOffError: What is wrong with the
            picture.
        """
        self.reset()
        faces = self.face_tracker.detect(image)
        self.reset()
        if not faces:
            raise NoFaceError(
                f"{where}: no face was found in this {image.shape[1]}x{image.shape[0]} image. "
                "Use a photo in which one face looks towards the camera, is not covered, and fills a good part "
                "of the picture."
            )
        face = choose_face(faces, self.choice, where=where, option=self.option)
        _check_face(face, image, where)
        crops = [crop_transform(each.landmarks_px, self.coefficients.alignment) for each in (face, *faces)]
        crop = crops[0]
        if abs(face.roll) > LEVEL_FROM_RAD:
            crop = replace(crop, angle=face.roll)
        landmarks, beta, camera = self._measure(image, face, crop)
        return Portrait(
            image=crop_image(image, crop, self.size),
            beta=beta,
            camera=camera,
            landmarks=landmarks,
            crop=crop,
            gaze=self._gaze_of(face),
            weights=weights_of(face, self._mouth),
            others=tuple(other for each, other in zip(faces, crops[1:], strict=True) if each is not face),
        )

    def frame(self, image: np.ndarray, where: str | None = None) -> TrackedFrame:
        """The next frame of a clip: the same face as before, by its place, its size and its look (`following.py`).

        In the first frame with a face, `choice` picks it. Where that face is gone, the frame is lost, whoever else is in it.

        Raises:
            SeveralFacesError: Several faces in the first frame with a face, and no choice.
        """
        number = self._num_seen
        self._num_seen += 1
        cut, followed = self._shots.is_cut(image), self._followed
        follows = followed is not None and followed.present and not cut
        faces = self.face_tracker.detect(image, followed.face if followed is not None and follows else None)
        if followed is None:
            if not faces:
                return replace(lost_frame(), cut=cut)
            face = choose_face(faces, self.choice, where=where or f"frame {number}", option=self.option)
            self._followed = Followed(face, image)
        else:
            found = followed.find(faces, image, cut=cut)
            if found is None:
                return replace(lost_frame(), cut=cut, other=bool(faces))
            face = found
        crop = crop_transform(face.landmarks_px, self.coefficients.alignment)
        landmarks, beta, camera = self._measure(image, face, crop)
        gaze = self._gaze_of(face)
        self._last_gaze = gaze if np.isfinite(gaze).all() else self._last_gaze
        return TrackedFrame(
            found=True,
            crop=crop,
            landmarks=landmarks,
            beta=beta,
            camera=camera,
            confidence=face.confidence,
            gaze=self._last_gaze,
            weights=weights_of(face, self._mouth),
            cut=cut,
        )

    def reset(self) -> None:
        """Start another clip."""
        self.face_tracker.reset()
        self._followed = None
        self._shots = ShotDetector()
        self._last_gaze = unknown_gaze()
        self._num_seen = 0

    def close(self) -> None:
        """Free the face tracker."""
        self.face_tracker.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _gaze_of(self, face: Face) -> np.ndarray:
        return unknown_gaze() if face.blendshapes is None else self.gaze.read(face.blendshapes)

    def _measure(self, image: np.ndarray, face: Face, crop: Crop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        landmarks = crop.to_crop(face.landmarks_px)
        if isinstance(self.coefficients, ObservingModel):
            beta, camera = self.coefficients.observe(image, face, crop)
        else:
            betas, cameras = self.coefficients.coefficients(landmarks[None])
            beta, camera = betas[0], cameras[0]
        return landmarks, beta, camera


def lost_frame() -> TrackedFrame:
    """What a frame without a face gives: not found, neutral expression, frontal camera, confidence 0."""
    return TrackedFrame(
        found=False,
        crop=None,
        landmarks=np.zeros((68, 2), dtype=np.float32),
        beta=np.zeros(64, dtype=np.float32),
        camera=Camera.look_at_head(torch.zeros(1)).to_vector()[0].numpy(),
        confidence=0.0,
    )


def _check_face(face: Face, image: np.ndarray, where: str) -> None:
    height, width = image.shape[:2]
    if face.height_px < MIN_FACE_PX:
        raise FaceTooSmallError(
            f"{where}: the face is {face.height_px:.0f} pixels high in a {width}x{height} image; expected at least "
            f"{MIN_FACE_PX:.0f}. Use a photo of higher resolution or one taken from nearer."
        )
    points = face.landmarks_px
    outside = (points < 0.0).any(axis=1) | (points > np.array([width, height])).any(axis=1)
    share = float(outside.mean())
    if share > MAX_OUTSIDE_SHARE:
        sides = [
            name
            for name, count in (
                ("left", (points[:, 0] < 0).sum()),
                ("right", (points[:, 0] > width).sum()),
                ("top", (points[:, 1] < 0).sum()),
                ("bottom", (points[:, 1] > height).sum()),
            )
            if count
        ]
        raise FaceCutOffError(
            f"{where}: the face is cut off at the {' and '.join(sides)} of the picture ({outside.sum()} of 68 "
            f"points lie outside; at most {int(MAX_OUTSIDE_SHARE * 68)} may). Use a photo that shows the whole face."
        )
