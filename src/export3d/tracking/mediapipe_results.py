"""What MediaPipe's Face Landmarker finds, read as arrays from its memory (Sec. 4).

Its Python side makes an object of each of 478 points and 52 scores, which costs a tenth of what finding them does.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np

_SRGB = 1
"""MediaPipe's number for three bytes of red, green and blue."""


class Found(NamedTuple):
    """The first face of a picture."""

    points: np.ndarray
    """``(478, 3)`` float32 in [0, 1] of the picture, depth in the scale of x."""
    scores: np.ndarray
    """``(52,)`` float32 in the order of `BLENDSHAPE_NAMES`."""
    matrix: np.ndarray | None
    """``(4, 4)`` float32, the head's pose in MediaPipe's space, where the graph gives it."""


def detected(graph: Any, picture: np.ndarray, time_ms: int | None = None) -> Found | None:
    """As `graph.detect_for_video(picture, time_ms)` of a `FaceLandmarker` with scores, or `graph.detect(picture)`,
    of a contiguous uint8 ``(H, W, 3)``; None where no face is found. One thread at a time may call it.

    The C functions behind both are the same in all versions from 1.2.0 to 1.2.3. They are called here, not by way of the
    thread that each graph has for them in Python, and are not declared anew for each picture.
    """
    from mediapipe.tasks.python.vision.face_landmarker import MpFaceLandmarkerResultC

    library, answer, image = graph._lib._lib, MpFaceLandmarkerResultC(), ctypes.c_void_p()
    pixels = ctypes.cast(picture.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
    height, width, _ = picture.shape
    _call(library, "MpImageCreateFromUint8Data", _SRGB, width, height, pixels, picture.size, ctypes.byref(image))
    kind, when = ("ForVideo", (time_ms,)) if time_ms is not None else ("Image", ())
    place = ctypes.byref(answer)
    try:
        _call(library, f"MpFaceLandmarkerDetect{kind}", graph._handle, image, None, *when, place)
        found = _read(answer)
        library.MpFaceLandmarkerCloseResult(place)
        return found
    finally:
        library.MpImageFree(image)


def _call(library: Any, name: str, *arguments: Any) -> None:
    """A C function whose last argument takes the text of an error."""
    from mediapipe.tasks.python.core.mediapipe_c_utils import handle_status

    told = ctypes.c_char_p()
    status = getattr(library, name)(*arguments, ctypes.byref(told))
    try:
        handle_status(status, told)
    finally:
        if told:
            library.MpErrorFree(told)


def _read(answer: Any) -> Found | None:
    if not answer.face_landmarks_count:
        return None
    points, known = answer.face_landmarks[0], answer.face_blendshapes[0]
    corners = _copied(points.landmarks, points.landmarks_count)
    scores = _copied(known.categories, known.categories_count)
    return Found(
        np.stack([corners[axis] for axis in "xyz"], axis=1),
        scores["score"][np.argsort(scores["index"])],
        answer.facial_transformation_matrixes[0].to_numpy() if answer.facial_transformation_matrixes_count else None,
    )


def _copied(first: Any, count: int) -> np.ndarray:
    """An array of C structures, by its first one's pointer."""
    return np.frombuffer(ctypes.string_at(first, count * ctypes.sizeof(first._type_)), dtype=_layout(first._type_))


@cache
def _layout(structure: Any) -> np.dtype:
    """Of the structure's numbers; NumPy cannot tell a pointer to a text."""
    kinds = {name: kind for name, kind in structure._fields_ if kind is not ctypes.c_char_p}
    offsets = [getattr(structure, name).offset for name in kinds]
    layout: Any = {"names": list(kinds), "formats": list(kinds.values()), "offsets": offsets}
    return np.dtype(layout | {"itemsize": ctypes.sizeof(structure)})
