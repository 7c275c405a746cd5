"""Which frames a training step sees, as a pure function of (seed, step, place in the batch) (Secs. 3.1, 3.4).

The random numbers come from a counter-based generator (Philox), so that a resumed run, or another number of
workers, draws exactly the same samples.
"""

from __future__ import annotations

import math

import numpy as np

from export3d.data.source import ClipSource
from export3d.errors import DataError

_PAIR_STREAM = 1
_CONTRASTIVE_STREAM = 2

NUM_CONTRASTIVE_FRAMES = 33
"""Frames of one clip in a contrastive batch (the clip's frames are each other's negatives)."""


def counter_rng(seed: int, stream: int, step: int, index: int) -> np.random.Generator:
    """A generator that depends on the four arguments alone; `stream` separates the uses of one step."""
    # The lowest counter word counts the draws, so (index, step) never overlap with another sample's draws.
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, index, step, 0]))


def pair_at(
    dataset: ClipSource,
    seed: int,
    step: int,
    index_in_batch: int,
    *,
    max_source_yaw_deg: float | None = None,
    max_source_pitch_deg: float | None = None,
) -> tuple[int, int, int]:
    """Draw one training pair: two different frames of one clip.

    Args:
        dataset: clips with at least two frames each.
        seed, step, index_in_batch: non-negative; the draw depends on nothing else.
        max_source_yaw_deg, max_source_pitch_deg: if given, the source is drawn among the frames whose head
            yaw and
            pitch are within these bounds; a clip without such a frame gives its most frontal one.

    Returns:
        ``(clip, source_frame, driving_frame)`` indices.

    Raises:
        DataError: The drawn clip has a single frame.
    """
    rng = counter_rng(seed, _PAIR_STREAM, step, index_in_batch)
    clips = dataset.clips_at(step)
    clip = int(clips[int(rng.integers(len(clips)))])
    count = dataset.num_frames(clip)
    if count < 2:
        raise DataError(f"{dataset.name}: clip {dataset.keys[clip]} has one frame; a training pair needs two.")
    if max_source_yaw_deg is None and max_source_pitch_deg is None:
        source = int(rng.integers(count))
    else:
        allowed = _near_frontal(dataset.head_angles(clip), max_source_yaw_deg, max_source_pitch_deg)
        source = int(allowed[rng.integers(len(allowed))])
    driving = int(rng.integers(count - 1))
    return clip, source, driving + (driving >= source)


def contrastive_clip_at(
    dataset: ClipSource, seed: int, step: int, index_in_batch: int, *, num_frames: int = NUM_CONTRASTIVE_FRAMES
) -> tuple[int, np.ndarray]:
    """Draw `num_frames` different frames spread over one clip, in order of time.

    The clip is cut into `num_frames` equal parts and one frame is drawn in each, so neighbours are rarely
    adjacent.

    Returns:
        Clip index and ``(num_frames,)`` int64 frame numbers, increasing.

    Raises:
        DataError: No clip has that many frames.
    """
    eligible = dataset.clips_at(step, num_frames)
    if not len(eligible):
        raise DataError(f"{dataset.name}: no clip has {num_frames} frames, which a contrastive batch needs.")
    rng = counter_rng(seed, _CONTRASTIVE_STREAM, step, index_in_batch)
    clip = int(eligible[int(rng.integers(len(eligible)))])
    edges = np.arange(num_frames + 1) * dataset.num_frames(clip) // num_frames
    return clip, rng.integers(edges[:-1], edges[1:])


def _near_frontal(angles: np.ndarray, max_yaw_deg: float | None, max_pitch_deg: float | None) -> np.ndarray:
    """Frame numbers within the bounds, or the single most frontal one. `angles` ``(T, 3)`` radians."""
    yaw, pitch = np.abs(angles[:, 0]), np.abs(angles[:, 1])
    yaw_bound = math.radians(max_yaw_deg) if max_yaw_deg is not None else math.inf
    pitch_bound = math.radians(max_pitch_deg) if max_pitch_deg is not None else math.inf
    allowed = np.flatnonzero((yaw <= yaw_bound) & (pitch <= pitch_bound))
    if len(allowed):
        return allowed
    return np.array([int(np.argmin(np.hypot(yaw, pitch)))])
