"""From densities along a ray to compositing weights (Eqs. 9-10), in the midpoint form that EG3D marches with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def interval_weights(sigma: Tensor, lengths: Tensor) -> Tensor:
    r"""Compositing weights of consecutive intervals of constant density.

    .. math::
        w_i = T_i (1 - e^{-\sigma_i \delta_i}), \qquad T_i = \exp\Bigl(-\sum_{j<i} \sigma_j \delta_j\Bigr).

    Args:
        sigma: ``(..., S)`` density per interval, activated, in 1 / scene length, non-negative.
        lengths: ``(..., S)`` interval lengths delta_i in scene units.

    Returns:
        ``(..., S)``. The weights of a ray sum to 1 - (transmittance of the whole ray).
    """
    if sigma.shape != lengths.shape:
        raise ValueError(
            f"interval_weights: sigma {tuple(sigma.shape)} and lengths {tuple(lengths.shape)} must be equal"
        )
    optical = sigma * lengths  # (..., S)
    before = F.pad(optical[..., :-1].cumsum(dim=-1), (1, 0))  # exclusive sum
    return torch.exp(-before) * -torch.expm1(-optical)  # T_i * alpha_i


def midpoints(values: Tensor) -> Tensor:
    """``(..., S)`` -> ``(..., S - 1)`` means of neighbours."""
    return 0.5 * (values[..., 1:] + values[..., :-1])


def sample_shares(weights: Tensor) -> Tensor:
    """Share of each sample in the ray's colour, when an interval's colour is the mean of its two end samples.

    Compositing the S - 1 midpoint colours with `weights` equals compositing the S sample colours with these shares, so
    colours need neither be sorted nor averaged.

    Args:
        weights: ``(..., S - 1)`` interval weights.

    Returns:
        ``(..., S)``; its sum equals the sum of `weights`.
    """
    return 0.5 * (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0)))
