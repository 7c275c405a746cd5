"""MediaPipe as a face tracker: FaceMesh from the wheel, offline; Face Landmarker where its file is given
(Sec. 4)."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.errors import MissingExtraError, UsageError
from export3d.tracking.faces import BLENDSHAPE_NAMES, ExtractorInfo, Face, box_overlap

LANDMARKER_VARIABLE = "EXPORT3D_FACE_LANDMARKER"
"""Environment variable that names a `face_landmarker.task` file."""

# The canonical mesh has 478 points. The contour of the face runs clockwise from the forehead (10) over 454 and the chin
# (152) to 234; each lip, lid and brow is a closed chain of points. The 68 Multi-PIE points are picked from these chains:
# checked by eye on drawings, and on 200 rendered heads the jaw and the lower lip against the exact points. Systematic
# differences remain (brows 3-6 px of 256); the regressor's offsets are for them.
MESH_TO_68 = (
    *(127, 234, 93, 132, 172, 150, 149, 148, 152, 377, 378, 379, 397, 361, 323, 454, 356),  # jaw, image left to right
    *(70, 63, 105, 66, 107),  # upper edge of the brow at the image left, outer to inner
    *(336, 296, 334, 293, 300),  # brow at the image right, inner to outer
    *(168, 197, 5, 4),  # bridge of the nose, down to the tip
    *(98, 97, 2, 326, 327),  # below the nose
    *(33, 160, 158, 133, 153, 144),  # eye at the image left: outer corner, upper lid, inner corner, lower lid
    *(362, 385, 387, 263, 373, 380),  # eye at the image right: inner corner, upper, outer corner, lower
    *(61, 40, 37, 0, 267, 270, 291),  # outer edge of the upper lip
    *(321, 314, 17, 84, 91),  # outer edge of the lower lip, image right to left
    *(78, 81, 13, 311, 308),  # inner edge of the upper lip
    *(402, 14, 178),  # inner edge of the lower lip, image right to left
)
"""68 indices into the 478 points."""

_PIXEL_CENTRE = 0.5
"""MediaPipe's positions times the size count from the centre of the first pixel, ours from its corner. Measured: on a
photo enlarged 12 times against the photo, and on rendered heads, the raw points lie 0.4-0.5 px up and left."""

_MAX_SIDE_PX = 1920
"""Larger frames are averaged down before detection: the detector looks at 128 or 192 pixels, the mesh at 256."""

_PAD_SHARE = 0.5
"""Black border for the second look, as a share of the longer side: faces that fill the picture become findable."""

_TILE_EVERY = 10
"""While no face is found, every so many frames (and in the first) small faces are sought in tiles of the
frame."""

_SAME_FACE_OVERLAP = 0.3
_UNCONFIRMED = 0.5
"""Confidence of a face that the mesh holds but the detector does not confirm; the mesh's own threshold."""


