"""evaluation/figures/tsne.py: affinities with the asked perplexity, the exact gradient, and clusters that stay together."""

from __future__ import annotations

import numpy as np
import pytest

from export3d.evaluation.figures.tsne import (
    TsneConfig,
    affinities,
    conditional_affinities,
    kl_gradient,
    tsne,
)


def _clusters(count: int = 4, each: int = 12, dim: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 6, (count, dim))
    labels = np.repeat(np.arange(count), each)
    return centres[labels] + generator.normal(0, 1, (count * each, dim)), labels


def _squares(points: np.ndarray) -> np.ndarray:
    return ((points[:, None] - points[None]) ** 2).sum(axis=-1)


def kl_divergence(target: np.ndarray, position: np.ndarray) -> float:
    """Kullback-Leibler divergence of the plane's Student-t affinities from `target`, pair by pair."""
    kernel = 1.0 / (1.0 + _squares(position))
    np.fill_diagonal(kernel, 0.0)
    q, used = kernel / kernel.sum(), target > 0
    return float((target[used] * np.log(target[used] / np.maximum(q[used], 1e-300))).sum())


@pytest.mark.parametrize("perplexity", [5.0, 15.0])
def test_every_row_has_the_asked_perplexity(perplexity: float) -> None:
    points, _ = _clusters()
    rows = conditional_affinities(_squares(points), perplexity)
    assert rows.sum(axis=1) == pytest.approx(np.ones(len(points)))
    assert (rows.diagonal() == 0).all()
    entropy = -(rows * np.log2(np.maximum(rows, 1e-300))).sum(axis=1)
    assert 2**entropy == pytest.approx(np.full(len(points), perplexity), rel=1e-6)


def test_joint_affinities_are_symmetric_and_sum_to_one() -> None:
    joint = affinities(_clusters()[0], 10.0)
    assert joint == pytest.approx(joint.T) and joint.sum() == pytest.approx(1.0)


def test_distances_far_apart_do_not_underflow() -> None:
    rows = conditional_affinities(_squares(_clusters()[0] * 1e6), 5.0)
    assert np.isfinite(rows).all() and rows.sum(axis=1) == pytest.approx(np.ones(48))


def test_the_gradient_is_that_of_finite_differences() -> None:
    target = affinities(_clusters(3, 6)[0], 4.0)
    position = np.random.default_rng(1).normal(size=(18, 2))
    gradient = kl_gradient(target, position)
    for i, j in ((0, 0), (7, 1), (17, 0)):
        step = np.zeros_like(position)
        step[i, j] = 1e-5
        numeric = (kl_divergence(target, position + step) - kl_divergence(target, position - step)) / 2e-5
        assert gradient[i, j] == pytest.approx(numeric, abs=1e-8)


def test_three_points_by_hand() -> None:
    # Equal affinities 1/6 and an equilateral picture: q = p, so the divergence and the gradient are 0.
    target = (1 - np.eye(3)) / 6
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    assert kl_divergence(target, triangle) == pytest.approx(0.0, abs=1e-12)
    assert np.abs(kl_gradient(target, triangle)).max() < 1e-12


def test_clusters_stay_together_in_the_plane() -> None:
    points, labels = _clusters()
    plane = tsne(points, TsneConfig(perplexity=10.0, steps=400))
    assert plane.shape == (48, 2) and np.isfinite(plane).all()
    assert plane.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-9)
    distances = _squares(plane) + np.diag(np.full(48, np.inf))
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_the_picture_is_better_than_its_start_and_repeatable() -> None:
    points, _ = _clusters()
    config = TsneConfig(perplexity=10.0, steps=300)
    plane = tsne(points, config)
    target = affinities(points, 10.0)
    assert kl_divergence(target, plane) < 0.5 * kl_divergence(target, plane * 1e-5)
    assert np.array_equal(plane, tsne(points, config))


def test_equal_points_do_not_break_it() -> None:
    points = np.repeat(_clusters(4, 3)[0], 4, axis=0)
    assert np.isfinite(tsne(points, TsneConfig(perplexity=5.0, steps=50))).all()


def test_too_few_points_and_nan_are_named() -> None:
    with pytest.raises(ValueError, match=r"45 <= N <= 5000; got \(10, 3\)"):
        tsne(np.zeros((10, 3)))
    with pytest.raises(ValueError, match="points must be finite"):
        tsne(np.full((60, 3), np.nan))
