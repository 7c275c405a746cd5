"""Loss terms of the two training phases: Eq. 13 (reconstruction), Eq. 14 (with the adversarial term), and options.

Every term is a mean over the samples of one number per sample, so that a batch split over processes gives the same
gradient as the whole batch in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.training.batches.space_points import occupancy_loss

_SOFT = 0.3  # hundredths of a scene unit (1.4 mm)

PerceptualFunction = Callable[[Tensor, Tensor], Tensor]
"""Two image batches ``(B, 3, H, W)`` in [-1, 1] -> one distance per sample ``(B,)``."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the reconstruction terms. The defaults are Eq. 13: four terms of weight 1; 0 turns a term off."""

    mse_raw: float = 1.0
    """Mean squared error of the raw image (Eq. 13)."""
    mse: float = 1.0
    """Mean squared error of the final image (Eq. 13)."""
    perceptual_raw: float = 1.0
    """Perceptual distance of the raw image (Eq. 13)."""
    perceptual: float = 1.0
    """Perceptual distance of the final image (Eq. 13)."""
    l1_raw: float = 0.0
    """Mean absolute error of the raw image (not the paper)."""
    l1: float = 0.0
    """Mean absolute error of the final image (not the paper)."""
    gradient_raw: float = 0.0
    """Multi-scale gradient L1 of the raw image (not the paper)."""
    gradient: float = 0.0
    """Multi-scale gradient L1 of the final image (not the paper)."""
    depth: float = 0.0
    """Mean absolute error of the depth inside the head, scene units (synthetic clips only, not the paper)."""
    opacity: float = 0.0
    """Mean squared error of the opacity against the head's mask (synthetic clips only, not the paper)."""
    surface: float = 0.0
    """Distance between where the source lookup looks for points of the surface and where they were, in hundredths of a
    scene unit, with the cross-entropy of its gates (synthetic clips only, not the paper)."""
    occupancy: float = 0.0
    """Cross-entropy of the density at points of air and of solid head (synthetic clips only, not the paper)."""
    source_depth: float = 0.0
    """Mean absolute error of the depth that the model reads off the portrait, scene units (models with a source depth, on
    synthetic clips)."""
    matte: float = 0.0
    """Cross-entropy of the portrait's matte against the source's mask (models with a separate background only)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"loss weight {field.name} must not be negative; got {getattr(self, field.name)}")


@dataclass(frozen=True)
class PortraitPrediction:
    """What the model read off the portrait alone; None for what it does not read.

    Attributes:
        matte_logits: ``(B, 1, m, m)`` logits of the foreground.
        depth: ``(B, 1, m, m)`` distance along the rays, less that of the origin, scene units.
    """

    matte_logits: Tensor | None = None
    depth: Tensor | None = None


@dataclass(frozen=True)
class PortraitTarget:
    """The truth of it; None where it is unknown.

    Attributes:
        matte: ``(B, 1, m, m)`` share of each pixel that the head covers.
        depth: ``(B, 1, m, m)`` as in the prediction; read only where `inside` is 1.
        inside: ``(B, 1, m, m)`` 1 where the depth is known.
    """

    matte: Tensor | None = None
    depth: Tensor | None = None
    inside: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    raw: Tensor
    """``(B, 3, r, r)`` in [-1, 1]."""
    image: Tensor | None
    """``(B, 3, s, s)`` in [-1, 1]; None where only the raw image was rendered."""
    depth: Tensor | None = None
    """``(B, 1, r, r)`` distance along the ray, scene units."""
    opacity: Tensor | None = None
    """``(B, 1, r, r)`` in [0, 1]: share of each pixel that the head covers."""
    image_opacity: Tensor | None = None
    """``(B, 1, s, s)`` the same in the final image."""
    places: Tensor | None = None
    """``(B, P, 3)`` surface points in the portrait, scene units: where the source lookup looks for them, or where they were."""


@dataclass(frozen=True, kw_only=True)
class Prediction(_Pictures):
    """What the model gave, as the losses need it."""

    portrait: PortraitPrediction = PortraitPrediction()
    """What the model read off the portrait alone."""
    gate_logits: Tensor | None = None
    """``(B, P, 2)`` logits of the gates of the source lookup."""
    sigma: Tensor | None = None
    """``(B, Q)`` density at the points of space, 1 / scene unit."""


@dataclass(frozen=True, kw_only=True)
class Target(_Pictures):
    """The driving frame, cut and resized like the prediction; its depth is read only where `inside` is 1."""

    inside: Tensor | None = None
    """``(B, 1, r, r)`` 1 where the depth is known."""
    portrait: PortraitTarget = PortraitTarget()
    """The truth of what the model reads off the portrait alone."""
    gates: Tensor | None = None
    """``(B, P, 2)`` 1 where the portrait shows the point, and where it shows its mirror image."""
    solid: Tensor | None = None
    """``(B, Q)`` 1 where a point of space lies in the head, 0 in the air, NaN where that is unknown."""
    weight_raw: Tensor | None = None
    """``(B, 1, r, r)`` weight of each pixel in the pixel terms (mean squared, absolute); None is 1 everywhere."""
    weight: Tensor | None = None
    """``(B, 1, s, s)`` the same for the final image."""


def reconstruction_terms(
    prediction: Prediction, target: Target, weights: LossWeights, perceptual: PerceptualFunction | None
) -> dict[str, Tensor]:
    """The terms of Eq. 13 (and the options) that have a weight above 0, each unweighted, by the field's name.

    Args:
        perceptual: needed if `weights.perceptual` or `weights.perceptual_raw` is above 0.

    Raises:
        ValueError: A perceptual weight without a perceptual distance.
    """
    wants_perceptual = weights.perceptual > 0 or weights.perceptual_raw > 0
    if perceptual is None and wants_perceptual:
        raise ValueError("perceptual weights above 0 need a perceptual distance; give one, or set both weights to 0")
    terms: dict[str, Tensor] = {}
    pairs = [("_raw", prediction.raw, target.raw, target.weight_raw)]
    if prediction.image is not None:
        if target.image is None:
            raise ValueError("the prediction has a final image, the target has none")
        pairs.append(("", prediction.image, target.image, target.weight))
    for suffix, given, wanted, weight in pairs:
        if getattr(weights, f"mse{suffix}") > 0:
            terms[f"mse{suffix}"] = weighted_mean((given - wanted).square(), weight)
        if getattr(weights, f"l1{suffix}") > 0:
            terms[f"l1{suffix}"] = weighted_mean((given - wanted).abs(), weight)
        if getattr(weights, f"gradient{suffix}") > 0:
            terms[f"gradient{suffix}"] = multi_scale_gradient_l1(given, wanted)
        if perceptual is not None and getattr(weights, f"perceptual{suffix}") > 0:
            terms[f"perceptual{suffix}"] = perceptual(given, wanted).mean()
    if weights.depth > 0 and prediction.depth is not None and target.depth is not None and target.inside is not None:
        terms["depth"] = masked_l1(prediction.depth, target.depth, target.inside)
    if weights.opacity > 0 and prediction.opacity is not None and target.opacity is not None:
        terms["opacity"] = (prediction.opacity - target.opacity).square().mean()
        if prediction.image_opacity is not None and target.image_opacity is not None:
            terms["opacity"] = terms["opacity"] + (prediction.image_opacity - target.image_opacity).square().mean()
    if weights.surface > 0 and prediction.places is not None and target.places is not None:
        assert prediction.gate_logits is not None and target.gates is not None
        terms["surface"] = surface_loss(prediction.places, prediction.gate_logits, target.places, target.gates)
    if weights.occupancy > 0 and prediction.sigma is not None and target.solid is not None:
        terms["occupancy"] = occupancy_loss(prediction.sigma, target.solid)
    return terms | portrait_terms(prediction.portrait, target.portrait, weights)


def portrait_terms(given: PortraitPrediction, wanted: PortraitTarget, weights: LossWeights) -> dict[str, Tensor]:
    """The terms of what is read off the portrait alone, each unweighted, by the field's name."""
    terms: dict[str, Tensor] = {}
    if weights.source_depth > 0 and given.depth is not None and wanted.depth is not None:
        assert wanted.inside is not None
        terms["source_depth"] = masked_l1(given.depth, wanted.depth, wanted.inside)
    if weights.matte > 0 and given.matte_logits is not None and wanted.matte is not None:
        terms["matte"] = F.binary_cross_entropy_with_logits(given.matte_logits.float(), wanted.matte)
    return terms


