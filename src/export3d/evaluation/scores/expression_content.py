"""How much identity and how much expression a code carries, against exact truth (Secs. 3.1 and 4.3, Fig. 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from export3d.configs import config_from_dict
from export3d.data import ClipDataset
from export3d.evaluation.scores.expression_sample import ExpressionSample
from export3d.expression.contrastive import contrastive_loss, retrieval_accuracy
from export3d.expression.image_encoder import ImageEncoder
from export3d.expression.lebs import LeBS
from export3d.images import to_tensor
from export3d.training.batches.clip_batches import around_nose
from export3d.training.batches.frame_store import FrameStore
from export3d.training.phases.expression_report import between_share, chance_1nn, identity_1nn, without_mean
from export3d.training.phases.pretrain_config import PretrainConfig, kept_size

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge strengths, in units of the mean squared input; the best on a part of the fitting people is taken."""

LEADING = 12
"""Modes of the plain mean R^2: later ones move the face by less than a tenth of the first."""

NEAR_CHANCE = 2.0
"""'Near chance' in a verdict: at most so many times chance."""


@dataclass(frozen=True, kw_only=True)
class CodeRow:
    """What one code of the frames tells about person and expression.

    Attributes:
        code: What was measured.
        numbers: Length of the code.
        between_identity_share: Variance of the people's means over the whole variance.
        identity_1nn: Share of clips whose second half is nearest, in the mean, to the first half of the same person.
        identity_1nn_frames: Share of frames whose nearest other frame shows the same person.
        r2: R^2 of the true expression, linear, modes weighted by how far they move the landmarks.
        r2_leading: Mean R^2 of the first modes, linear.
        r2_within: As `r2`, with the mean of each clip taken off the truth and the code.
        r2_quadratic: As `r2`, from the code, its squares and its products.
        r2_per_mode: Linear R^2 of each mode.
    """

    code: str
    numbers: int
    between_identity_share: float | None
    identity_1nn: float | None
    identity_1nn_frames: float | None
    r2: float
    r2_leading: float
    r2_within: float
    r2_quadratic: float | None
    r2_per_mode: list[float]


def lambda_of(expression: LeBS, beta: np.ndarray) -> np.ndarray:
    """``(N, n)`` float64 coefficients; beta' is an orthonormal image of them, so distances and fits are the same."""
    with torch.inference_mode():
        return expression.coefficients(torch.from_numpy(beta.astype(np.float32))).double().numpy()


def measure_codes(
    expression: LeBS, sample: ExpressionSample, spread: np.ndarray, *, others: dict[str, LeBS] | None = None
) -> list[CodeRow]:
    """The table of Fig. 8 in numbers: beta-hat, beta-hat minus its clip mean, lambda, and what lambda could be.

    Args:
        expression: the frozen f_e.
        sample: frames of people whom f_e never saw.
        spread: ``(53,)`` how far each mode of the truth moves the face; the weights of `r2`.
        others: further encoders to compare, by name.
    """
    centred = without_mean(sample.beta, sample.clip)
    torch.manual_seed(0)
    untrained = LeBS(expression.config)
    rows = [
        measure_code("beta-hat", sample.beta, sample, spread),
        measure_code("beta-hat minus clip mean", centred, sample, spread),
        measure_code("beta' (lambda)", lambda_of(expression, sample.beta), sample, spread),
        measure_code("untrained beta'", lambda_of(untrained, sample.beta), sample, spread),
    ]
    rows += [
        measure_code(name, lambda_of(other, sample.beta), sample, spread) for name, other in (others or {}).items()
    ]
    rows.append(_bottleneck_row(centred, sample, spread, expression.config.num_basis))
    return rows


def measure_code(name: str, code: np.ndarray, sample: ExpressionSample, spread: np.ndarray) -> CodeRow:
    """All numbers of one code ``(N, D)``."""
    truth, identity = sample.truth * spread, sample.identity
    within = without_mean(truth, sample.clip)
    linear = cross_fitted(code, truth, identity)
    per_mode = r2_per_mode(truth, linear, identity)
    return CodeRow(
        code=name,
        numbers=code.shape[1],
        between_identity_share=between_share(code, identity),
        identity_1nn=nearest_half(code, sample.clip, identity),
        identity_1nn_frames=identity_1nn(code, identity),
        r2=pooled_r2(truth, linear, identity),
        r2_leading=float(per_mode[:LEADING].mean()),
        r2_within=pooled_r2(within, cross_fitted(without_mean(code, sample.clip), within, identity), identity),
        r2_quadratic=pooled_r2(truth, cross_fitted(quadratic_features(code), truth, identity), identity),
        r2_per_mode=per_mode.tolist(),
    )


