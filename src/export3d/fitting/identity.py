"""Training of the offline identity network on rendered heads, and how well it tells unseen people apart (Sec. 4.2).

Cosine softmax over the training identities. The background behind the head, the light's colour and the side are random
in training: none of them is part of an identity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.identity.crops import METRIC_SIZE_PX, crop_faces
from export3d.identity.network import IdentityConfig, IdentityNet, save_identity
from export3d.tracking.faces import ExtractorInfo

_MARGIN = 1 / 32  # two pixels of 64 on each side, for random shifts

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


@dataclass(frozen=True, kw_only=True)
class IdentityTraining:
    """How the network is trained."""

    epochs: int = 4
    """Passes over all frames."""
    batch: int = 64
    """Frames of one step."""
    rate: float = 2e-3
    """Highest learning rate of AdamW; one cosine cycle with a short warm-up."""
    weight_decay: float = 0.02
    """AdamW's."""
    scale: float = 20.0
    """Factor of the cosines before the softmax."""
    margin: float = 0.2
    """Taken off the cosine of the right identity."""
    noise_px: float = 1.5
    """Random error of each landmark before the crop, pixels at 256."""
    held_out_share: float = 0.15
    """Share of the identities kept for measuring where no other data set is given."""
    seed: int = 0
    """Seed of everything that is random."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Same person or not, on identities that the network never saw.

    Attributes:
        accuracy: share of right answers over as many pairs of one person as of two; the threshold for one half of the
            people is chosen on the other half.
        auc: chance that a pair of one person is more alike than a pair of two.
        threshold: mean of the two thresholds.
        same_mean, different_mean: mean cosine of either kind of pair.
        identities, frames, pairs: how many were measured.
    """

    accuracy: float
    auc: float
    threshold: float
    same_mean: float
    different_mean: float
    identities: int
    frames: int
    pairs: int


