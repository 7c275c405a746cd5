"""Expressions of held-out identities with exact truth, from stored clips or drawn without rendering (Secs. 3.1, 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from export3d.data import ClipDataset
from export3d.errors import DataError, UsageError
from export3d.evaluation.metrics.truth import require_unseen_truth
from export3d.heads.clips.acting import independent
from export3d.heads.clips.extractor import NUM_EXPRESSION, LinearExtractor
from export3d.heads.clips.people import add_noise, draw_person
from export3d.heads.clips.splits import identity_seeds
from export3d.heads.shape.parametric import ParametricHead


@dataclass(frozen=True, kw_only=True)
class ExpressionSample:
    """All frames of some clips, in the order of time within each clip."""

    beta: np.ndarray
    """``(N, 64)`` float64 beta-hat, what the extractor gave."""
    truth: np.ndarray
    """``(N, 53)`` float64 exact expression: scores of the modes, each of unit variance over people and frames."""
    identity: np.ndarray
    """``(N,)`` int64, 0 to the number of identities - 1."""
    clip: np.ndarray
    """``(N,)`` int64."""

    @property
    def identities(self) -> int:
        """How many people."""
        return int(self.identity.max()) + 1

    def first(self, identities: int) -> ExpressionSample:
        """The frames of the first so many identities."""
        chosen = self.identity < identities
        return ExpressionSample(
            beta=self.beta[chosen], truth=self.truth[chosen], identity=self.identity[chosen], clip=self.clip[chosen]
        )


def sample_of_clips(dataset: ClipDataset) -> ExpressionSample:
    """Read the betas and the truth of stored synthetic clips; no picture is decoded.

    Raises:
        DataError: A clip is of the train split, has no `true_beta`, or all clips show one person.
    """
    require_unseen_truth(dataset, len(dataset))
    rows = []
    names: dict[str, int] = {}
    for index in range(len(dataset)):
        arrays = dataset.arrays(index)
        number = names.setdefault(dataset.identity(index), len(names))
        rows.append((arrays["beta"], arrays["true_beta"][:, :NUM_EXPRESSION], number))
    if len(names) < 2:
        raise DataError(f"{dataset.folder}: expected at least 2 identities; got {len(names)}.")
    return _joined(rows)


def draw_sample(
    head: ParametricHead, extractor: LinearExtractor, *, identities: int, frames: int, seed: int = 0
) -> ExpressionSample:
    """What `sample_of_clips` would find in clips of the test split, without rendering them.

    Heads, motion and noise level are those of `heads render --split test`; the noise itself is drawn anew from `seed`.
    """
    if identities < 2 or frames < 2:
        raise UsageError(f"expected at least 2 identities of 2 frames; got {identities} of {frames}.")
    rows = []
    for number, person_seed in enumerate(identity_seeds("test", 0, identities)):
        person = draw_person(head, person_seed, lambda s, rest: independent(s, frames, resting=rest))
        noisy = add_noise(person.landmarks, np.random.default_rng([seed, person_seed]), extractor.config.noise_px)
        beta = extractor.fit(noisy, person.motion.camera()).numpy()
        truth = extractor.true_beta(torch.from_numpy(person.motion.weights)).numpy()
        rows.append((beta, truth[:, :NUM_EXPRESSION], number))
    return _joined(rows)


def _joined(rows: list[tuple[np.ndarray, np.ndarray, int]]) -> ExpressionSample:
    lengths = [len(beta) for beta, _, _ in rows]
    return ExpressionSample(
        beta=np.concatenate([beta for beta, _, _ in rows]).astype(np.float64),
        truth=np.concatenate([truth for _, truth, _ in rows]).astype(np.float64),
        identity=np.repeat([number for _, _, number in rows], lengths),
        clip=np.repeat(np.arange(len(rows)), lengths),
    )