class MediaPipeTracker:
    """A `FaceTracker` on MediaPipe.

    Args:
        landmarker: path of a `face_landmarker.task`; default: the environment variable
            `EXPORT3D_FACE_LANDMARKER`, else FaceMesh from the wheel. Only the Face Landmarker gives
            blendshapes and the matrix.
        max_faces: most faces looked for in a frame.

    Raises:
        MissingExtraError: mediapipe is not installed.
        UsageError: The landmarker file does not exist or cannot be loaded.
    """

    def __init__(self, landmarker: str | Path | None = None, max_faces: int = 4) -> None:
        self._mediapipe = _import_mediapipe()
        self._max_faces = max_faces
        named = landmarker or os.environ.get(LANDMARKER_VARIABLE)
        self._landmarker = Path(named) if named else None
        digest = ""
        if self._landmarker is not None:
            if not self._landmarker.is_file():
                raise UsageError(
                    f"{self._landmarker}: no such Face Landmarker file (option --face-landmarker or the variable "
                    f"{LANDMARKER_VARIABLE}). Give the path of face_landmarker.task, or leave it out."
                )
            digest = hashlib.sha256(self._landmarker.read_bytes()).hexdigest()
        name = "mediapipe-face-landmarker" if self._landmarker else "mediapipe-face-mesh"
        self.info = ExtractorInfo(name, str(self._mediapipe.__version__), digest, "")
        self._video: Any = None  # follows faces from frame to frame
        self._still: Any = None  # looks at each picture anew
        self._detectors: list[Any] = []
        self._seen: set[int] = set()  # mesh graphs that have found a face
        self._num_lost: int | None = None  # frames since a face was seen; None before the first frame of a clip

    def detect(self, frame: np.ndarray) -> list[Face]:
        """The faces of a frame, uint8 ``(H, W, 3)`` RGB.

        Faces are sought in this order until one is found: the mesh on the frame; the mesh on the
        surroundings of each box of the face detector (small faces); both again with a black border (faces
        that fill the picture); tiles of the frame (very small faces; only now and then).
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame must be uint8 (H, W, 3); got {frame.dtype} {frame.shape}")
        small, factor = _reduced(frame)
        first = self._num_lost is None
        if first and self._video is not None:
            with _quiet():
                self._video.reset()
                self._video.process(_blank())
        faces = self._look(small, follow=True, both_ranges=first)
        if not faces:
            pad = int(_PAD_SHARE * max(small.shape[:2]))
            padded = np.pad(small, ((pad, pad), (pad, pad), (0, 0)))
            faces = [_moved(face, -pad, -pad) for face in self._look(padded, follow=False)]
        if not faces and (self._num_lost or 0) % _TILE_EVERY == 0:
            faces = self._look_in_tiles(small)
        self._num_lost = 0 if faces else (self._num_lost or 0) + 1
        return [_scaled(face, factor) for face in faces]

    def reset(self) -> None:
        """Forget the previous frame; the next one is searched anew."""
        self._num_lost = None

    def close(self) -> None:
        """Free MediaPipe's graphs."""
        with _quiet():
            for graph in (self._video, self._still, *self._detectors):
                if graph is not None:
                    graph.close()
        self._video = self._still = None
        self._detectors = []
        self._seen = set()

    def _look(self, frame: np.ndarray, *, follow: bool, both_ranges: bool = True) -> list[Face]:
        """Mesh on the frame, then on the surroundings of detector boxes that the mesh did not explain."""
        faces = self._mesh(frame, follow=follow)
        boxes = self._boxes(frame, (0, 1) if both_ranges or not faces else (0,))
        confirmed = []
        for face in faces:
            scores = [score for box, score in boxes if box_overlap(box, _core(face)) > _SAME_FACE_OVERLAP]
            confirmed.append(_with_confidence(face, max(scores, default=_UNCONFIRMED)))
        for box, score in boxes:
            if len(confirmed) >= self._max_faces:
                break
            if any(box_overlap(box, _core(face)) > 0.1 for face in confirmed):
                continue
            face = self._mesh_near(frame, box)
            if face is not None and not any(box_overlap(face.box, other.box) > 0.1 for other in confirmed):
                confirmed.append(_with_confidence(face, score))
        return confirmed

    def _look_in_tiles(self, frame: np.ndarray) -> list[Face]:
        """Faces too small for the detector: squares of 1/2, then 1/4 of the longer side, overlapping by
        half."""
        height, width = frame.shape[:2]
        for parts in (2, 4):
            side = max(height, width) // parts
            if side < 64:
                break
            found: list[Face] = []
            for y0 in range(0, max(height - side // 2, 1), side // 2):
                for x0 in range(0, max(width - side // 2, 1), side // 2):
                    tile = np.ascontiguousarray(frame[y0 : y0 + side, x0 : x0 + side])
                    for box, score in self._boxes(tile, (0, 1)):
                        face = self._mesh_near(frame, box + np.array([x0, y0, x0, y0]))
                        if face is not None and all(box_overlap(face.box, other.box) < 0.1 for other in found):
                            found.append(_with_confidence(face, score))
            if found:
                return found[: self._max_faces]
        return []

    def _mesh_near(self, frame: np.ndarray, box: np.ndarray) -> Face | None:
        """The mesh on a square of three box sides around one box of the detector, at 384 pixels."""
        side = max(int(3.0 * float(max(box[2] - box[0], box[3] - box[1]))), 16)
        x0, y0 = (int(value) for value in (box[:2] + box[2:]) / 2.0 - side / 2.0)
        image = Image.fromarray(frame).crop((x0, y0, x0 + side, y0 + side)).resize((384, 384))
        found = self._mesh(np.asarray(image), follow=False)
        centre = np.array([192.0, 192.0])
        near = [face for face in found if np.abs((face.box[:2] + face.box[2:]) / 2.0 - centre).max() < 64.0]
        if not near:
            return None
        return _moved(_scaled(near[0], side / 384.0), x0, y0)

    def _boxes(self, frame: np.ndarray, ranges: tuple[int, ...]) -> list[tuple[np.ndarray, float]]:
        """Boxes and scores of the near-range (0) and full-range (1) detectors, best first, without
        doubles."""
        if not self._detectors:
            make = self._mediapipe.solutions.face_detection.FaceDetection
            with _quiet():
                self._detectors = [make(model_selection=kind, min_detection_confidence=0.5) for kind in (0, 1)]
                for detector in self._detectors:
                    detector.process(_blank())
        height, width = frame.shape[:2]
        found = []
        for detector in (self._detectors[kind] for kind in ranges):
            for detection in detector.process(frame).detections or ():
                relative = detection.location_data.relative_bounding_box
                x0, y0 = relative.xmin * width, relative.ymin * height
                box = np.array([x0, y0, x0 + relative.width * width, y0 + relative.height * height])
                found.append((box, float(detection.score[0])))
        kept: list[tuple[np.ndarray, float]] = []
        for box, score in sorted(found, key=lambda item: -item[1]):
            if all(box_overlap(box, other) < _SAME_FACE_OVERLAP for other, _ in kept):
                kept.append((box, score))
        return kept

    def _mesh(self, frame: np.ndarray, *, follow: bool) -> list[Face]:
        graph = self._graph(follow=follow)
        # The first face makes it warn of things that are as they should be.
        with nullcontext() if id(graph) in self._seen else _quiet():
            faces = self._mesh_of(graph, frame)
        if faces:
            self._seen.add(id(graph))
        return faces

    def _mesh_of(self, graph: Any, frame: np.ndarray) -> list[Face]:
        height, width = frame.shape[:2]
        size = np.array([width, height, width], dtype=np.float32)
        if self._landmarker is None:
            found = graph.process(frame).multi_face_landmarks or ()
            return [_face(_points(mesh.landmark, size)) for mesh in found]
        result = graph.detect(self._picture(frame))
        faces = []
        for index, mesh in enumerate(result.face_landmarks):
            scores = {entry.category_name: float(entry.score) for entry in result.face_blendshapes[index]}
            blendshapes = np.array([scores[name] for name in BLENDSHAPE_NAMES], dtype=np.float32)
            matrix = np.asarray(result.facial_transformation_matrixes[index], dtype=np.float32)
            faces.append(_face(_points(mesh, size), blendshapes, matrix))
        return faces

    def _graph(self, *, follow: bool) -> Any:
        """The mesh graph, made when it is first needed. Face Landmarker has one graph for both uses."""
        made = self._video if follow and self._landmarker is None else self._still
        if made is not None:
            return made
        with _quiet():
            if self._landmarker is not None:
                self._still = _open_landmarker(self._mediapipe, self._landmarker, self._max_faces)
                self._still.detect(self._picture(_blank()))
                return self._still
            make = self._mediapipe.solutions.face_mesh.FaceMesh
            made = make(static_image_mode=not follow, max_num_faces=self._max_faces, refine_landmarks=True)
            made.process(_blank())
        if follow:
            self._video = made
        else:
            self._still = made
        return made

    def _picture(self, frame: np.ndarray) -> Any:
        return self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))


def _blank() -> np.ndarray:
    """A picture without a face. A graph starts on threads of its own, which write to stderr; a run waits for them, so a
    run on this one inside `_quiet` leaves nothing to be written later."""
    return np.zeros((64, 64, 3), dtype=np.uint8)


def _import_mediapipe() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet():
            import mediapipe
    except ImportError as error:
        raise MissingExtraError(
            f"Tracking faces needs mediapipe, which is not installed ({error}). "
            "Install it with: pip install 'export3d[face]'"
        ) from error
    if not hasattr(mediapipe, "solutions"):
        raise MissingExtraError(
            f"Tracking faces needs mediapipe 0.10.21; version {mediapipe.__version__} has no FaceMesh. "
            "Install the right one with: pip install 'export3d[face]'"
        )
    return mediapipe


def _open_landmarker(mediapipe: Any, path: Path, max_faces: int) -> Any:
    tasks = mediapipe.tasks
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_buffer=path.read_bytes()),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
        num_faces=max_faces,
    )
    try:
        return tasks.vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path}: MediaPipe cannot load this as a Face Landmarker ({error}). Fetch face_landmarker.task again."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: MediaPipe's C++ code writes to it past every log setting.

    Only for short moments: progress bars write there too, from a thread of their own.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _points(landmarks: Any, size: np.ndarray) -> np.ndarray:
    """``(478, 3)`` in pixels from shares of the width, the height and, for the depth, the width again."""
    points = np.array([(point.x, point.y, point.z) for point in landmarks], dtype=np.float32) * size
    points[:, :2] += _PIXEL_CENTRE
    return points


