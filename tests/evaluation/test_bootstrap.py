"""evaluation/metrics/bootstrap.py: intervals over clips."""

from __future__ import annotations

import numpy as np
import pytest

from export3d.evaluation.metrics.bootstrap import bootstrap_interval, paired_difference


def test_the_interval_of_a_normal_sample_is_close_to_the_textbooks() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 200)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.04)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.04)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        interval = bootstrap_interval(generator.normal(0.0, 1.0, 40), draws=400)
        hits += interval.low <= 0.0 <= interval.high
    assert 178 <= hits <= 200  # 0.93 +- 3 standard errors of the percentile method at 40 values


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=10)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_clips_without_a_value_are_counted_and_left_out() -> None:
    interval = bootstrap_interval(np.array([1.0, np.nan, 3.0, np.nan]))
    assert (interval.mean, interval.clips, interval.missing) == (2.0, 2, 2)


def test_one_clip_has_an_interval_of_no_width_and_none_has_none() -> None:
    one = bootstrap_interval(np.array([4.0]))
    assert (one.low, one.mean, one.high) == (4.0, 4.0, 4.0)
    none = bootstrap_interval(np.array([np.nan]))
    assert np.isnan([none.low, none.mean, none.high]).all() and none.clips == 0


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    """Clips differ far more than methods do: only the paired interval excludes 0."""
    clips = np.random.default_rng(3).normal(0.0, 10.0, 50)
    better = clips + 0.5 + np.random.default_rng(4).normal(0.0, 0.3, 50)
    difference = paired_difference(better, clips)
    assert difference.low > 0.3 and difference.high < 0.7
    assert bootstrap_interval(better).low < bootstrap_interval(clips).high


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"per_clip must be \(N,\) and level in \(0, 1\); got \(2, 2\), 0.95"):
        bootstrap_interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"same clips; got \(2,\) and \(3,\)"):
        paired_difference(np.zeros(2), np.zeros(3))
