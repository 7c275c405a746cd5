"""Driving frames without a face under the policy of `LostFaces`: what is shown in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from export3d.animation.drivers import Driver, DrivingFrame
from export3d.face_state import FaceState
from export3d.tracking import LostFaces


def hold_lost(driver: Driver, lost: LostFaces, state: FaceState, camera: np.ndarray) -> Iterator[DrivingFrame]:
    """The driver's frames that `lost` keeps; one without a face repeats the face and camera before it.

    Args:
        state, camera: the portrait's own, shown until a face appears.

    Raises:
        FaceLostError: A face was lost and the policy is `abort`.
        NoFaceError: Not one frame had a face (raised at the end).
    """
    for frame in driver:
        if frame.found:
            state, camera = frame.state, frame.camera
        if lost.keeps(frame, index=frame.index, time_s=float(frame.pts * driver.time_base)):
            yield frame if frame.found else replace(frame, state=state, camera=camera)
    lost.require_a_face()
