"""One generator step and one discriminator step as modules (Eqs. 11-14): batch in, loss terms out, no side effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.errors import TrainingError
from export3d.images import to_tensor_of
from export3d.model.result import Render
from export3d.model.superres import resize
from export3d.portrait.drivable import Model, drivable
from export3d.portrait.model import PortraitModel
from export3d.portrait.state import DrivenPlanes
from export3d.rendering.rays import Window
from export3d.training.batches.pair_batch import PairBatch
from export3d.training.batches.windows import cut, focus_weight, shrink_depth, shrink_mask, trim
from export3d.training.losses.terms import (
    LossWeights,
    PerceptualFunction,
    PortraitPrediction,
    PortraitTarget,
    Prediction,
    Target,
    discriminator_adversarial_loss,
    generator_adversarial_loss,
    portrait_terms,
    r1_penalty,
    reconstruction_terms,
    seen_points,
    total_loss,
    weighted_sum,
)


@dataclass(frozen=True, kw_only=True)
class View:
    """What part of the driving frame a step renders."""

    window: int | None = None
    """Side of the window in rays; None is the whole raw image."""
    coarse_size: int | None = None
    """Render the whole frame with this many rays a side and no super-resolution."""
    portrait_only: bool = False
    """Render nothing; only what is read off the portrait alone is compared."""


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What a generator step hands to the optimiser and to the discriminator's step."""

    terms: dict[str, Tensor]
    """Scalars; `total` is what is differentiated."""
    planes: Tensor | None
    """The generator's output, detached, for the running mean (Eq. 12); None if nothing was rendered."""
    fake: tuple[Tensor, Tensor] | None
    """Final and raw image, detached."""
    real: tuple[Tensor, Tensor] | None


