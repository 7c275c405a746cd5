"""One clip: frames, the network's inputs per frame, and where they come from (docs/data.md; Sec. 4.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from export3d.camera import camera_problem
from export3d.errors import DataError
from export3d.reading import Frames, Name, Side, checked, read_rate, reading, shortened

CLIP_FORMAT = "export3d-clip"
CLIP_VERSION = 1

ARRAY_SHAPES: dict[str, tuple[int | str, ...]] = {
    "beta": ("T", 64),
    "camera": ("T", 25),
    "landmarks": ("T", 68, 2),
    "confidence": ("T",),
    "crop": ("T", 3),
    "true_beta": ("T", 64),
    "weights": ("T", 53),
    "alpha": (80,),
    "gaze": ("T", 2),
    "beta_mirror": ("T", 64),
    "surface": ("T", 1024, 3),
}
"""Every array that a clip may hold, in the order of the tar members; "T" is the number of frames."""

REQUIRED_ARRAYS = ("beta", "camera", "landmarks", "confidence", "crop")
EXTRACTOR_FIELDS = ("name", "version", "sha256", "expression_space")
FRAME_FORMATS = ("png", "jpg")
SPLITS = ("train", "val", "test")

DEPTH_STEPS = 16384.0
"""Stored depth per scene unit."""

MAX_KEY_LENGTH = 80  # a ustar name holds 100 characters; "KEY.0000.depth.png" needs 15 more

_KEY = re.compile(r"[A-Za-z0-9_-]+")

ClipKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
Split = Annotated[str, Meta(pattern="^(train|val|test)$")]
FrameFormat = Annotated[str, Meta(pattern="^(png|jpg)$")]


@dataclass(frozen=True, kw_only=True)
class ExtractorFields:
    """What a clip must say of the extractor that made its coefficients."""

    name: Name
    version: Name
    sha256: Name
    expression_space: Name


@dataclass(frozen=True, kw_only=True)
class ClipMeta:
    """The bounds of a clip's JSON member (:func:`make_meta`); `format` and `version` are looked at first."""

    key: ClipKey
    num_frames: Frames
    size: Side
    fps: list[Any]
    frame_format: FrameFormat
    identity: Name
    source: Name
    extractor: ExtractorFields
    split: Split
    quality: dict[str, Any]
    extra: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What is written to and read from a shard.

    Attributes:
        key: letters, digits, `_`, `-`; unique in its data set.
        frames: ``(T, H, W, 3)`` uint8 RGB, H = W.
        arrays: float32, names and shapes in :data:`ARRAY_SHAPES`.
        meta: the JSON member; :func:`make_meta` builds it.
        masks: ``(T, H, W)`` uint8 foreground alpha, synthetic clips only.
        depths: ``(T, H, W)`` uint16 = distance along the ray in scene units x :data:`DEPTH_STEPS`; 0 is background.
        background: ``(H, W, 3)`` uint8, the picture behind the head.
    """

    key: str
    frames: np.ndarray
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    masks: np.ndarray | None = None
    depths: np.ndarray | None = None
    background: np.ndarray | None = None


def make_meta(
    *,
    key: str,
    num_frames: int,
    size: int,
    fps: Fraction | int,
    identity: str,
    source: str,
    extractor: Mapping[str, str],
    split: str = "train",
    frame_format: str = "png",
    quality: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the JSON member of a clip.

    Args:
        num_frames: T.
        size: side of the square frames in pixels.
        fps: frames per second, kept exactly as a fraction.
        identity: who is seen; clips of one person share it.
        source: where the clip comes from (a relative path, or a generator's name).
        extractor: `name`, `version`, `sha256`, `expression_space` of what made `beta`.
        quality: measured numbers, free names.
        extra: anything else that belongs to the clip, free names.
    """
    rate = Fraction(fps)
    return {
        "format": CLIP_FORMAT,
        "version": CLIP_VERSION,
        "key": key,
        "num_frames": int(num_frames),
        "size": int(size),
        "fps": [rate.numerator, rate.denominator],
        "frame_format": frame_format,
        "identity": identity,
        "source": source,
        "extractor": {field: str(extractor[field]) for field in EXTRACTOR_FIELDS},
        "split": split,
        "quality": dict(quality or {}),
        "extra": dict(extra or {}),
    }


def validate_clip(clip: Clip) -> None:
    """Check key, meta, shapes, types and finiteness.

    Raises:
        DataError: Names the clip, the member, what was expected and what was given.
    """
    check_key(clip.key)
    check_meta(clip.meta, clip.key)
    frames = clip.frames
    count, size = clip.meta["num_frames"], clip.meta["size"]
    _expect(clip.key, "frames", frames, np.dtype(np.uint8), (count, size, size, 3))
    for name in REQUIRED_ARRAYS:
        if name not in clip.arrays:
            raise DataError(f"clip {clip.key}: array '{name}' is missing; expected {', '.join(REQUIRED_ARRAYS)}.")
    for name, array in clip.arrays.items():
        check_array(clip.key, name, array, count)
    if clip.masks is not None:
        _expect(clip.key, "masks", clip.masks, np.dtype(np.uint8), (count, size, size))
    if clip.depths is not None:
        _expect(clip.key, "depths", clip.depths, np.dtype(np.uint16), (count, size, size))
    if clip.background is not None:
        _expect(clip.key, "background", clip.background, np.dtype(np.uint8), (size, size, 3))


def check_key(key: str) -> None:
    """Raise `DataError` unless `key` can name tar members and WebDataset samples."""
    if not _KEY.fullmatch(key) or len(key) > MAX_KEY_LENGTH:
        raise DataError(
            f"clip key '{key}': expected 1 to {MAX_KEY_LENGTH} letters, digits, '_' or '-' (no dots: "
            "WebDataset splits a member's name there). Rename the clip."
        )


def check_array(key: str, name: str, array: np.ndarray, num_frames: int) -> None:
    """Raise `DataError` unless the array is known, float32, finite, and of the documented shape."""
    if name not in ARRAY_SHAPES:
        raise DataError(f"clip {key}: array '{name}' is not part of the format; known: {', '.join(ARRAY_SHAPES)}.")
    shape = tuple(num_frames if side == "T" else int(side) for side in ARRAY_SHAPES[name])
    _expect(key, name, array, np.dtype(np.float32), shape)
    if not np.isfinite(array).all():
        raise DataError(f"clip {key}: array '{name}' holds NaN or infinity. Drop those frames before writing.")
    problem = camera_problem(array) if name == "camera" else None
    if problem is not None:
        raise DataError(f"clip {key}: {problem}. Drop those frames before writing.")


def check_meta(meta: Mapping[str, Any], key: str) -> None:
    """Raise `DataError` unless the JSON member is of this format and version and complete."""
    if meta.get("format") != CLIP_FORMAT:
        raise DataError(f"clip {key}: expected format '{CLIP_FORMAT}'; got '{shortened(meta.get('format'))}'.")
    if meta.get("version") != CLIP_VERSION:
        raise DataError(
            f"clip {key}: version {shortened(meta.get('version'))}; this export3d reads version {CLIP_VERSION}. "
            "Prepare the data again or use the export3d that wrote it."
        )
    with reading(f"clip {key}", "the JSON member has a wrong or missing field", DataError, "Prepare the clip again."):
        checked(meta, ClipMeta)
        read_rate(meta["fps"])
    if meta["key"] != key:
        raise DataError(f"clip {key}: the JSON member names another clip, '{shortened(meta['key'])}'.")


def _expect(key: str, name: str, array: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise DataError(f"clip {key}: '{name}' must be {dtype} {shape}; got {array.dtype} {array.shape}.")