def weighted_sum(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Eq. 13: the sum of the terms, each times its weight."""
    total = torch.zeros((), device=next(iter(terms.values())).device)
    for name, value in terms.items():
        total = total + getattr(weights, name) * value
    return total


def weighted_mean(error: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of ``(B, C, H, W)`` errors; with a weight ``(B, 1, H, W)``, each sample's weights are scaled to mean 1."""
    if weight is None:
        return error.mean()
    scale = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return (error * scale).mean()


def multi_scale_gradient_l1(given: Tensor, wanted: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical pixel differences, summed over `levels` halvings."""
    error = given - wanted  # differences are linear: the gradient's error is the error's gradient
    total = error.new_zeros(())
    for level in range(levels):
        if level:
            error = F.avg_pool2d(error, 2)
        if min(error.shape[-2:]) < 2:  # nothing left to difference
            break
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total


def masked_l1(given: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """Mean over the samples of each sample's mean absolute error where `inside` is 1 (0 if nowhere)."""
    error = ((given - wanted).abs() * inside).sum(dim=(1, 2, 3))
    return (error / inside.sum(dim=(1, 2, 3)).clamp(min=1.0)).mean()


def surface_loss(places: Tensor, gate_logits: Tensor, wanted: Tensor, gates: Tensor) -> Tensor:
    """Mean distance of the places in hundredths of a scene unit, plus the cross-entropy of the gates.

    The distance d is softened to sqrt(d^2 + s^2) - s with s = 0.3: most points hardly move, and the plain distance would be
    content with their median, which is to stand still.

    Args:
        places, wanted: ``(B, P, 3)`` scene units.
        gate_logits, gates: ``(B, P, 2)`` logits, and 0 or 1.
    """
    square = (100.0 * (places - wanted)).square().sum(dim=-1)
    distance = (square + _SOFT**2).sqrt() - _SOFT
    return distance.mean() + F.binary_cross_entropy_with_logits(gate_logits, gates)


def seen_points(points: Tensor, camera: Camera, depth: Tensor, tolerance: float = 0.012) -> Tensor:
    """Which points a frame shows: those no farther than its depth at their pixel.

    Args:
        points: ``(B, P, 3)`` scene units.
        camera: B cameras of the frames.
        depth: ``(B, H, W)`` distance along the ray, scene units, 0 where there is no head.
        tolerance: scene units (0.012 = 0.6 cm).

    Returns:
        ``(B, P)`` 1 where seen, else 0; 0 outside the frame.
    """
    position, _ = camera.project(points)  # (B, P, 2) in [0, 1]
    size = depth.shape[-1]
    column, row = (position * size).floor().long().unbind(-1)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    at = row.clamp(0, size - 1) * size + column.clamp(0, size - 1)
    surface = depth.flatten(1).gather(1, at)
    distance = (points - camera.cam_to_world[:, None, :3, 3]).norm(dim=-1)
    return (inside & (surface > 0) & (distance < surface + tolerance)).float()


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating binary cross-entropy on logits, generator's side: -log sigmoid(D(fake)) = softplus(-D(fake))."""
    return F.softplus(-fake_logits).mean()


def discriminator_adversarial_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy on logits: softplus(-D(real)) + softplus(D(fake)), means over the samples."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def total_loss(
    reconstruction: Tensor, adversarial: Tensor, weight_rec: float = 1.0, weight_adv: float = 0.01
) -> Tensor:
    """Eq. 14: weight_rec * L_rec + weight_adv * L_adv (paper: 1 and 0.01)."""
    return weight_rec * reconstruction + weight_adv * adversarial


def r1_penalty(real_logits: Tensor, real_images: tuple[Tensor, ...]) -> Tensor:
    """Mean over the samples of the squared gradient norm of D(real) with respect to the real images.

    The caller multiplies by gamma / 2 and, if it is applied every k steps, by k. Differentiable.
    """
    gradients = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    squares = [g.square().sum(dim=tuple(range(1, g.ndim))) for g in gradients]
    return torch.stack(squares).sum(dim=0).mean()
