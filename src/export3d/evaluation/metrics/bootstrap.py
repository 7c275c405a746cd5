"""Confidence intervals by bootstrap over clips: frames of one clip are not independent, clips are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
"""Number of resampled data sets."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean over clips with a percentile bootstrap interval.

    Attributes:
        mean: mean of the clips' values.
        clips: number of clips with a value.
        missing: number of clips without one (NaN).
    """

    mean: float
    low: float
    high: float
    clips: int
    missing: int


def bootstrap_interval(per_clip: np.ndarray, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean over clips.

    Args:
        per_clip: ``(N,)`` one value per clip, NaN where a clip could not be measured.
        level: coverage, in (0, 1).
        seed: the same seed and values give the same interval.

    Returns:
        The interval; its ends are NaN without a value, and equal the mean with one.

    Raises:
        ValueError: If `per_clip` is not one-dimensional, or `level` not in (0, 1).
    """
    if per_clip.ndim != 1 or not 0 < level < 1:
        raise ValueError(f"per_clip must be (N,) and level in (0, 1); got {per_clip.shape}, {level}")
    values = per_clip[~np.isnan(per_clip)].astype(np.float64)
    missing = len(per_clip) - len(values)
    if len(values) == 0:
        nan = float("nan")
        return Interval(mean=nan, low=nan, high=nan, clips=0, missing=missing)
    means = _resampled_means(values, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="nearest")  # infinities stay
    return Interval(mean=float(values.mean()), low=float(low), high=float(high), clips=len(values), missing=missing)


def paired_difference(a: np.ndarray, b: np.ndarray, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean of ``a - b`` over the same clips: whether one method beats another on this data."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must hold the same clips; got {a.shape} and {b.shape}")
    return bootstrap_interval(a - b, level=level, seed=seed)


def _resampled_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """``(draws,)`` means of resampled data sets, in blocks so that memory does not grow with draws x clips."""
    generator = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(values))
    parts = [
        values[generator.integers(0, len(values), (min(block, draws - start), len(values)))].mean(axis=1)
        for start in range(0, draws, block)
    ]
    return np.concatenate(parts)