class GeneratorStep(nn.Module):
    """The model and its loss as one module, so that DistributedDataParallel sees one forward pass.

    Args:
        focus: extra weight of the pixel terms around eyes and mouth (0: none).
        edge_px: pixels along the border of a window that the terms of the final image leave out (see `trim`).
        weight_rec, weight_adv: Eq. 14.
    """

    def __init__(
        self,
        model: Model,
        weights: LossWeights,
        perceptual: PerceptualFunction | None,
        *,
        focus: float = 0.0,
        edge_px: int = 0,
        weight_rec: float = 1.0,
        weight_adv: float = 0.01,
        autocast: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._drivable = drivable(model)  # the same model, not another module
        self._weights = weights
        self._perceptual = [perceptual]  # in a list: its weights are no part of this module
        self._focus = focus
        self._edge_px = edge_px
        self._weight_rec = weight_rec
        self._weight_adv = weight_adv
        self._autocast = autocast

    def forward(
        self, batch: PairBatch, view: View, jitter: torch.Generator | None, discriminator: nn.Module | None = None
    ) -> StepOutput:
        """Render the batch and compute every term; with a discriminator, also the adversarial one."""
        source = resize(to_tensor_of(batch.source), self.model.config.image_size)  # clips may be larger than the model
        if view.portrait_only:
            return self._portrait(batch, source)
        driving = to_tensor_of(batch.driving)
        window: Window | None = None
        if view.coarse_size is None and view.window is not None:
            window = (batch.window_top, batch.window_left, view.window)
        with torch.autocast(source.device.type, torch.bfloat16, enabled=self._autocast):
            render, driven = self._render(batch, source, view, window, jitter)
        raw_size = view.coarse_size or self.model.config.renderer.raw_size
        prediction = self._prediction(batch, render, driven)
        target = self._target(batch, driving, prediction, raw_size, window)
        if window is not None and self._edge_px and prediction.image is not None and target.image is not None:
            inner = partial(trim, window=window, raw_size=raw_size, edge_px=self._edge_px)
            prediction = replace(prediction, image=inner(prediction.image))
            weight = None if target.weight is None else inner(target.weight)
            target = replace(target, image=inner(target.image), weight=weight)
        weights = self._weights
        if prediction.image is None:  # the coarse stage: pixel, gradient and geometry terms only
            weights = replace(weights, perceptual_raw=0.0, perceptual=0.0)
        terms = reconstruction_terms(prediction, target, weights, self._perceptual[0])
        total = terms["reconstruction"] = weighted_sum(terms, weights)
        fake = real = None
        if discriminator is not None and render.image is not None:
            image, raw = render.image.float(), render.raw.float()
            terms["adversarial"] = generator_adversarial_loss(discriminator(image, raw, batch.camera))
            total = total_loss(total, terms["adversarial"], self._weight_rec, self._weight_adv)
            fake = (image.detach(), raw.detach())
            real = (_driving_window(driving, self.model.config.image_size, raw_size, window), target.raw)
        terms["total"] = total
        return StepOutput(terms=terms, planes=render.planes.detach(), fake=fake, real=real)

    def _portrait(self, batch: PairBatch, source: Tensor) -> StepOutput:
        """What can be learned from portraits alone: matte and depth."""
        terms = {}
        if isinstance(self.model, PortraitModel):
            with torch.autocast(source.device.type, torch.bfloat16, enabled=self._autocast):
                matte_logits, depth = self.model.reader.geometry(source)
            prediction = PortraitPrediction(matte_logits, depth[:, :1])
            terms = portrait_terms(prediction, self._portrait_target(batch, prediction), self._weights)
        if not terms:
            raise TrainingError(
                "portrait_until: nothing can be learned from portraits alone here. It needs the portrait model, clips with "
                "masks and exact depth in every sample of a batch (synthetic heads), and weights.matte or "
                "weights.source_depth above 0; otherwise set portrait_until to 0."
            )
        terms["total"] = weighted_sum(terms, self._weights)
        return StepOutput(terms=terms, planes=None, fake=None, real=None)

    def _render(
        self, batch: PairBatch, source: Tensor, view: View, window: Window | None, jitter: torch.Generator | None
    ) -> tuple[Render, Any]:
        model = self._drivable
        mask = None if batch.source_mask is None else shrink_mask(batch.source_mask, model.config.image_size)
        code = model.encode(source, Camera.from_vector(batch.source_camera), batch.source_state, mask)
        driven = model.drive(code, batch.state)
        camera = Camera.from_vector(batch.camera)
        return model.render(driven, camera, window=window, jitter=jitter, raw_size=view.coarse_size), driven

    def _prediction(self, batch: PairBatch, render: Render, driven: Any) -> Prediction:
        """What the losses compare; `driven` is what `Drivable.drive` returned."""
        prediction = Prediction(
            raw=render.raw.float(),
            image=None if render.image is None else render.image.float(),
            depth=render.depth,
            opacity=render.opacity,
            image_opacity=render.image_opacity,
        )
        if isinstance(self.model, PortraitModel) and isinstance(driven, DrivenPlanes):
            maps = driven.code.maps
            prediction = replace(prediction, portrait=PortraitPrediction(maps.matte_logits, maps.depth[:, :1]))
            if self._weights.surface > 0 and batch.surface is not None:
                places, logits = self.model.guide(driven, batch.surface)
                prediction = replace(prediction, places=places, gate_logits=logits)
        if self._weights.occupancy > 0 and batch.space is not None:
            prediction = replace(prediction, sigma=self._drivable.sigma(driven, batch.space))
        return prediction

    def _portrait_target(self, batch: PairBatch, prediction: PortraitPrediction) -> PortraitTarget:
        weights = self._weights
        matte = depth = inside = None
        if weights.matte > 0 and batch.source_mask is not None and prediction.matte_logits is not None:
            matte = shrink_mask(batch.source_mask, prediction.matte_logits.shape[-1])
        if weights.source_depth > 0 and batch.source_depth is not None and prediction.depth is not None:
            depth, inside = shrink_depth(batch.source_depth[:, None], prediction.depth.shape[-1])
            origin = Camera.from_vector(batch.source_camera).cam_to_world[:, :3, 3].norm(dim=-1)
            depth = depth - origin[:, None, None, None]
        return PortraitTarget(matte, depth, inside)

    def _target(
        self, batch: PairBatch, driving: Tensor, prediction: Prediction, raw_size: int, window: Window | None
    ) -> Target:
        """What is known of the driving frame at the size and in the window of the prediction."""
        weights, size = self._weights, self.model.config.image_size
        depth = inside = opacity = image_opacity = weight = weight_raw = places = gates = None
        image = None if prediction.image is None else _driving_window(driving, size, raw_size, window)
        if weights.depth > 0 and batch.depth is not None:
            depth, inside = shrink_depth(batch.depth[:, None], raw_size)
            depth, inside = cut(depth, window), cut(inside, window)
        if weights.opacity > 0 and batch.mask is not None:
            opacity = cut(shrink_mask(batch.mask, raw_size), window)
            if prediction.image_opacity is not None:
                image_opacity = cut(shrink_mask(batch.mask, size), window, size // raw_size)
        if weights.surface > 0:
            places, gates = _seen_places(batch)
        if self._focus > 0:
            weight_raw = cut(focus_weight(batch.landmarks, raw_size, self._focus), window)
            if image is not None:
                weight = F.interpolate(weight_raw, size=image.shape[-2:], mode="nearest")
        return Target(
            raw=cut(resize(driving, raw_size), window),
            image=image,
            depth=depth,
            inside=inside,
            opacity=opacity,
            image_opacity=image_opacity,
            places=places,
            gates=gates,
            weight_raw=weight_raw,
            weight=weight,
            solid=batch.solid,
            portrait=self._portrait_target(batch, prediction.portrait),
        )


def _seen_places(batch: PairBatch) -> tuple[Tensor | None, Tensor | None]:
    """Where surface points were in the portrait (B, P, 3), and whether it shows them and their mirror images (B, P, 2)."""
    if batch.source_surface is None or batch.source_depth is None:
        return None, None
    places, camera = batch.source_surface, Camera.from_vector(batch.source_camera)
    mirrored = places * places.new_tensor([-1.0, 1.0, 1.0])
    seen = seen_points(places, camera, batch.source_depth)
    return places, torch.stack([seen, seen_points(mirrored, camera, batch.source_depth, tolerance=0.03)], dim=-1)


class DiscriminatorStep(nn.Module):
    """Binary cross-entropy of the discriminator, and the R1 penalty on the steps that have it."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(
        self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], camera: Tensor, r1_weight: float
    ) -> dict[str, Tensor]:
        """`r1_weight` is gamma / 2 times the number of steps between penalties; 0 leaves the penalty out."""
        if r1_weight > 0:
            real = (real[0].detach().requires_grad_(True), real[1].detach().requires_grad_(True))
        real_logits = self.discriminator(real[0], real[1], camera)
        fake_logits = self.discriminator(fake[0], fake[1], camera)
        terms = {"discriminator": discriminator_adversarial_loss(real_logits, fake_logits)}
        total = terms["discriminator"]
        if r1_weight > 0:
            terms["r1"] = r1_penalty(real_logits, real)
            total = total + r1_weight * terms["r1"]
        terms["discriminator_total"] = total
        return terms


def _driving_window(driving: Tensor, image_size: int, raw_size: int, window: Window | None) -> Tensor:
    return cut(resize(driving, image_size), window, image_size // raw_size)
