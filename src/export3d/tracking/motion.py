"""The motion file: what tracking found in a clip, as safetensors, to drive portraits again without the
clip."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from export3d import __version__
from export3d.camera import camera_problem
from export3d.errors import MotionFileError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.files import write_atomically
from export3d.reading import checked, parse_json, read_rate, reading
from export3d.tensor_files import SEAL, check_seal, content_digest, read_tensor_file
from export3d.tracking.faces import ExtractorInfo

FORMAT = "export3d-motion"
VERSION = 5
READABLE = ("1", "2", "3", "4", "5")
"""Version 1 has no gaze, version 2 no weights; the first three have no checksum, the first four no cuts."""

MAX_BETA, MAX_SECONDS = 1e4, 1e7
"""What no tracker gives and no clip lasts."""

_REMEDY = "Track the clip again: export3d track."

_ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "beta": (np.float32, (64,)),
    "camera": (np.float32, (25,)),
    "confidence": (np.float32, ()),
    "found": (np.bool_, ()),
    "landmarks": (np.float32, (68, 2)),
    "time_s": (np.float64, ()),
    "crop": (np.float32, (3,)),
    "gaze": (np.float32, (2,)),
    "weights": (np.float32, (len(ARKIT_NAMES),)),
    "cut": (np.bool_, ()),
}
"""Name -> dtype and shape of one frame. The order is the order in the file."""

SIGNALS = ("gaze", "weights")
"""What joins beta in a frame's `FaceState`, where the tracker tells it; NaN is unknown."""

_OPTIONAL = ("crop", *SIGNALS, "cut")


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Expression, camera and landmarks of each frame of a clip."""

    beta: np.ndarray
    """``(T, 64)`` float32."""
    camera: np.ndarray
    """``(T, 25)`` float32."""
    confidence: np.ndarray
    """``(T,)`` float32 in 0..1."""
    found: np.ndarray
    """``(T,)`` bool; false where the face was lost and the values are held."""
    landmarks: np.ndarray
    """``(T, 68, 2)`` float32 in [0, 1] of the crop."""
    time_s: np.ndarray
    """``(T,)`` float64, seconds from the start of the clip, increasing."""
    fps: Fraction
    """Nominal frame rate."""
    extractor: ExtractorInfo
    crop: np.ndarray | None = None
    """``(T, 3)`` float32: centre x, centre y, side in pixels of the clip; zero where the face was lost."""
    gaze: np.ndarray | None = None
    """``(T, 2)`` float32 radians in the head's frame, sideways (+ to the image right) and up; a frame of NaN is unknown.
    None where the file is older or nothing was read."""
    weights: np.ndarray | None = None
    """``(T, 52)`` float32, order of `ARKIT_NAMES`; NaN where unknown."""
    cut: np.ndarray | None = None
    """``(T,)`` bool; true where another shot begins."""

    def __post_init__(self) -> None:
        problem = _problem(self._arrays(), self.fps)
        if problem:
            raise ValueError(f"Motion: {problem}")

    def __len__(self) -> int:
        return len(self.beta)

    @property
    def state(self) -> FaceState:
        """T faces, for the model; one frame's is a slice of it."""
        told = {name: getattr(self, name) for name in SIGNALS}
        known = {name: torch.tensor(values) for name, values in told.items() if values is not None}
        return FaceState(beta=torch.tensor(self.beta), **known)

    def save(self, path: str | Path) -> None:
        """Write the file under a temporary name, then rename it.

        Raises:
            OutputError: The folder is missing or not writable, or the disk is full.
        """
        path = Path(path)
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "fps": f"{self.fps.numerator}/{self.fps.denominator}",
            "extractor": json.dumps(asdict(self.extractor)),
            "created_by": f"export3d {__version__}",
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        metadata[SEAL] = content_digest(metadata, arrays)
        write_atomically(path, save(arrays, metadata=metadata), "Choose another place with -o.")

    @staticmethod
    def load(path: str | Path) -> Motion:
        """Read and check a motion file.

        Raises:
            MotionFileError: Missing, damaged, not a motion file, another version, or of wrong contents.
        """
        path = Path(path)
        metadata, arrays = read_tensor_file(
            path, kind="motion", format_name=FORMAT, version=READABLE, error=MotionFileError, remedy=_REMEDY
        )
        sealed = metadata["version"] not in ("1", "2", "3")
        check_seal(path, metadata, arrays, required=sealed, error=MotionFileError, remedy=_REMEDY)
        damage = "the entries 'extractor' and 'fps' of the header are missing or damaged"
        with reading(path, damage, MotionFileError, _REMEDY):
            extractor = checked(parse_json(metadata["extractor"]), ExtractorInfo)
            fps = read_rate(metadata["fps"])
        unknown = sorted(set(arrays) - set(_ARRAYS))
        missing = sorted(set(_ARRAYS) - set(arrays) - set(_OPTIONAL))
        if unknown or missing:
            raise MotionFileError(
                f"{path}: expected the arrays {', '.join(_ARRAYS)}; missing: {', '.join(missing) or 'none'}; "
                f"unknown: {', '.join(unknown) or 'none'}. Track the clip again: export3d track."
            )
        problem = _problem(arrays, fps) or _implausible(arrays)
        if problem:
            raise MotionFileError(f"{path}: {problem}. Track the clip again: export3d track.")
        return Motion(
            beta=arrays["beta"],
            camera=arrays["camera"],
            confidence=arrays["confidence"],
            found=arrays["found"],
            landmarks=arrays["landmarks"],
            time_s=arrays["time_s"],
            fps=fps,
            extractor=extractor,
            **{name: arrays.get(name) for name in _OPTIONAL},
        )

    def require_space(self, expression_space: str, where: str = "the motion file") -> None:
        """Check that the motion speaks the model's expression space.

        Raises:
            MotionFileError: It does not.
        """
        if self.extractor.expression_space != expression_space:
            raise MotionFileError(
                f"{where}: its coefficients are in the expression space '{self.extractor.expression_space}' "
                f"(extractor {self.extractor.name} {self.extractor.version}); the model expects '{expression_space}'. "
                "Track the clip again with the extractor that the model was trained with."
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "beta": self.beta,
            "camera": self.camera,
            "confidence": self.confidence,
            "found": self.found,
            "landmarks": self.landmarks,
            "time_s": self.time_s,
        }
        more = {name: getattr(self, name) for name in _OPTIONAL}
        return arrays | {name: array for name, array in more.items() if array is not None}


