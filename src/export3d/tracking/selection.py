"""Which of several faces is meant: --face largest, left, right or a number; and following one face over
time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export3d.errors import SeveralFacesError, UsageError
from export3d.tracking.faces import Face, box_overlap

MINOR_SHARE = 1.0 / 3.0
"""Without a choice, faces lower than this share of the highest one do not count as rivals (people in the
distance)."""

FOLLOW_OVERLAP = 0.2
"""Least overlap (intersection over union) with the previous box that counts as the same face."""


def parse_choice(text: str | int | None, option: str = "--face") -> str | int | None:
    """`largest`, `left`, `right` or a number from 0 (leftmost) on; None where no choice was made.

    Raises:
        UsageError: Anything else.
    """
    if text is None or isinstance(text, int):
        if isinstance(text, int) and text < 0:
            raise UsageError(f"{option}: a face number starts at 0; got {text}.")
        return text
    if text in ("largest", "left", "right"):
        return text
    if text.isdecimal():
        return int(text)
    raise UsageError(
        f"{option}: '{text}' is not known. Use largest, left, right, or a number (0 is the leftmost face)."
    )


def choose_face(faces: Sequence[Face], choice: str | int | None, *, where: str, option: str = "--face") -> Face:
    """Pick one of at least one face.

    Args:
        where: what is being tracked, for the error text ("photo.jpg", "frame 0 of clip.mp4").
        option: what makes the choice on the command line.

    Raises:
        SeveralFacesError: Several faces of comparable size and no choice.
        UsageError: A number that no face has.
    """
    if not faces:
        raise ValueError("choose_face needs at least one face")
    ordered = sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))  # from left to right
    if choice is None:
        tallest = max(face.height_px for face in ordered)
        rivals = [face for face in ordered if face.height_px >= MINOR_SHARE * tallest]
        if len(rivals) > 1:
            raise SeveralFacesError(
                f"{where}: {len(ordered)} faces, and no choice was made.\n{describe(ordered)}\n"
                f"Pass {option} largest, {option} left, {option} right, or {option} with one of these numbers."
            )
        return rivals[0]
    if choice == "largest":
        return max(ordered, key=lambda face: face.area_px)
    if choice == "left":
        return ordered[0]
    if choice == "right":
        return ordered[-1]
    if not isinstance(choice, int):
        raise UsageError(f"{option}: '{choice}' is not known. Use largest, left, right, or a number.")
    if choice >= len(ordered):
        raise UsageError(
            f"{where}: {option} {choice} was asked for, but only {len(ordered)} face(s) were found, numbered from 0.\n"
            f"{describe(ordered)}"
        )
    return ordered[choice]


def follow_face(faces: Sequence[Face], previous_box: np.ndarray) -> Face | None:
    """The face that overlaps the previous box most, if any does so enough to be the same one."""
    best = max(faces, key=lambda face: box_overlap(face.box, previous_box), default=None)
    if best is None or box_overlap(best.box, previous_box) < FOLLOW_OVERLAP:
        return None
    return best


def nearest_face(faces: Sequence[Face], box: np.ndarray) -> Face:
    """The face whose centre is nearest to the centre of a box: picks up a face again after it was lost."""
    centre = (box[:2] + box[2:]) / 2.0
    return min(faces, key=lambda face: float(np.linalg.norm(face.centre - centre)))


def describe(ordered: Sequence[Face]) -> str:
    """One line for each face: number, place and size."""
    lines = []
    for number, face in enumerate(ordered):
        x0, y0, x1, y1 = (round(float(value)) for value in face.box)
        lines.append(f"  {number}: {x1 - x0}x{y1 - y0} px at x {x0}, y {y0}, confidence {face.confidence:.2f}")
    return "\n".join(lines)
