"""How much identity the extractor's beta-hat carries, measured against the exact expression (Sec. 3.1, Fig. 8a).

Numbers of a row. Between-identity share: variance of the clip means over the whole variance. 1-NN identity: the mean
beta of the second half of a clip finds the first half of the same person's clip, among all. R^2 of the true expression:
a ridge regression from beta to the displacement of the face's vertices, learned on other identities; within clips: the
same with the mean of each clip taken off both sides; leading modes: mean R^2 of the first 12 scores of the true beta.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from export3d.errors import UsageError
from export3d.heads.clips.acting import trajectory
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.people import add_noise, draw_person
from export3d.heads.clips.splits import SPLITS
from export3d.heads.shape.parametric import ParametricHead

_RIDGE = 1e-2
_LEADING = 12


@dataclass(frozen=True, kw_only=True)
class EntanglementConfig:
    """What is measured."""

    identities: int = 60
    """Test identities, one clip each; chance of 1-NN is 1 over this."""
    frames: int = 40
    """Frames of a clip at 25 fps."""
    train_identities: int = 200
    """Identities of the train split on which the regression is learned."""
    seed: int = 0
    """Which identities of the splits, and which noise."""

    def __post_init__(self) -> None:
        if self.identities < 2 or self.train_identities < 2 or self.frames < 2:
            raise UsageError("--identities, --train-identities and --frames must be at least 2.")
        available = min(len(SPLITS["test"]) - self.identities, len(SPLITS["train"]) - self.train_identities)
        if not 0 <= self.seed <= available:
            raise UsageError(
                f"--seed/--identities: the test split has {len(SPLITS['test'])} identities; got {self.identities} from "
                f"{self.seed} on. Ask for fewer."
            )


@dataclass(frozen=True, kw_only=True)
class EntanglementRow:
    """One line of the table."""

    beta: str
    resting_offset: bool
    between_identity_share: float
    nearest_identity_accuracy: float
    expression_r2: float | None
    expression_r2_within_clips: float | None
    expression_r2_leading_modes: float | None


def measure_entanglement(
    head: ParametricHead, extractor: LinearExtractor, config: EntanglementConfig
) -> list[EntanglementRow]:
    """The table: true beta and beta-hat, with and without the resting offset of each person."""
    rows = []
    for resting in (True, False):
        sizes = {"test": config.identities, "train": config.train_identities}
        test, train = (
            _draw(head, extractor, SPLITS[split][config.seed : config.seed + count], config, resting_offset=resting)
            for split, count in sizes.items()
        )
        rows.append(_row("true beta", resting, test.true_beta))
        fitted = _row("beta-hat", resting, test.beta)
        pairs = (train.beta, train.displacement, test.beta, test.displacement)
        centred = tuple(_centred(t) for t in pairs)
        leading = [t[..., :_LEADING] for t in (train.true_beta, test.true_beta)]
        error, deviation = regression_errors(train.beta, leading[0], test.beta, leading[1])
        rows.append(
            replace(
                fitted,
                expression_r2=_pooled_r2(regression_errors(*pairs)),
                expression_r2_within_clips=_pooled_r2(regression_errors(*centred)),
                expression_r2_leading_modes=float((1.0 - error / deviation).mean()),
            )
        )
    return rows


@dataclass(frozen=True)
class _Sample:
    true_beta: Tensor  # (N, T, 64)
    beta: Tensor  # (N, T, 64)
    displacement: Tensor  # (N, T, 53), a rotation of the displacement of all face vertices, cm


def _draw(
    head: ParametricHead, extractor: LinearExtractor, seeds: range, config: EntanglementConfig, *, resting_offset: bool
) -> _Sample:
    shapes = head.expression_basis[:, head.vertices_of("face")].flatten(1).double()
    values, vectors = torch.linalg.eigh(shapes @ shapes.T / shapes.shape[1])
    to_displacement = vectors * values.clamp_min(0.0).sqrt()  # |w @ this|^2 = mean squared displacement
    true_beta, beta, displacement = [], [], []
    for seed in seeds:
        person = draw_person(
            head, seed, lambda s, rest: trajectory(s, config.frames, resting=rest), resting_offset=resting_offset
        )
        rng = np.random.default_rng([config.seed, seed])
        weights = torch.from_numpy(person.motion.weights)
        noisy = add_noise(person.landmarks, rng, extractor.config.noise_px)
        beta.append(extractor.fit(noisy, person.camera).double())
        true_beta.append(extractor.true_beta(weights).double())
        displacement.append(weights.double() @ to_displacement)
    return _Sample(torch.stack(true_beta), torch.stack(beta), torch.stack(displacement))


def _row(name: str, resting_offset: bool, beta: Tensor) -> EntanglementRow:
    return EntanglementRow(
        beta=name,
        resting_offset=resting_offset,
        between_identity_share=between_identity_share(beta),
        nearest_identity_accuracy=nearest_identity_accuracy(beta),
        expression_r2=None,
        expression_r2_within_clips=None,
        expression_r2_leading_modes=None,
    )


def between_identity_share(beta: Tensor) -> float:
    """Variance of the N clip means over the variance of all frames of ``(N, T, D)``, summed over D; 0..1."""
    means = beta.mean(1)
    return float(means.var(0, correction=0).sum() / beta.flatten(0, 1).var(0, correction=0).sum())


def nearest_identity_accuracy(beta: Tensor) -> float:
    """Share of the N clips ``(N, T, D)`` whose second half is nearest, in the mean, to its own first half."""
    half = beta.shape[1] // 2
    first, second = beta[:, :half].mean(1), beta[:, half:].mean(1)
    return float((torch.cdist(second, first).argmin(1) == torch.arange(len(beta))).double().mean())


def regression_errors(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error ``(D,)`` of a ridge regression learned on other people, and squared deviation of the truth."""
    inputs, targets = train_x.flatten(0, 1), train_y.flatten(0, 1)
    offset, mean = inputs.mean(0), targets.mean(0)
    inputs = inputs - offset
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    matrix = torch.linalg.solve(gram, inputs.T @ (targets - mean))
    answer = (test_x.flatten(0, 1) - offset) @ matrix + mean
    truth = test_y.flatten(0, 1)
    return ((truth - answer) ** 2).sum(0), ((truth - truth.mean(0)) ** 2).sum(0)


def _pooled_r2(errors: tuple[Tensor, Tensor]) -> float:
    """One R^2 for all dimensions, which count by their size."""
    return float(1.0 - errors[0].sum() / errors[1].sum())


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
