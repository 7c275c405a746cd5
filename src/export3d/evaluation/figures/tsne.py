"""t-SNE (van der Maaten and Hinton 2008), exact, for the picture of beta and beta' (Sec. 4.3, Fig. 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_POINTS = 5_000
"""The exact method keeps N x N matrices; 5,000 points need about 1 GB."""


@dataclass(frozen=True, kw_only=True)
class TsneConfig:
    """The original paper's settings; the learning rate follows the number of points."""

    perplexity: float = 15.0
    """Effective number of neighbours; below a third of the number of points."""
    steps: int = 750
    exaggeration: float = 12.0
    """Factor on the affinities during the first `exaggeration_steps`."""
    exaggeration_steps: int = 200
    seed: int = 0
    """Used only where the principal components of the data do not separate two points."""


def tsne(points: np.ndarray, config: TsneConfig | None = None) -> np.ndarray:
    """Embed ``(N, D)`` points in the plane, ``(N, 2)`` float64, centred. The same input gives the same picture.

    Raises:
        ValueError: If N is below three times the perplexity, or above 5,000, or a number is not finite.
    """
    config = config or TsneConfig()
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not 3 * config.perplexity <= len(points) <= MAX_POINTS:
        raise ValueError(
            f"points must be (N, D) with {3 * config.perplexity:.0f} <= N <= {MAX_POINTS}; got {points.shape}"
        )
    if not np.isfinite(points).all():
        raise ValueError("points must be finite; got NaN or infinity")
    target = affinities(points, config.perplexity)
    position = _principal_start(points, config.seed)
    velocity = np.zeros_like(position)
    gains = np.ones_like(position)
    rate = max(
        len(points) / config.exaggeration / 4, 10.0
    )  # Belkina et al. 2019; their floor of 50 diverges below 100 points
    for step in range(config.steps):
        early = step < config.exaggeration_steps
        gradient = kl_gradient(target * (config.exaggeration if early else 1.0), position)
        same_way = np.sign(gradient) == np.sign(velocity)
        gains = np.maximum(np.where(same_way, gains * 0.8, gains + 0.2), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        position = position + velocity
        position -= position.mean(axis=0)
    return position


def affinities(points: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric joint probabilities ``(N, N)``, zero diagonal, sum 1, each row's entropy set by bisection."""
    distances = _squared_distances(points)
    conditional = conditional_affinities(distances, perplexity)
    joint = conditional + conditional.T
    return joint / joint.sum()


def conditional_affinities(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """p(j | i) ``(N, N)``: Gaussian in the squared distances, with 2^entropy = perplexity in every row."""
    count = len(distances)
    low, high = np.zeros(count), np.full(count, np.inf)
    precision = 1.0 / np.maximum(np.median(distances, axis=1), 1e-12)
    target = np.log(perplexity)
    shifted = distances + np.diag(np.full(count, np.inf))
    shifted = shifted - shifted.min(axis=1, keepdims=True)  # the nearest neighbour gets exp(0): no underflow
    weights = np.empty_like(distances)
    for _ in range(64):
        weights = np.exp(-shifted * precision[:, None])
        weights /= weights.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(np.where(weights > 0, weights * np.log(weights), 0.0), axis=1)
        too_wide = entropy > target
        low = np.where(too_wide, precision, low)
        high = np.where(too_wide, high, precision)
        precision = np.where(np.isinf(high), precision * 2, (low + np.minimum(high, 1e300)) / 2)
    return weights


def kl_gradient(target: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Gradient of the divergence: 4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2), ``(N, 2)``."""
    kernel = 1.0 / (1.0 + _squared_distances(position))
    np.fill_diagonal(kernel, 0.0)
    pull = (target - kernel / kernel.sum()) * kernel
    return 4.0 * (pull.sum(axis=1)[:, None] * position - pull @ position)


def _squared_distances(points: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * points @ points.T, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _principal_start(points: np.ndarray, seed: int) -> np.ndarray:
    """First two principal components at a spread of 1e-4, plus a hundredth of that as noise against ties."""
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.where(axes[:2].sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # the sign of an SVD is free
    start = np.zeros((len(points), 2))
    start[:, : len(axes)] = centred @ axes.T
    start /= max(float(start[:, 0].std()), 1e-12)
    noise = np.random.default_rng(seed).normal(size=start.shape)
    return 1e-4 * (start + 0.01 * noise)