def nearest_half(code: np.ndarray, clip: np.ndarray, identity: np.ndarray) -> float:
    """Share of clips whose mean over the second half lies nearest to a first half of the same person.

    Chance is 1 / identities. A clip of T frames gives T // 2 to the first half. Codes with each clip's mean removed
    have opposite halves, so that they score below chance by construction.
    """
    first, second, people = [], [], []
    for number in np.unique(clip):
        rows = np.flatnonzero(clip == number)
        half = len(rows) // 2
        first.append(code[rows[:half]].mean(axis=0))
        second.append(code[rows[half:]].mean(axis=0))
        people.append(identity[rows[0]])
    distance = ((np.stack(second)[:, None] - np.stack(first)[None]) ** 2).sum(axis=-1)
    who = np.asarray(people)
    return float((who[distance.argmin(axis=1)] == who).mean())


def cross_fitted(code: np.ndarray, truth: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """Predictions ``(N, Q)`` of the truth by ridge regression, each half of the people from a map of the other half.

    The strength is chosen inside the fitting half: fitted on every second person of it, tried on the others.
    """
    predicted = np.empty(truth.shape)
    for half in (0, 1):
        fit, test = identity % 2 != half, identity % 2 == half
        inner = (identity // 2) % 2 == 0
        part, trial = fit & inner, fit & ~inner
        if part.any() and trial.any():
            answers = ridge(code[part], truth[part], code[trial], STRENGTHS)
            errors = [((answer - truth[trial]) ** 2).sum() for answer in answers]
            strength = STRENGTHS[int(np.argmin(errors))]
        else:  # too few people to choose
            strength = STRENGTHS[2]
        predicted[test] = ridge(code[fit], truth[fit], code[test], (strength,))[0]
    return predicted


def ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, strengths: tuple[float, ...]) -> list[np.ndarray]:
    """Ridge regressions with intercept ``(N, P)`` -> ``(N, Q)``, applied to ``(M, P)``; one answer per strength.

    The penalty is strength * trace(X^T X) / P; the smaller of the two Gram matrices is decomposed once.
    """
    offset, mean = x.mean(axis=0), y.mean(axis=0)
    inputs, fresh, targets = x - offset, x_new - offset, y - mean
    penalty = max(float((inputs**2).sum()) / inputs.shape[1], 1e-12)
    wide = inputs.shape[1] > inputs.shape[0]
    gram = inputs @ inputs.T if wide else inputs.T @ inputs
    values, vectors = np.linalg.eigh(gram)
    values = values.clip(min=0.0)
    left = (fresh @ inputs.T if wide else fresh) @ vectors
    right = vectors.T @ (targets if wide else inputs.T @ targets)
    return [mean + (left / (values + strength * penalty)) @ right for strength in strengths]


def quadratic_features(code: np.ndarray) -> np.ndarray:
    """``(N, D)`` -> ``(N, D + D (D + 1) / 2)``: the standardised code and its pairwise products."""
    scaled = (code - code.mean(axis=0)) / code.std(axis=0).clip(min=1e-9)
    first, second = np.triu_indices(code.shape[1])
    return np.concatenate([scaled, scaled[:, first] * scaled[:, second]], axis=1)


def r2_per_mode(truth: np.ndarray, predicted: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """``(Q,)`` R^2 of each mode; the deviation is taken from the mean of each tested half."""
    error, deviation = _errors(truth, predicted, identity)
    return 1.0 - error / deviation.clip(min=1e-30)


def pooled_r2(truth: np.ndarray, predicted: np.ndarray, identity: np.ndarray) -> float:
    """One R^2 for all modes, which count by their variance: the share of the face's movement that is explained."""
    error, deviation = _errors(truth, predicted, identity)
    return float(1.0 - error.sum() / max(deviation.sum(), 1e-30))


def _errors(truth: np.ndarray, predicted: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centred = without_mean(truth, identity % 2)
    return ((truth - predicted) ** 2).sum(axis=0), (centred**2).sum(axis=0)


def _bottleneck_row(code: np.ndarray, sample: ExpressionSample, spread: np.ndarray, numbers: int) -> CodeRow:
    """The best that a linear code of so many numbers can do (reduced-rank regression): the ceiling of lambda."""
    truth, identity = sample.truth * spread, sample.identity

    def reduced(target: np.ndarray) -> np.ndarray:
        full = cross_fitted(code, target, identity)
        answer = np.empty(full.shape)
        for half in (0, 1):
            fit, test = identity % 2 != half, identity % 2 == half
            known = ridge(code[fit], target[fit], code[fit], (STRENGTHS[1],))[0]
            mean = target[fit].mean(axis=0)
            axes = np.linalg.svd(known - mean, full_matrices=False)[2][:numbers]
            answer[test] = mean + (full[test] - mean) @ axes.T @ axes
        return answer

    predicted = reduced(truth)
    per_mode = r2_per_mode(truth, predicted, identity)
    within = without_mean(truth, sample.clip)
    return CodeRow(
        code=f"best {numbers} linear numbers of beta-hat minus clip mean",
        numbers=numbers,
        between_identity_share=None,
        identity_1nn=None,
        identity_1nn_frames=None,
        r2=pooled_r2(truth, predicted, identity),
        r2_leading=float(per_mode[:LEADING].mean()),
        r2_within=pooled_r2(within, reduced(within), identity),
        r2_quadratic=None,
        r2_per_mode=per_mode.tolist(),
    )


def coefficient_lengths(coefficients: np.ndarray) -> dict[str, float]:
    """Distribution of |lambda| over the frames."""
    lengths = np.linalg.norm(coefficients, axis=1)
    low, middle, high = np.percentile(lengths, (5, 50, 95))
    return {
        "mean": float(lengths.mean()),
        "sd": float(lengths.std()),
        "p05": float(low),
        "median": float(middle),
        "p95": float(high),
    }


@torch.inference_mode()
def measure_contrast(
    expression: LeBS, encoder: ImageEncoder, dataset: ClipDataset, pretrain: dict[str, Any]
) -> dict[str, float]:
    """Loss of Eq. 1 and retrieval within clips on held-out pictures, beside their chance values.

    Args:
        expression, encoder: f_e and f_I of one pre-training run.
        dataset: clips with pictures; the same number of frames is taken from the start of each.
        pretrain: configuration of that run (temperature and form of Eq. 1).
    """
    config = config_from_dict(PretrainConfig, pretrain)
    frames = min(config.frames_per_clip, min(dataset.num_frames(i) for i in range(len(dataset))))
    store, share = FrameStore(dataset, 0, size=kept_size(encoder.config)), encoder.config.face_share
    loss = hits = 0.0
    for index in range(len(dataset)):
        pictures = np.stack([store.frame(index, time) for time in range(frames)])
        if share < 1.0:
            pictures, _ = around_nose(pictures, dataset.arrays(index)["landmarks"][:frames], share)
        images = to_tensor(pictures)
        codes = expression(torch.from_numpy(dataset.arrays(index)["beta"][:frames].copy()))[None]
        seen = encoder(images)[None]
        loss += float(
            contrastive_loss(
                codes,
                seen,
                temperature=config.temperature,
                include_positive=config.include_positive,
                symmetric=config.symmetric,
            )
        )
        hits += float(retrieval_accuracy(codes, seen))
    return {
        "clips": len(dataset),
        "frames_per_clip": frames,
        "loss": loss / len(dataset),
        "loss_at_chance": math.log(frames if config.include_positive else frames - 1),
        "retrieval": hits / len(dataset),
        "retrieval_at_chance": 1.0 / frames,
    }


def chances(sample: ExpressionSample) -> dict[str, float]:
    """What codes without information give: 1-NN over halves, 1-NN over frames, between-identity share."""
    between = (sample.identities - 1) / (len(sample.beta) - 1)
    halves, frames = 1.0 / sample.identities, chance_1nn(sample.identity)
    return {"identity_1nn": halves, "identity_1nn_frames": frames, "between_identity_share": between}


def verdicts(rows: list[CodeRow], chance: float) -> dict[str, bool]:
    """Whether the two claims hold: identity near chance, and expression not below beta-hat minus its clip mean."""
    named = {row.code: row for row in rows}
    code, centred = named["beta' (lambda)"], named["beta-hat minus clip mean"]
    assert code.identity_1nn is not None and code.r2_quadratic is not None and centred.r2_quadratic is not None
    return {
        "identity_near_chance": code.identity_1nn <= NEAR_CHANCE * chance,
        "expression_kept_linear": code.r2 >= centred.r2,
        "expression_kept_within": code.r2_within >= centred.r2_within,
        "expression_kept_quadratic": code.r2_quadratic >= centred.r2_quadratic,
    }
