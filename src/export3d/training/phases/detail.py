"""Training of `DetailNet` alone: everything before it is frozen, so what one pass leaves is made once and kept (not the paper).

A pool of pairs is rendered by the frozen model the first time each of them is drawn; every step then composes windows of some
of them at one of the sizes, and compares them with the clips' own frames at that size.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.configs import config_to_dict
from export3d.data.pairs import counter_rng
from export3d.data.source import ClipSource
from export3d.errors import TrainingError, UsageError
from export3d.images import to_tensor_of
from export3d.model.superres import resize
from export3d.portrait.compose import Pass, compose_photo
from export3d.portrait.loading import save_model
from export3d.portrait.model import PortraitModel
from export3d.portrait.reader import photo_maps
from export3d.portrait.state import PhotoMaps
from export3d.rendering.fast import FastConfig
from export3d.rendering.rays import Window
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batch import PairBatch
from export3d.training.batches.pair_batches import pair_batch, window_at
from export3d.training.batches.windows import cut, focus_weight, shrink_mask, trim
from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import WeightMean, clip_gradients, make_adam, set_rate
from export3d.training.loop.run import cosine_rate, require_finite
from export3d.training.loop.run_folder import RunFolder
from export3d.training.losses.terms import multi_scale_gradient_l1, weighted_mean, weighted_sum
from export3d.training.losses.texture import texture_difference
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.train import MODEL_FILE

_ITEM_STREAM, _WINDOW_STREAM = 31, 32


@dataclass(frozen=True)
class DetailBatch:
    """The pairs of one step: their places in the pool, as they are stored, the windows of rays, and the size."""

    items: tuple[int, ...]
    pairs: PairBatch
    window: Window
    size: int


@dataclass(frozen=True)
class Kept:
    """What the frozen model made of one pair: all that composing reads, and the photograph by size."""

    left: Pass
    camera: Camera
    turn: Tensor | None
    foreground: Tensor
    photos: dict[int, PhotoMaps] = field(default_factory=dict)


class DetailTask:
    """Training of the detail network as the loop needs it (`loop.Task`).

    Args:
        config: `detail_size` and `detail_pool` say what is trained on; `samples`, `batch`, rates and weights as in phase 1.
        model: started from a trained model; only its `detail` changes.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: PortraitModel,
        dataset: ClipSource,
        world: World,
        *,
        notes: dict[str, Any] | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        if dataset.size < max(config.detail_size):
            raise UsageError(
                f"--detail-size {max(config.detail_size)}: the clips of {dataset.name} have {dataset.size} pixels; expected at "
                "least as many. Render larger ones (export3d heads render --size)."
            )
        if world.size > 1:
            raise UsageError("--detail-size: this training runs in one process; start it without torchrun.")
        self.config, self._world = config, world
        self.model = model.to(world.device).eval().requires_grad_(False)
        self.model.detail.requires_grad_(True)
        self._notes = {"extractor": dataset.extractor, "train": config_to_dict(config), **(notes or {})}
        self._store = FrameStore(dataset, int(cache_gb * 2**30))
        self._kept: dict[int, Kept] = {}
        self._optimizer = make_adam(
            [{"params": list(self.model.detail.parameters())}], config.learning_rate, config.betas, world.device
        )
        self.weight_mean = WeightMean(self.model.detail, config.weight_mean) if config.weight_mean > 0 else None

    @property
    def total_steps(self) -> int:
        return self.config.phase1_steps

    @property
    def samples_per_step(self) -> int:
        return self.config.batch

    def load_batch(self, step: int) -> DetailBatch:
        """Pairs of the pool, a size, and windows that show as many pixels at every size."""
        config = self.config
        rng = counter_rng(config.seed, _ITEM_STREAM, step, 0)
        size = config.detail_size[int(rng.integers(len(config.detail_size)))]
        items = tuple(int(x) for x in rng.integers(config.detail_pool, size=config.batch))
        rows = [
            pair_batch(
                self._store,
                config.seed,
                item,
                (0,),
                sampling=replace(config.sampling, surface_points=0, space_points=0),
                augment=config.augment,
                with_truth=True,
            )
            for item in items
        ]
        pairs = PairBatch.joined(rows)
        if pairs.mask is None:
            raise TrainingError(
                "--detail-size: every clip needs masks of the head; render them with export3d heads render."
            )
        side = max(1, (config.sampling.window or config.sampling.raw_size) * min(config.detail_size) // size)
        sampling = replace(config.sampling, window=side)
        corners = [
            window_at(points.numpy(), counter_rng(config.seed, _WINDOW_STREAM, step, place), sampling)
            for place, points in enumerate(pairs.landmarks)
        ]
        top, left = (torch.tensor(x) for x in zip(*corners, strict=True))
        return DetailBatch(items, pairs, (top, left, side), size)

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        config = self.config
        warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        through = min(step / config.phase1_steps, 1.0)
        return config.learning_rate * warm * cosine_rate(through, config.decay_from, config.decay_floor)

    def step(self, step: int, batch: DetailBatch) -> dict[str, Tensor]:
        """One optimiser step of the detail network."""
        set_rate(self._optimizer, self.rate(step))
        self._optimizer.zero_grad(set_to_none=True)
        terms = self.terms(batch)
        terms["total"].backward()
        metrics = {name: value.detach() for name, value in terms.items()}
        metrics["gradient_norm"] = clip_gradients(self.model.detail.parameters(), self.config.clip_gradient)
        require_finite(metrics, step)
        self._optimizer.step()
        if self.weight_mean is not None:
            self.weight_mean.update(self.model.detail, step)
        return metrics

    def terms(self, batch: DetailBatch) -> dict[str, Tensor]:
        """The terms at the output size that have a weight (`LossWeights`), and `total`."""
        weights, pairs, size, window = self.config.weights, batch.pairs, batch.size, batch.window
        rays = self.model.config.renderer.raw_size
        scale = size // rays
        shown = [
            self._window(
                item,
                pairs[place : place + 1],
                (window[0][place : place + 1], window[1][place : place + 1], window[2]),
                size,
            )
            for place, item in enumerate(batch.items)
        ]
        image, opacity = (torch.cat(x) for x in zip(*shown, strict=True))
        device = image.device
        wanted = cut(resize(to_tensor_of(pairs.driving.to(device)), size), window, scale)
        assert pairs.mask is not None
        mask = cut(shrink_mask(pairs.mask.to(device), size), window, scale)
        weight = None
        if self.config.focus > 0:
            weight = cut(focus_weight(pairs.landmarks.to(device), size, self.config.focus), window, scale)

        # Next to a window's edge enlarging misses what lies beside it: two rays.
        def inner(x: Tensor) -> Tensor:
            return trim(x, window, rays, 2 * scale)

        image, opacity, wanted, mask = inner(image), inner(opacity), inner(wanted), inner(mask)
        weight = None if weight is None else inner(weight)
        terms = {
            "mse": weighted_mean((image - wanted).square(), weight),
            "l1": weighted_mean((image - wanted).abs(), weight),
            "gradient": multi_scale_gradient_l1(image, wanted),
            "texture": texture_difference(image, wanted, cell=size // 32),
            "opacity": (opacity - mask).square().mean(),
        }
        terms = {name: value for name, value in terms.items() if getattr(weights, name) > 0}
        return {**terms, "total": weighted_sum(terms, weights)}

    def _window(self, item: int, pair: PairBatch, window: Window, size: int) -> tuple[Tensor, Tensor]:
        """A window of one pair of the pool, composed at `size`."""
        kept = self._kept.get(item)
        if kept is None:
            kept = self._kept[item] = self._pass(pair)
        top, left, side = window
        with torch.no_grad():
            if size not in kept.photos:
                photo = resize(to_tensor_of(pair.source.to(self._world.device)), size)
                kept.photos[size] = photo_maps(photo, kept.foreground, self.model.lookup).half()
            maps = kept.photos[size].float()
            part = kept.left.part(0, (int(top), int(left), side, side)).float()
        read = partial(self.model.head_at, photo=maps, camera=kept.camera, turn=kept.turn)
        return compose_photo(part, maps, read, rays=self.model.config.renderer.raw_size, window=window)

    @torch.no_grad()
    def _pass(self, pair: PairBatch) -> Kept:
        """What the frozen model makes of a pair, as in a film."""
        pair = pair.to(self._world.device)
        source = resize(to_tensor_of(pair.source), self.model.config.image_size)
        code = self.model.encode(source, Camera.from_vector(pair.source_camera), pair.source_state)
        fast = FastConfig() if self._world.device.type == "cpu" else None
        left = self.model.trace(self.model.drive(code, pair.state), Camera.from_vector(pair.camera), fast)
        return Kept(left.half(), code.camera, code.state.turn, torch.sigmoid(code.maps.matte_logits))

    def state(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "config": json.dumps(config_to_dict(self.config)),
        }
        return content if self.weight_mean is None else {**content, "weight_mean": self.weight_mean.values}

    def load_state(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self._optimizer.load_state_dict(content["optimizer"])
        if self.weight_mean is not None:
            self.weight_mean.load(content["weight_mean"])

    def report(self, step: int, run: RunFolder) -> dict[str, float]:
        """Nothing is measured beside the terms; `export3d quality --size` does that."""
        return {}

    def model_files(self, step: int | None) -> tuple[str, ...]:
        return (MODEL_FILE if step is None else f"model-{step:08d}.safetensors",)

    def export(self, run: RunFolder, step: int, numbered: bool) -> None:
        (name,) = self.model_files(step if numbered else None)
        model = copy.deepcopy(self.model)
        if self.weight_mean is not None:
            model.detail.load_state_dict(self.weight_mean.averaged_state(model.detail))
        save_model(run.path / name, model, extra={**self._notes, "step": step, "samples": step * self.config.batch})
