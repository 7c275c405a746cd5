"""MediaPipe's Face Landmarker as a face tracker: 478 points, 52 scores and the facial matrix (Sec. 4)."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np

from export3d.downloads import FACE_LANDMARKER, require
from export3d.tracking.faces import ExtractorInfo, Face, box_overlap, moved
from export3d.tracking.mediapipe_graphs import Graphs, import_mediapipe
from export3d.tracking.views import DETECTABLE, View, tiles, view_around, whole_views

NAME = "mediapipe-face-landmarker"

_SURE = 0.8
"""Score of the detector from which a face stands upright. Faces that lie get less (measured: 0.87 to 0.97 upright, 0.5 to
0.8 upside down); then the turned pictures are looked at too."""

_SMALLEST_PX = 32
"""Smallest face that is sought in tiles, pixels of the frame."""

_WIDE = 2.0
"""Frames so many times as wide as high are searched in squares, too."""

_MOVED = 0.02
"""A face that is so much of its size, turn or place away from where it was looked for is read a second time: the graph looks
where the face was, and the farther that is off, the worse it reads lids, brows and lips."""

_GOES_ON, _JUMPS = 0.7, 0.1
"""The view goes on by so much of what the face has gone from frame to frame; what is farther than so many sizes is a jump."""

_TILE_EVERY = 25
"""While no face is found, every so many frames (and in the first) small faces are sought in tiles."""


class MediaPipeTracker:
    """A `FaceTracker` on MediaPipe's Face Landmarker.

    A face that is followed is read in a view of its own, by a graph that goes from frame to frame and calms its points
    (One-Euro). Faces that are not known yet are sought by the detector, then read in views of their own, each anew.

    Args:
        landmarker: path of a `face_landmarker.task`; default: the environment variable `EXPORT3D_FACE_LANDMARKER`, else
            what `export3d models get face-landmarker` has fetched.
        max_faces: most faces looked for in a frame.
        matrix: whether faces get their `Face.matrix`, which costs some hundredths of the time.

    Raises:
        MissingExtraError: mediapipe is not installed.
        DownloadError: The landmarker's file has not been fetched; UsageError: a file that is named does not exist.
    """

    def __init__(self, landmarker: str | Path | None = None, max_faces: int = 4, *, matrix: bool = True) -> None:
        self._path = require(FACE_LANDMARKER, landmarker)
        self._graphs = Graphs(import_mediapipe(), self._path, matrix)
        self._max_faces = max_faces
        digest = hashlib.sha256(self._path.read_bytes()).hexdigest()
        self.info = ExtractorInfo(NAME, str(self._graphs.mediapipe.__version__), digest, "")
        self._view: View | None = None  # of the face that is followed
        self._before: np.ndarray | None = None  # its middle in the frame before, pixels
        self._num_lost: int | None = None  # frames since a face was seen; None before the first frame of a clip
        self._closing = weakref.finalize(self, self._graphs.close)

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        """The faces of a frame, uint8 ``(H, W, 3)`` RGB; `near` is followed where it is still there."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame must be uint8 (H, W, 3); got {frame.dtype} {frame.shape}")
        face = self._follow(frame, near) if near is not None else None
        if face is not None:
            self._num_lost = 0
            return [face]
        self._view = self._before = None
        faces = self._search(frame)
        self._num_lost = 0 if faces else (self._num_lost or 0) + 1
        return faces

    def reset(self) -> None:
        """Forget the previous frame; the next one is searched anew."""
        self._num_lost = self._view = self._before = None

    def close(self) -> None:
        """Free MediaPipe's graphs."""
        self._graphs.close()

    def _follow(self, frame: np.ndarray, near: Face) -> Face | None:
        gone = np.zeros(2) if self._before is None else near.centre - self._before
        gone = np.round(_GOES_ON * gone) if np.abs(gone).max() < _JUMPS * near.size_px else np.zeros(2)
        self._before = near.centre
        if self._view is None or not self._view.holds(near):
            self._view, gone = view_around(near.box, near.roll), np.zeros(2)
            self._graphs.forget()
        self._view = replace(self._view, x=self._view.x + int(gone[0]), y=self._view.y + int(gone[1]))
        face = self._graphs.read(self._view, frame, near.confidence, follow=True)
        if face is None or moved(replace(near, box=near.box + np.tile(gone, 2)), face) < _MOVED:
            return face
        return self._graphs.read(self._view, frame, near.confidence, follow=True) or face

    def _search(self, frame: np.ndarray) -> list[Face]:
        """Detector on the whole frame, on turned copies where a face may lie on its side, with a border, and, now and
        then, on tiles; then the mesh around each box that was found."""
        height, width = frame.shape[:2]
        for view in whole_views(width, height):
            boxes = self._boxes(frame, [view])
            if boxes and max(width, height) >= _WIDE * min(width, height):  # small in the square around a wide frame
                boxes = self._boxes(frame, [view, *tiles(width, height, min(width, height))])
            faces = self._read(frame, boxes)
            if faces:
                return faces
        if (self._num_lost or 0) % _TILE_EVERY == 0:
            side = min(height, width)
            side = side // 2 if side == max(height, width) else side
            while side * DETECTABLE >= _SMALLEST_PX / 2.0:
                faces = self._read(frame, self._boxes(frame, list(tiles(width, height, side))))
                if faces:
                    return faces
                side //= 2
        return []

    def _boxes(self, frame: np.ndarray, views: list[View]) -> list[tuple[float, View]]:
        """Scores and views around the faces that the detector finds, best first, without doubles."""
        found: list[tuple[float, np.ndarray, View]] = []
        for view in views:
            upright = self._graphs.boxes(view, frame)
            if len(views) == 1 and all(score < _SURE for score, _, _ in upright):
                for turns in (1, 3, 2):
                    upright += self._graphs.boxes(View(x=view.x, y=view.y, side=view.side, turns=turns), frame)
            found += [(score, box, view_around(box, roll)) for score, box, roll in upright]
        kept: list[tuple[float, np.ndarray, View]] = []
        for score, box, view in sorted(found, key=lambda item: -item[0]):
            if all(box_overlap(box, other) < 0.3 for _, other, _ in kept):
                kept.append((score, box, view))
        return [(score, view) for score, _, view in kept]

    def _read(self, frame: np.ndarray, found: list[tuple[float, View]]) -> list[Face]:
        """The mesh in each view; faces that turn out to be the same count once."""
        faces: list[Face] = []
        for score, view in found:
            if len(faces) >= self._max_faces:
                break
            face = self._graphs.read(view, frame, score, follow=False)
            if face is not None and all(box_overlap(face.box, other.box) < 0.1 for other in faces):
                faces.append(face)
        return faces
