"""What CLeBS keeps and drops, in numbers: identity against expression in beta and in the code (the paper's Fig. 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from export3d.data.source import ClipSource
from export3d.expression.lebs import LeBS

_RIDGE = 1e-3  # of the mean squared input: keeps the fit stable, changes no digit that is printed


@dataclass(frozen=True, kw_only=True)
class ExpressionTable:
    """All frames of some clips: inputs, codes, truth."""

    beta: np.ndarray
    """``(N, 64)`` what the extractor gave."""
    coefficients: np.ndarray
    """``(N, n)`` lambda; beta' is an orthonormal image of it, so distances and fits are the same."""
    identity: np.ndarray
    """``(N,)`` int64."""
    clip: np.ndarray
    """``(N,)`` int64."""
    truth: np.ndarray | None
    """``(N, 53)`` true blendshape weights (synthetic clips), or None."""


@torch.no_grad()
def expression_table(expression: LeBS, dataset: ClipSource, max_clips: int | None = None) -> ExpressionTable:
    """Run the encoder over the first `max_clips` clips."""
    count = len(dataset) if max_clips is None else min(max_clips, len(dataset))
    names = {name: number for number, name in enumerate(sorted({dataset.identity(i) for i in range(count)}))}
    device = next(expression.layers.parameters()).device
    betas, codes, identities, clips, truths = [], [], [], [], []
    for index in range(count):
        arrays = dataset.arrays(index)
        beta = torch.from_numpy(arrays["beta"].copy())
        betas.append(beta.numpy())
        codes.append(expression.coefficients(beta.to(device)).cpu().numpy())
        identities.append(np.full(len(beta), names[dataset.identity(index)]))
        clips.append(np.full(len(beta), index))
        truths.append(arrays.get("weights"))
    complete = all(truth is not None for truth in truths)
    return ExpressionTable(
        beta=np.concatenate(betas),
        coefficients=np.concatenate(codes),
        identity=np.concatenate(identities),
        clip=np.concatenate(clips),
        truth=np.concatenate([t for t in truths if t is not None]) if complete else None,
    )


def expression_report(held_out: ExpressionTable, fit: ExpressionTable | None = None) -> dict[str, float]:
    """The numbers behind Fig. 8, on held-out identities.

    Args:
        held_out: what is measured.
        fit: other identities, on which the linear maps to the true expression are fitted; None leaves out R^2.

    Returns:
        `identity_1nn_beta`, `identity_1nn_code`: share of frames whose nearest other frame is of the same identity;
        `identity_1nn_chance`: the same for random codes. `between_share_beta`, `between_share_code`: share of the
        variance that lies between identities. `coefficient_norm_mean`, `_p05`, `_p95`: distribution of |lambda|.
        `r2_beta`, `r2_beta_centred` (clip mean removed), `r2_code`, `r2_code_centred`: R^2 of the true blendshape
        weights, all 53 together, predicted linearly; `r2_beta_same_rank`: from the best n numbers that are linear in
        beta; `r2_code_quadratic`: from the code and the products of its numbers.
    """
    norms = np.linalg.norm(held_out.coefficients, axis=1)
    report = {
        "identity_1nn_beta": identity_1nn(held_out.beta, held_out.identity),
        "identity_1nn_code": identity_1nn(held_out.coefficients, held_out.identity),
        "identity_1nn_chance": chance_1nn(held_out.identity),
        "between_share_beta": between_share(held_out.beta, held_out.identity),
        "between_share_code": between_share(held_out.coefficients, held_out.identity),
        "coefficient_norm_mean": float(norms.mean()),
        "coefficient_norm_p05": float(np.percentile(norms, 5)),
        "coefficient_norm_p95": float(np.percentile(norms, 95)),
    }
    if fit is not None and fit.truth is not None and held_out.truth is not None:
        for name in ("beta", "coefficients"):
            short = "code" if name == "coefficients" else name
            x, x_new = getattr(fit, name), getattr(held_out, name)
            report[f"r2_{short}"] = linear_r2(x, fit.truth, x_new, held_out.truth)
            centred, centred_new = without_mean(x, fit.clip), without_mean(x_new, held_out.clip)
            report[f"r2_{short}_centred"] = linear_r2(centred, fit.truth, centred_new, held_out.truth)
        rank = held_out.coefficients.shape[1]
        report["r2_beta_same_rank"] = linear_r2(fit.beta, fit.truth, held_out.beta, held_out.truth, rank)
        quadratic, quadratic_new = with_products(fit.coefficients), with_products(held_out.coefficients)
        report["r2_code_quadratic"] = linear_r2(quadratic, fit.truth, quadratic_new, held_out.truth)
    return report


def identity_1nn(codes: np.ndarray, identity: np.ndarray) -> float:
    """Leave-one-out accuracy of the nearest neighbour (Euclidean) in telling identities."""
    codes = codes.astype(np.float64)
    squares = (codes**2).sum(axis=1)
    hits = 0
    for start in range(0, len(codes), 512):
        stop = min(start + 512, len(codes))
        distance = squares[start:stop, None] + squares[None] - 2.0 * codes[start:stop] @ codes.T
        distance[np.arange(stop - start), np.arange(start, stop)] = np.inf
        hits += int((identity[distance.argmin(axis=1)] == identity[start:stop]).sum())
    return hits / len(codes)


def chance_1nn(identity: np.ndarray) -> float:
    """What :func:`identity_1nn` gives on average for codes without any information."""
    counts = np.bincount(identity)
    total = len(identity)
    return float((counts * (counts - 1)).sum() / (total * max(total - 1, 1)))


def between_share(codes: np.ndarray, identity: np.ndarray) -> float:
    """Share of the total variance that is explained by the identities' means."""
    codes = codes.astype(np.float64)
    within = without_mean(codes, identity)
    total = ((codes - codes.mean(axis=0)) ** 2).sum()
    return float(1.0 - (within**2).sum() / max(total, 1e-12))


def without_mean(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rows minus the mean of their group."""
    sums = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(sums, group, values)
    counts = np.bincount(group, minlength=len(sums)).clip(min=1)
    return values - (sums / counts[:, None])[group]


def with_products(x: np.ndarray) -> np.ndarray:
    """``(N, P)`` -> ``(N, P + P (P + 1) / 2)``: the columns and all products of two of them."""
    first, second = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, first] * x[:, second]], axis=1)


def linear_r2(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, rank: int | None = None) -> float:
    """R^2 on new rows of a linear map with intercept fitted on ``(N, P)`` -> ``(N, Q)``, all outputs together.

    Args:
        rank: allow the map only this rank (reduced-rank regression); None for any.
    """
    x_mean, y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    centred = x - x_mean
    gram = centred.T @ centred
    gram += _RIDGE * max(np.trace(gram) / len(gram), 1e-12) * np.eye(len(gram))
    weights = np.linalg.solve(gram, centred.T @ (y - y_mean))
    if rank is not None:
        directions = np.linalg.svd(centred @ weights, full_matrices=False)[2][:rank]
        weights = weights @ directions.T @ directions
    error = y_new - (y_mean + (x_new - x_mean) @ weights)
    spread = y_new - y_new.mean(axis=0, dtype=np.float64)
    return float(1.0 - (error**2).sum() / max((spread**2).sum(), 1e-12))
