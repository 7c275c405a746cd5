"""CSIM of real people offline (Sec. 4.2): dlib's face recognition network, whose weights are in the public domain (CC0).

Extra `identity`: `dlib-bin` and `face-recognition-models`. Of the latter only the recognition network is read: its 68-point
file is not free for commercial use, and landmarks come from the tracker. The network was trained on photographs of faces that
were collected from the web; use it to score, for nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from export3d.errors import MissingExtraError
from export3d.evaluation.metrics.backends import FaceBackend
from export3d.identity.crops import METRIC_SIZE_PX
from export3d.tracking.faces import ExtractorInfo

_CHIP_PX, _PADDING = 150, 0.25  # the crop that the network was trained on
_WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
_CENTRE = np.array(
    """
    -0.120 0.104 0.074 -0.029 -0.085 -0.049 -0.026 -0.099 0.182 -0.070 0.185 0.008 -0.206 -0.045 -0.015 0.121 -0.181 -0.137
    -0.077 -0.073 0.022 0.040 0.042 0.052 -0.128 -0.314 -0.071 -0.110 0.060 -0.107 -0.012 0.043 -0.202 -0.060 0.017 0.080
    -0.029 -0.070 0.201 0.015 -0.196 -0.015 0.046 0.268 0.231 0.007 0.002 -0.075 0.137 -0.243 0.045 0.166 0.080 0.071 0.053
    -0.164 0.012 0.105 -0.175 0.057 0.075 -0.090 -0.021 -0.036 0.215 0.081 -0.122 -0.131 0.138 -0.159 -0.034 0.094 -0.123
    -0.160 -0.269 0.022 0.398 0.106 -0.151 0.029 -0.131 -0.034 0.020 0.105 -0.052 -0.009 -0.094 0.033 0.203 -0.001 -0.022
    0.217 -0.008 0.018 0.010 0.052 -0.126 -0.019 -0.115 -0.038 0.010 -0.066 -0.010 0.116 -0.190 0.151 0.008 -0.000 -0.001
    -0.022 -0.076 -0.037 0.151 -0.249 0.223 0.170 0.023 0.140 0.042 0.066 -0.019 -0.018 -0.136 -0.054 0.028 -0.039 0.047
    0.021
    """.split(),
    dtype=float,
)
"""Mean embedding of 159 photographed people: plain embeddings of two people have a cosine of 0.84 on average."""


class DlibIdentity:
    """Embeddings ``(T, 128)`` less their mean over people, so that strangers have a cosine near 0.

    Args:
        faces: gives the landmarks of the crop.

    Raises:
        MissingExtraError: The packages are not installed.
    """

    def __init__(self, faces: FaceBackend) -> None:
        try:
            dlib = importlib.import_module("dlib")
        except ModuleNotFoundError as error:
            raise _missing() from error
        path = weights_path()
        self._dlib: Any = dlib
        self._faces = faces
        self._network = dlib.face_recognition_model_v1(str(path))
        version = importlib.metadata.version("face-recognition-models")
        self.info = ExtractorInfo("dlib-resnet-centred", version, hashlib.sha256(path.read_bytes()).hexdigest(), "")

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """See `IdentityBackend.embeddings`."""
        landmarks = self._faces.measure(frames).landmarks * (frames.shape[1] / METRIC_SIZE_PX)
        out = np.full((len(frames), len(_CENTRE)), np.nan)
        for row, (frame, points) in enumerate(zip(frames, landmarks, strict=True)):
            if np.isfinite(points).all():
                out[row] = np.array(self._network.compute_face_descriptor(self._chip(frame, points))) - _CENTRE
        return out

    def _chip(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The face ``(150, 150, 3)``, levelled by its 68 points in pixels."""
        dlib = self._dlib
        low, high = points.min(axis=0).astype(int).tolist(), points.max(axis=0).astype(int).tolist()
        places = [dlib.point(*place) for place in np.rint(points).astype(int).tolist()]
        face = dlib.full_object_detection(dlib.rectangle(*low, *high), places)
        return dlib.get_face_chip(np.ascontiguousarray(frame), face, size=_CHIP_PX, padding=_PADDING)


def weights_path() -> Path:
    """The network's file in the installed package, which is found without importing it (that would need setuptools).

    Raises:
        MissingExtraError: The package is not installed.
    """
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise _missing()
    return Path(found.submodule_search_locations[0]) / "models" / _WEIGHTS


def _missing() -> MissingExtraError:
    return MissingExtraError(
        "--identity dlib needs dlib-bin and face-recognition-models. Run: pip install 'export3d[identity]'"
    )
