"""MediaPipe's graphs, each made when it is first needed, and silent: detector, mesh anew, mesh from frame to frame (Sec. 4)."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from export3d.downloads import FACE_LANDMARKER
from export3d.errors import MissingExtraError, UsageError, missing_library
from export3d.images import read_image
from export3d.tracking.faces import Face
from export3d.tracking.mediapipe_results import detected
from export3d.tracking.reports import deferred_imports, stop_reports
from export3d.tracking.views import View

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

_DETECTOR = "face_detector.tflite"
"""Member of the landmarker's file."""

_LEAST = 0.5
"""Least score that counts as a face."""

_PIXEL_CENTRE = 0.5
"""MediaPipe's positions times the size count from the centre of the first pixel, ours from its corner. Measured on a photo
enlarged 12 times against the photo."""

_FRAME_MS = 160
"""The landmarker calms its points by time stamps; frames count as 25 per second."""


class Graphs:
    """MediaPipe's three graphs, each made when it is first needed: detector, mesh anew, mesh from frame to frame."""

    def __init__(self, mediapipe: Any, path: Path, matrix: bool) -> None:
        self.mediapipe = mediapipe
        self._path, self._matrix = path, matrix
        self._made: dict[str, Any] = {}
        self._warned: set[str] = set()  # graphs that have found a face
        self._time_ms = 0

    def boxes(self, view: View, frame: np.ndarray) -> list[tuple[float, np.ndarray, float]]:
        """Score, box ``(4,)`` in pixels of the frame (brows to chin) and roll of each face in the view."""
        picture = view.cut(frame)
        result = self._run("detector", lambda graph: graph.detect(self._image(picture)))
        found = []
        for detection in result.detections:
            box, eyes = detection.bounding_box, detection.keypoints[:2]
            side = float(picture.shape[0])
            corners = np.array([[box.origin_x, box.origin_y], [box.origin_x + box.width, box.origin_y + box.height]])
            corners = view.to_frame(corners / side)
            left, right = view.to_frame(np.array([[eye.x, eye.y] for eye in eyes]))
            box_px = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
            score = float(detection.categories[0].score)
            found.append((score, box_px, float(np.arctan2(*(right - left)[::-1]))))
        return found

    def read(self, view: View, frame: np.ndarray, score: float, *, follow: bool) -> Face | None:
        """The face in a view, in pixels of the frame."""
        picture = view.cut(frame)
        if follow:
            self._time_ms += _FRAME_MS
        kind = "following" if follow else "anew"
        found = self._run(kind, lambda graph: detected(graph, picture, self._time_ms if follow else None))
        if found is None:
            return None
        found.points[:, :2] += _PIXEL_CENTRE / picture.shape[0]
        mesh = view.to_frame(found.points)
        flat = mesh[:, :2]
        return Face(
            box=np.concatenate([flat.min(axis=0), flat.max(axis=0)]),
            landmarks_px=flat[list(MESH_TO_68)],
            confidence=min(score, 1.0),
            blendshapes=found.scores,
            matrix=found.matrix,
            mesh=mesh,
        )

    def forget(self) -> None:
        """Let the following graph lose its face, so that the next picture is searched anew."""
        if "following" in self._made:
            self._time_ms += _FRAME_MS
            self._run("following", lambda graph: detected(graph, _blank(), self._time_ms))

    def close(self) -> None:
        """Free the graphs; they are made again when they are needed."""
        with _quiet() if self._made else nullcontext():
            for graph in self._made.values():
                graph.close()
        self._made.clear()
        self._warned.clear()

    def _run(self, kind: str, call: Any) -> Any:
        if kind not in self._made:
            with _quiet():
                self._made[kind] = self._make(kind)
                # A graph starts on threads of its own, which write to stderr; a run waits for them. A face makes all of them
                # run, and the picture without one after it lets the graph forget that face.
                graph = self._made[kind]
                for picture in (_sample_face(), _blank()):
                    self._time_ms += _FRAME_MS
                    shown = self._image(picture)
                    graph.detect_for_video(shown, self._time_ms) if kind == "following" else graph.detect(shown)
                self._time_ms += _FRAME_MS
        if kind in self._warned:
            return call(self._made[kind])
        with _quiet():  # the first face makes it warn of things that are as they should be
            result = call(self._made[kind])
        if result is not None:
            self._warned.add(kind)
        return result

    def _make(self, kind: str) -> Any:
        tasks = self.mediapipe.tasks
        vision, base = tasks.vision, tasks.BaseOptions
        try:
            if kind == "detector":
                with zipfile.ZipFile(self._path) as opened:
                    content = opened.read(_DETECTOR)
                options = vision.FaceDetectorOptions(
                    base_options=base(model_asset_buffer=content), min_detection_confidence=_LEAST
                )
                return vision.FaceDetector.create_from_options(options)
            mode = vision.RunningMode.VIDEO if kind == "following" else vision.RunningMode.IMAGE
            options = vision.FaceLandmarkerOptions(
                base_options=base(model_asset_buffer=self._path.read_bytes()),
                running_mode=mode,
                num_faces=1,  # more than one, and MediaPipe does not calm the points
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=self._matrix,
            )
            return vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{self._path}: MediaPipe cannot load this as a Face Landmarker ({error}). Leave the option out and run: "
                f"{FACE_LANDMARKER.command}"
            ) from error

    def _image(self, picture: np.ndarray) -> Any:
        return self.mediapipe.Image(image_format=self.mediapipe.ImageFormat.SRGB, data=picture)


def _sample_face() -> np.ndarray:
    """uint8 ``(H, W, 3)``: the bundled sample portrait."""
    return read_image(Path(str(resources.files("export3d"))) / "assets" / "samples" / "portrait_1.png")


def _blank() -> np.ndarray:
    return np.zeros((64, 64, 3), dtype=np.uint8)


def import_mediapipe() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet(), deferred_imports():
            import mediapipe

            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=_blank())  # loads its library
        for library in Path(mediapipe.__file__).parent.rglob("libmediapipe*.so"):
            stop_reports(library)
    except (ImportError, OSError) as error:
        raise missing_library("Tracking faces", error) or MissingExtraError(
            f"Tracking faces needs mediapipe, which is not installed ({error}). "
            "Install it with: pip install 'export3d[face]'"
        ) from error
    if not hasattr(mediapipe, "tasks") or hasattr(mediapipe, "solutions"):
        raise MissingExtraError(
            f"Tracking faces needs mediapipe 1.2 or newer; this is {mediapipe.__version__}. "
            "Install the right one with: pip install 'export3d[face]'"
        )
    return mediapipe


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
