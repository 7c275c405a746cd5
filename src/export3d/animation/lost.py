"""What to do with frames in which the face is lost: hold the last expression, skip them, or stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from export3d.animation.drivers import Driver, DrivingFrame
from export3d.checks import check_choice
from export3d.errors import FaceLostError, NoFaceError
from export3d.tracking import unknown_gaze

POLICIES = ("hold", "skip", "abort")


class LostFaces:
    """Passes driving frames on and counts those without a face.

    `hold` repeats the last expression, camera and gaze (those of the portrait until a face appears), so that picture and
    sound keep their length. `skip` leaves the frames out; the times of all others stay, so the sound stays in step.

    Args:
        policy: `hold`, `skip` or `abort`.
        beta, camera: what to show before the first face.
        gaze: the same of the eyes; unknown when None.
    """

    def __init__(self, policy: str, beta: np.ndarray, camera: np.ndarray, gaze: np.ndarray | None = None) -> None:
        self.policy = check_choice("--on-lost", policy, POLICIES)
        self.num_found = 0
        self.num_lost = 0
        self.gaps: list[tuple[int, int]] = []
        """First and last frame of every run of frames without the face."""
        self.num_other = 0
        """Lost frames that have another face."""
        self.cuts: list[int] = []
        """First frames of further shots."""
        self._beta, self._camera = beta, camera
        self._gaze = unknown_gaze() if gaze is None else gaze

    def __call__(self, driver: Driver) -> Iterator[DrivingFrame]:
        """The driver's frames under the policy.

        Raises:
            FaceLostError: A face was lost and the policy is `abort`.
            NoFaceError: Not one frame had a face (raised at the end).
        """
        for frame in driver:
            if frame.cut:
                self.cuts.append(frame.index)
            if frame.found:
                self.num_found += 1
                self._beta, self._camera, self._gaze = frame.beta, frame.camera, frame.gaze
                yield frame
                continue
            self.num_lost += 1
            self.num_other += frame.other
            self._note_gap(frame.index)
            if self.policy == "abort":
                at = float(frame.pts * driver.time_base)
                what = "the face that is followed is not" if frame.other else "no face"
                raise FaceLostError(
                    f"{driver.name}: {what} in frame {frame.index} at {at:.2f} s. Cut the clip there, or use "
                    "--on-lost hold (keep the last expression) or --on-lost skip (leave such frames out)."
                )
            if self.policy == "hold":
                yield replace(frame, beta=self._beta, camera=self._camera, gaze=self._gaze)
        if self.num_found == 0:
            raise NoFaceError(
                f"{driver.name}: no face was found in any of its {self.num_lost} frames. Use a clip in which one "
                "face looks roughly towards the camera and fills a good part of the picture."
            )

    def _note_gap(self, index: int) -> None:
        if self.gaps and self.gaps[-1][1] == index - 1:
            self.gaps[-1] = (self.gaps[-1][0], index)
        else:
            self.gaps.append((index, index))