def train_identity(
    dataset: ClipDataset,
    output: Path,
    training: IdentityTraining,
    *,
    held_out: ClipDataset | None = None,
    config: IdentityConfig | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, measure on held-out identities, write the file.

    Args:
        dataset: synthetic clips with landmarks; masks are used where they are stored.
        output: ends in .safetensors.
        held_out: clips of other identities; without it the last identities of `dataset` are kept apart.

    Returns:
        The facts that are stored in the file.

    Raises:
        DataError: An identity is in both sets, or there are too few.
    """
    config = config or IdentityConfig()
    started = time.monotonic()
    people = sorted({dataset.identity(i) for i in range(len(dataset))})
    if held_out is None:
        kept = max(4, round(len(people) * training.held_out_share))
        apart, held_out, people = set(people[-kept:]), dataset, people[:-kept]
    else:
        apart = {held_out.identity(i) for i in range(len(held_out))}
    both = sorted(apart & set(people))
    if both:
        raise DataError(f"{held_out.folder}: identity '{both[0]}' is in the training data too. Use other people.")
    if len(people) < 2 or len(apart) < 4:
        raise DataError(
            f"{dataset.folder}: {len(people)} identities to train on and {len(apart)} held out; at least 2 and 4 are "
            "needed. Render more heads."
        )
    pictures, labels = _load_crops(dataset, people, config, training)
    net = _fit(pictures, labels, config, training, on_progress)
    measured = verify(*embed_clips(net, held_out, sorted(apart)), seed=training.seed)
    facts = {
        "training": asdict(training),
        "identities": len(people),
        "frames": len(pictures),
        "seconds": round(time.monotonic() - started, 1),
        "verification": asdict(measured),
    }
    save_identity(output, net, facts)
    return facts


def embed_clips(net: IdentityNet, dataset: ClipDataset, people: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings ``(N, dim)`` of all frames of these people by the stored landmarks, and their numbers ``(N,)``."""
    from export3d.identity.network import IdentityNetwork

    backend = IdentityNetwork(net, ExtractorInfo("", "", "", ""), _NoFaces(), {})
    embedded, labels = [], []
    for index in range(len(dataset)):
        if dataset.identity(index) not in people:
            continue
        frames = dataset.frames(index)
        embedded.append(backend.embed(frames, dataset.arrays(index)["landmarks"] * METRIC_SIZE_PX))
        labels += [people.index(dataset.identity(index))] * len(frames)
    return np.concatenate(embedded), np.array(labels)


def verify(embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Verification:
    """Verification scores of embeddings ``(N, dim)`` of length 1, NaN rows left out, with their people ``(N,)``."""
    known = np.isfinite(embeddings).all(axis=1)
    embeddings, labels = embeddings[known], labels[known]
    people = np.random.default_rng(seed).permutation(np.unique(labels))
    halves = (people[: len(people) // 2], people[len(people) // 2 :])
    drawn = [_pairs(embeddings, labels, half, seed) for half in halves]
    thresholds = [_best_threshold(same, different) for same, different in drawn]
    right = total = 0
    for (same, different), threshold in zip(drawn, reversed(thresholds), strict=True):
        right += int((same > threshold).sum() + (different <= threshold).sum())
        total += len(same) + len(different)
    same = np.concatenate([pair[0] for pair in drawn])
    different = np.concatenate([pair[1] for pair in drawn])
    return Verification(
        accuracy=right / total,
        auc=_auc(same, different),
        threshold=float(np.mean(thresholds)),
        same_mean=float(same.mean()),
        different_mean=float(different.mean()),
        identities=len(people),
        frames=len(labels),
        pairs=total,
    )


class _NoFaces:
    """Stands where a face back end is expected and the landmarks are known already."""

    info = landmark_info = ExtractorInfo("stored-landmarks", "1", "", "")

    def measure(self, frames: np.ndarray) -> Any:
        raise RuntimeError("the landmarks are given; nothing is measured here")


def _pairs(embeddings: np.ndarray, labels: np.ndarray, people: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of one person, and of as many random pairs of two people."""
    inside = np.isin(labels, people)
    vectors, who = embeddings[inside], labels[inside]
    first, second = np.triu_indices(len(who), 1)
    cosines = (vectors @ vectors.T)[first, second]
    is_same = who[first] == who[second]
    same, different = cosines[is_same], cosines[~is_same]
    if not len(same) or not len(different):
        raise DataError(
            "verification needs at least two frames of each of two people in each half of the held-out set."
        )
    count = min(len(same), len(different))
    generator = np.random.default_rng(seed)
    return generator.permutation(same)[:count], generator.permutation(different)[:count]


def _best_threshold(same: np.ndarray, different: np.ndarray) -> float:
    """The cosine above which "same" is right most often."""
    values = np.concatenate([same, different])
    order = np.argsort(values)
    is_same = np.concatenate([np.ones(len(same)), np.zeros(len(different))])[order]
    right = len(same) + np.cumsum(1 - is_same) - np.cumsum(is_same)  # threshold just at each value
    return float(values[order][int(np.argmax(right))])


def _auc(same: np.ndarray, different: np.ndarray) -> float:
    """Mann-Whitney: the share of (same, different) couples in the right order; ties count half."""
    ordered = np.sort(different)
    below = np.searchsorted(ordered, same, "left")
    up_to = np.searchsorted(ordered, same, "right")
    return float((below + up_to).mean() / 2 / len(different))


def _load_crops(
    dataset: ClipDataset, people: Sequence[str], config: IdentityConfig, training: IdentityTraining
) -> tuple[Tensor, Tensor]:
    """uint8 crops ``(N, 4, S', S')`` (RGB, foreground) with a margin, and people ``(N,)``."""
    generator = np.random.default_rng(training.seed)
    side = config.size + 2 * round(config.size * _MARGIN)
    margin = (side - config.size) / 2 / config.size
    number = {name: i for i, name in enumerate(people)}
    crops, labels = [], []
    for index in range(len(dataset)):
        who = number.get(dataset.identity(index))
        if who is None:
            continue
        colour = dataset.frames(index)
        if dataset.has(index, "0000.mask.png"):
            alpha = np.stack([dataset.mask(index, t) for t in range(len(colour))])[..., None]
        else:
            alpha = np.full((*colour.shape[:3], 1), 255, np.uint8)
        points = dataset.arrays(index)["landmarks"] * METRIC_SIZE_PX
        points = points + generator.normal(0.0, training.noise_px, points.shape)
        crops.append(crop_faces(np.concatenate([colour, alpha], axis=-1), points, side, margin))
        labels += [who] * len(colour)
    return torch.from_numpy(np.concatenate(crops)).movedim(-1, 1).contiguous(), torch.tensor(labels)


def _fit(
    pictures: Tensor, labels: Tensor, config: IdentityConfig, training: IdentityTraining, on_progress: Progress | None
) -> IdentityNet:
    num_people = int(labels.max()) + 1
    torch.manual_seed(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    net = IdentityNet(config).train()
    centres = nn.Parameter(F.normalize(torch.randn(num_people, config.dim, generator=generator), dim=1))
    optimiser = torch.optim.AdamW([*net.parameters(), centres], lr=training.rate, weight_decay=training.weight_decay)
    batch = min(training.batch, len(pictures))
    steps = training.epochs * (len(pictures) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=max(steps, 2), pct_start=0.1)
    step = 0
    for _ in range(training.epochs):
        order = torch.randperm(len(pictures), generator=generator)
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            cosines = net(_augment(pictures[chosen], config.size, generator)) @ F.normalize(centres, dim=1).T
            cosines = cosines - training.margin * F.one_hot(labels[chosen], num_people)
            loss = F.cross_entropy(training.scale * cosines, labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if on_progress is not None:
                on_progress(step, steps)
    return net.eval()


def _augment(pictures: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """uint8 ``(N, 4, S', S')`` -> float ``(N, 3, size, size)``: another background, light, side and place."""
    count, spare = len(pictures), pictures.shape[-1] - size

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    top, left = (int(torch.randint(spare + 1, (), generator=generator)) for _ in range(2))
    x = pictures[:, :, top : top + size, left : left + size].float() / 255.0
    colour, alpha = x[:, :3], x[:, 3:]
    other = colour[torch.randperm(count, generator=generator)]
    plain = uniform(0.0, 1.0, 3, 1, 1).expand_as(colour)
    behind = torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.5, other, plain)
    colour = torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.7, alpha * colour + (1 - alpha) * behind, colour)
    colour = colour * uniform(0.75, 1.3, 1, 1, 1) * uniform(0.93, 1.07, 3, 1, 1) + uniform(-0.05, 0.05, 1, 1, 1)
    colour = torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.5, colour.flip(-1), colour)
    return colour.clamp(0.0, 1.0) * 2.0 - 1.0
