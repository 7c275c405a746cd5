"""What to do with frames in which the face is lost: hold what was before, skip them, or stop."""

from __future__ import annotations

from typing import Protocol

from export3d.checks import check_choice
from export3d.errors import FaceLostError, NoFaceError

POLICIES = ("hold", "skip", "abort")


class Seen(Protocol):
    """What is known of a frame: whether it has the face, another face, and whether another shot begins with it."""

    @property
    def found(self) -> bool: ...

    @property
    def other(self) -> bool: ...

    @property
    def cut(self) -> bool: ...


class LostFaces:
    """Says which frames of a clip stay in, and counts those without a face.

    `hold` keeps them, so that picture and sound keep their length; the caller gives them the values of the frame before.
    `skip` leaves them out; the times of all others stay, so the sound stays in step. `abort` raises an error.

    Args:
        policy: `hold`, `skip` or `abort`.
        name: the clip's name, for error texts.

    Raises:
        UsageError: Another policy.
    """

    def __init__(self, policy: str, *, name: str) -> None:
        self.policy = check_choice("--on-lost", policy, POLICIES)
        self.name = name
        self.num_found = 0
        self.num_lost = 0
        self.gaps: list[tuple[int, int]] = []
        """First and last frame of every run of frames without the face."""
        self.num_other = 0
        """Frames without the face that have another one."""
        self.cuts: list[int] = []
        """First frames of further shots."""

    def keeps(self, frame: Seen, *, index: int, time_s: float) -> bool:
        """Count the next frame, its cut too; whether it stays in.

        Raises:
            FaceLostError: A face was lost and the policy is `abort`.
        """
        if frame.cut:
            self.cuts.append(index)
        if frame.found:
            self.num_found += 1
            return True
        self.num_lost += 1
        self.num_other += frame.other
        if self.gaps and self.gaps[-1][1] == index - 1:
            self.gaps[-1] = (self.gaps[-1][0], index)
        else:
            self.gaps.append((index, index))
        if self.policy == "abort":
            what = "the face that is followed is not" if frame.other else "no face"
            raise FaceLostError(
                f"{self.name}: {what} in frame {index} at {time_s:.2f} s. Cut the clip there, or use "
                "--on-lost hold (keep the last expression) or --on-lost skip (leave such frames out)."
            )
        return self.policy == "hold"

    def require_a_face(self) -> None:
        """At the end: raise `NoFaceError` where not one frame had a face."""
        if self.num_found == 0:
            raise NoFaceError(
                f"{self.name}: no face was found in any of its {self.num_lost} frames. Use a clip in which one face looks "
                "roughly towards the camera and fills a good part of the picture."
            )
