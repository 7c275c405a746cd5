"""Back ends that the user brings: face-alignment for AKD, an ArcFace ONNX file for CSIM (Sec. 4.2). Imported when used."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export3d.errors import CheckpointError, MissingExtraError
from export3d.evaluation.metrics.backends import FaceBackend, FaceMeasures
from export3d.identity.crops import METRIC_SIZE_PX, TEMPLATE_SIZE_PX, crop_faces
from export3d.tracking.faces import ExtractorInfo

_BATCH = 32


class FaceAlignmentBackend:
    """Landmarks from face-alignment's 2D FAN (the paper's AKD); expression and pose from another back end.

    Args:
        base: gives expression and pose.
        device: where FAN runs.

    Raises:
        MissingExtraError: face-alignment is not installed.
    """

    def __init__(self, base: FaceBackend, device: str = "cpu") -> None:
        module = _import("face_alignment", "face-alignment", "--landmarks face-alignment")
        kinds = module.LandmarksType
        kind = kinds.TWO_D if hasattr(kinds, "TWO_D") else getattr(kinds, "_2D")  # noqa: B009 (renamed in 1.4)
        self._network = module.FaceAlignment(kind, device=device, flip_input=False)
        self._base = base
        self.info = base.info
        # Its weights come through torch.hub, which checks their hash; the package does not tell where they lie.
        version = importlib.metadata.version("face-alignment")
        self.landmark_info = ExtractorInfo("face-alignment-2dfan", version, "", "")

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        """See `FaceBackend.measure`; of several faces the largest counts."""
        base = self._base.measure(frames)
        points = [largest_face(self._network.get_landmarks_from_image(frame)) for frame in frames]
        landmarks = np.stack(points) * (METRIC_SIZE_PX / frames.shape[1])
        return FaceMeasures(landmarks=landmarks, expression=base.expression, pose=base.pose)


class ArcFace:
    """Embeddings of a network that reads the 112-pixel five-point crop.

    Args:
        network: float32 ``(N, 3, 112, 112)`` RGB in [-1, 1] -> ``(N, E)``.
        info: what the network is.
        faces: gives the landmarks of the crop.
    """

    def __init__(self, network: Callable[[np.ndarray], np.ndarray], info: ExtractorInfo, faces: FaceBackend) -> None:
        self.info = info
        self._network = network
        self._faces = faces

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """See `IdentityBackend.embeddings`."""
        landmarks = self._faces.measure(frames).landmarks
        crops = crop_faces(frames, landmarks).transpose(0, 3, 1, 2).astype(np.float32)
        inputs = crops / 127.5 - 1.0  # (x / 255 - 0.5) / 0.5
        parts = [self._network(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)]
        out = np.concatenate(parts).astype(np.float64)
        out[~np.isfinite(landmarks).all(axis=(1, 2))] = np.nan
        return out

    @staticmethod
    def from_onnx(path: str | Path, faces: FaceBackend) -> ArcFace:
        """An ONNX file such as InsightFace's recognition models.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            CheckpointError: No such file, not ONNX, or a network that reads something else.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file. --identity takes an ONNX file with an ArcFace network.")
        runtime = _import("onnxruntime", "onnxruntime", f"--identity {path.name}")
        content = path.read_bytes()
        errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        try:
            session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented) as error:
            raise CheckpointError(f"{path}: onnxruntime cannot read it ({error}).") from error
        (given,) = session.get_inputs()[:1]
        if list(given.shape[1:]) != [3, TEMPLATE_SIZE_PX, TEMPLATE_SIZE_PX]:
            raise CheckpointError(f"{path}: the network reads {given.shape}; expected (N, 3, 112, 112).")
        info = ExtractorInfo(f"arcface-{path.stem}", runtime.__version__, hashlib.sha256(content).hexdigest(), "")

        def network(inputs: np.ndarray) -> np.ndarray:
            # One by one where the file fixes the batch.
            step = len(inputs) if not isinstance(given.shape[0], int) else given.shape[0]
            rows = [inputs[i : i + step] for i in range(0, len(inputs), step)]
            return np.concatenate([session.run(None, {given.name: row})[0] for row in rows])

        return ArcFace(network, info, faces)


def largest_face(found: list[np.ndarray] | None) -> np.ndarray:
    """The face ``(68, 2)`` with the largest bounding box; NaN where none was found."""
    if not found:
        return np.full((68, 2), np.nan)
    return np.asarray(max(found, key=lambda points: float(np.ptp(points, axis=0).prod())), dtype=np.float64)


def _import(module: str, package: str, option: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{option} needs the package '{package}'. Run: pip install {package}") from error