def _face(mesh: np.ndarray, blendshapes: np.ndarray | None = None, matrix: np.ndarray | None = None) -> Face:
    flat = mesh[:, :2]
    return Face(
        box=np.concatenate([flat.min(axis=0), flat.max(axis=0)]),
        landmarks_px=flat[list(MESH_TO_68)],
        confidence=_UNCONFIRMED,
        blendshapes=blendshapes,
        matrix=matrix,
        mesh=mesh,
    )


def _core(face: Face) -> np.ndarray:
    """The box from brows to chin, which is what MediaPipe's detector frames."""
    points = face.landmarks_px
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _with_confidence(face: Face, confidence: float) -> Face:
    return replace(face, confidence=min(confidence, 1.0))


def _moved(face: Face, x: float, y: float) -> Face:
    shift = np.array([x, y, 0.0], dtype=np.float32)
    mesh = None if face.mesh is None else face.mesh + shift
    return replace(face, box=face.box + np.tile(shift[:2], 2), landmarks_px=face.landmarks_px + shift[:2], mesh=mesh)


def _scaled(face: Face, factor: float) -> Face:
    if factor == 1.0:
        return face
    scale = np.float32(factor)
    mesh = None if face.mesh is None else face.mesh * scale
    return replace(face, box=face.box * scale, landmarks_px=face.landmarks_px * scale, mesh=mesh)


def _reduced(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """The frame averaged down by a whole factor so that its longer side is at most 1920, and that factor."""
    factor = -(-max(frame.shape[:2]) // _MAX_SIDE_PX)
    if factor == 1:
        return np.ascontiguousarray(frame), 1.0
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).reduce(factor)), float(factor)
