"""Which face of a frame continues which track (Sec. 4.1: detect and track faces)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export3d.tracking import Face
from export3d.tracking.alignment import five_points
from export3d.tracking.faces import box_overlap
from export3d.tracking.selection import FOLLOW_OVERLAP, follow_face

_GUIDE_DISTANCE = 0.5
"""A face may be this many of its heights away from where the data set says it is."""


class FaceFollower:
    """Gives the faces of successive frames track numbers; a track that is not continued has ended.

    Args:
        every_face: follow all faces; otherwise the largest one, or the one that a guide names.
    """

    def __init__(self, every_face: bool = False) -> None:
        self.every_face = every_face
        self._boxes: dict[int, np.ndarray] = {}
        self._next = 0

    def update(self, faces: Sequence[Face], guide: np.ndarray | None = None) -> dict[int, Face]:
        """The next frame.

        Args:
            faces: in any order.
            guide: ``(5, 2)`` where the meant face has its five points, in pixels; overrides size and `every_face`.

        Returns:
            Track number -> face, for the tracks that go on or begin in this frame.
        """
        if guide is not None:
            tracks = self._one(nearest_to_guide(faces, guide))
        elif self.every_face:
            tracks = self._all(faces)
        else:
            active = next(iter(self._boxes.values()), None)
            face = follow_face(faces, active) if active is not None else None
            tracks = self._one(face or max(faces, key=lambda face: face.area_px, default=None))
        self._boxes = {number: face.box for number, face in tracks.items()}
        return tracks

    def reset(self) -> None:
        """End all tracks: another shot begins."""
        self._boxes = {}

    def _one(self, face: Face | None) -> dict[int, Face]:
        if face is None:
            return {}
        for number, box in self._boxes.items():
            if box_overlap(box, face.box) >= FOLLOW_OVERLAP:
                return {number: face}
        return {self._new(): face}

    def _all(self, faces: Sequence[Face]) -> dict[int, Face]:
        pairs = [
            (box_overlap(box, face.box), number, place)
            for number, box in self._boxes.items()
            for place, face in enumerate(faces)
        ]
        tracks: dict[int, Face] = {}
        taken: set[int] = set()
        for overlap, number, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if overlap >= FOLLOW_OVERLAP and number not in tracks and place not in taken:
                tracks[number] = faces[place]
                taken.add(place)
        left_over = [face for place, face in enumerate(faces) if place not in taken]
        for face in sorted(left_over, key=lambda face: float(face.box[0])):
            tracks[self._new()] = face
        return tracks

    def _new(self) -> int:
        self._next += 1
        return self._next - 1


def nearest_to_guide(faces: Sequence[Face], guide: np.ndarray) -> Face | None:
    """The face whose middle is nearest to the guide's, if it is near at all."""
    best = min(faces, key=lambda face: _distance(face, guide), default=None)
    return best if best is not None and _distance(best, guide) <= _GUIDE_DISTANCE else None


def _distance(face: Face, guide: np.ndarray) -> float:
    """In heights of the face."""
    middle = five_points(face.landmarks_px).mean(axis=0)
    return float(np.linalg.norm(middle - guide.mean(axis=0))) / max(face.height_px, 1.0)
