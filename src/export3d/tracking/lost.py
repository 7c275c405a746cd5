"""What to do with frames in which the face is lost: hold what was before, skip them, or stop."""

from __future__ import annotations

from export3d.checks import check_choice
from export3d.errors import FaceLostError, NoFaceError

POLICIES = ("hold", "skip", "abort")


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
        """First and last frame of every run of frames without a face."""

    def keeps(self, found: bool, *, index: int, time_s: float) -> bool:
        """Count the next frame; whether it stays in.

        Raises:
            FaceLostError: A face was lost and the policy is `abort`.
        """
        if found:
            self.num_found += 1
            return True
        self.num_lost += 1
        if self.gaps and self.gaps[-1][1] == index - 1:
            self.gaps[-1] = (self.gaps[-1][0], index)
        else:
            self.gaps.append((index, index))
        if self.policy == "abort":
            raise FaceLostError(
                f"{self.name}: no face in frame {index} at {time_s:.2f} s. Cut the clip there, or use "
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