def _implausible(arrays: dict[str, np.ndarray]) -> str | None:
    """What no tracker gives, or None: a file from elsewhere may hold any finite number."""
    if np.abs(arrays["beta"]).max() > MAX_BETA or np.abs(arrays["time_s"]).max() > MAX_SECONDS:
        return f"beta or time_s is larger than {MAX_BETA:g} deviations or {MAX_SECONDS:g} seconds"
    return camera_problem(arrays["camera"][arrays["found"]])


def _problem(arrays: dict[str, np.ndarray], fps: Fraction) -> str | None:
    """What is wrong with the contents, or None."""
    frames = len(arrays["beta"]) if arrays["beta"].ndim else 0
    if frames == 0:
        return "beta holds no frames"
    for name, array in arrays.items():
        dtype, tail = _ARRAYS[name]
        if array.shape != (frames, *tail) or array.dtype != dtype:
            return f"{name} must be {np.dtype(dtype).name} of shape {(frames, *tail)}; got {array.dtype} {array.shape}"
        if name == "gaze":
            if (np.isnan(array).any(axis=1) != np.isnan(array).all(axis=1)).any() or np.isinf(array).any():
                return "gaze must be two finite numbers, or two NaN where it is unknown, in every frame"
        elif name in SIGNALS:
            if np.isinf(array).any():
                return f"{name} must be finite, or NaN where it is unknown, in every frame"
        elif array.dtype != np.bool_ and not np.isfinite(array).all():
            bad = int(np.argmax(~np.isfinite(array).reshape(frames, -1).all(axis=1)))
            return f"{name} holds a value that is not finite, first in frame {bad}"
    if frames > 1 and (np.diff(arrays["time_s"]) <= 0.0).any():
        return "time_s does not increase"
    if fps <= 0:
        return f"the frame rate must be positive; got {fps}"
    return None
