"""Phases 1 and 2 (Secs. 3.4, 6.3, 6.4): the generator against the driving frame, later also against a discriminator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from export3d.configs import config_to_dict
from export3d.data.source import ClipSource
from export3d.errors import UsageError
from export3d.expression.lebs import LeBS
from export3d.fitting.face_shapes import fit_face_shapes
from export3d.portrait.drivable import Model
from export3d.portrait.loading import build_model, save_model
from export3d.portrait.model import PortraitModel
from export3d.precision import uses_bf16
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batch import PairBatch
from export3d.training.batches.pair_batches import pair_batch
from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import WeightMean, clip_gradients, make_adam, scaled_rate, set_rate
from export3d.training.loop.run import cosine_rate, require_finite
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.adversary import Adversary, gradient_sync
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain_files import check_space
from export3d.training.phases.steps import GeneratorStep, View
from export3d.training.phases.train_inputs import install_expression

MODEL_FILE = "model.safetensors"
_JITTER_STREAM = 21


class TrainTask:
    """Training as the loop needs it (`loop.Task`): all state is listed in `state`.

    Args:
        config: decides the result.
        dataset: training clips.
        world: this process.
        expression: the frozen encoder of a pre-training run; needed if the model's is `pretrained`.
        perceptual: needed if a perceptual weight is above 0.
        start: weights to begin with instead of random ones (a model of the same configuration).
        notes: JSON-ready facts that go into every model file.
        sheet_clips: held-out clips for sample sheets; the training clips if None.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: ClipSource,
        world: World,
        *,
        expression: LeBS | None = None,
        perceptual: nn.Module | None = None,
        start: dict[str, Tensor] | None = None,
        notes: dict[str, Any] | None = None,
        sheet_clips: ClipSource | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        self.config, self._world = config, world
        self._places = world.places(config.batch)
        if len(self._places) % config.accumulate:
            raise UsageError(
                f"--accumulate {config.accumulate} does not divide the {len(self._places)} samples of one process."
            )
        check_space(dataset.extractor, config.model.expression.space, dataset.name, "--model.expression.space")
        self._notes = {"extractor": dataset.extractor, "train": config_to_dict(config), **(notes or {})}
        self._store = FrameStore(dataset, int(cache_gb * 2**30))
        self.sheet_clips = sheet_clips or dataset
        self.model = first_model(config, dataset, expression, start).to(world.device)
        self._autocast = uses_bf16(config.precision, world.device)
        if config.compile:
            self.model.generator.compile()
        step = GeneratorStep(
            self.model,
            config.weights,
            perceptual if perceptual is None else perceptual.to(world.device),
            focus=config.focus,
            edge_px=config.edge_px,
            weight_rec=config.adversarial.weight_rec,
            weight_adv=config.adversarial.weight,
            autocast=self._autocast,
        )
        self._optimizer = make_adam(self._groups(), config.learning_rate, config.betas, world.device)
        self.weight_mean = WeightMean(self.model, config.weight_mean) if config.weight_mean > 0 else None
        self.adversary = Adversary(config, world) if config.phase2_steps > 0 else None
        self._generator_step: nn.Module = step
        if world.size > 1:
            # The first stages leave parts without gradient.
            partial = config.portrait_until > 0 or config.coarse_until > 0
            self._generator_step = DistributedDataParallel(
                step, broadcast_buffers=False, find_unused_parameters=partial
            )
        self.make_sheet: Callable[[TrainTask, Model, RunFolder, int], dict[str, float]] | None = None
        """Called by `report` in the main process: sample sheets and held-out measurements (`sheets.py`)."""

    @property
    def total_steps(self) -> int:
        return self.config.phase1_steps + self.config.phase2_steps

    @property
    def _portrait_steps(self) -> int:
        return round(self.config.portrait_until * self.config.phase1_steps)

    @property
    def samples_per_step(self) -> int:
        return self.config.batch

    def load_batch(self, step: int) -> PairBatch:
        config = self.config
        weights = config.weights
        truth = weights.depth > 0 or weights.opacity > 0 or weights.matte > 0 or isinstance(self.model, PortraitModel)
        sampling = config.sampling
        if step < self._portrait_steps:
            sampling = replace(sampling, space_points=0)
        return pair_batch(
            self._store, config.seed, step, self._places, sampling=sampling, augment=config.augment, with_truth=truth
        )

    def view(self, step: int) -> View:
        """What part of the frame step `step` renders."""
        config = self.config
        through = step / config.phase1_steps
        if step < self._portrait_steps:
            return View(portrait_only=True)
        coarse = config.coarse_size if through < config.coarse_until else None
        return View(window=config.sampling.window, coarse_size=coarse)

    def rate(self, step: int) -> float:
        """The generator's learning rate at a step."""
        config = self.config
        # What the portrait's stage left alone starts afterwards, and gently too.
        since = step if step < self._portrait_steps else step - self._portrait_steps
        warm = min(1.0, (since + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        through = min(step / config.phase1_steps, 1.0)
        return (
            scaled_rate(config.learning_rate, config.batch, config.rate_batch)
            * warm
            * cosine_rate(through, config.decay_from, config.decay_floor)
        )

    def step(self, step: int, batch: PairBatch) -> dict[str, Tensor]:
        """One optimiser step of G, the mean planes and, in phase 2, of D."""
        config = self.config
        adversary = self.adversary if step >= config.phase1_steps else None
        discriminator = None if adversary is None else adversary.discriminator.requires_grad_(False)
        jitter = self._jitter(step) if config.jitter else None
        set_rate(self._optimizer, self.rate(step))
        self._optimizer.zero_grad(set_to_none=True)
        parts = _parts(batch.to(self._world.device), config.accumulate)
        metrics: dict[str, Tensor] = {}
        planes, fakes, reals = [], [], []
        for number, part in enumerate(parts):
            with gradient_sync(self._generator_step, number == len(parts) - 1):
                output = self._generator_step(part, self.view(step), jitter, discriminator)
                (output.terms["total"] / len(parts)).backward()
            for name, value in output.terms.items():
                metrics[name] = metrics.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
            if output.planes is not None:
                planes.append(output.planes)
            fakes.append(output.fake)
            reals.append(output.real)
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        metrics["gradient_norm"] = clip_gradients(parameters, config.clip_gradient)
        require_finite(metrics, step)
        if adversary is not None:
            metrics |= adversary.step(step, [part.camera for part in parts], reals, fakes)
        self._optimizer.step()
        if planes:
            self.model.mean_planes.update(torch.cat(planes))  # Eq. 12
        if self.weight_mean is not None:
            self.weight_mean.update(self.model, step)
        return metrics

    def state(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "config": json.dumps(config_to_dict(self.config)),
        }
        if self.weight_mean is not None:
            content["weight_mean"] = self.weight_mean.values
        return content if self.adversary is None else content | self.adversary.state()

    def load_state(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self._optimizer.load_state_dict(content["optimizer"])
        if self.weight_mean is not None:
            self.weight_mean.load(content["weight_mean"])
        if self.adversary is not None:
            self.adversary.load_state(content)

    def report(self, step: int, run: RunFolder) -> dict[str, float]:
        return self.make_sheet(self, self.model_for_use(), run, step) if self.make_sheet is not None else {}

    def model_files(self, step: int | None) -> tuple[str, ...]:
        return (MODEL_FILE if step is None else f"model-{step:08d}.safetensors",)

    def export(self, run: RunFolder, step: int, numbered: bool) -> None:
        (name,) = self.model_files(step if numbered else None)
        extra = {**self._notes, "step": step, "samples": step * self.config.batch}
        save_model(run.path / name, self.model_for_use(), extra=extra)

    @torch.no_grad()
    def model_for_use(self) -> Model:
        """A copy for inference, with the running mean of the weights if there is one."""
        model = build_model(self.config.model)
        state = self.model.state_dict()
        if self.weight_mean is not None:
            state = self.weight_mean.averaged_state(self.model)
        model.load_state_dict(state)
        return model.to(self._world.device).eval().requires_grad_(False)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate: the rest, an encoder trained end to end, the ways of single weights and turn."""
        expression = [p for p in self.model.expression.parameters() if p.requires_grad]
        cues: list[nn.Parameter] = []
        if isinstance(self.model, PortraitModel):
            parts = (*self.model.cues.shapes, self.model.cues.turn)
            cues = [p for part in parts for p in part.parameters()]
        known = {id(p) for p in (*self.model.expression.parameters(), *cues)}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": others}]
        for params, scale in ((expression, self.config.expression_rate), (cues, self.config.face_shapes_rate)):
            if params:
                groups.append({"params": params, "scale": scale})
        return groups

    def _jitter(self, step: int) -> torch.Generator:
        """Random numbers of a step in this process; derived, so a resumed run draws the same."""
        generator = torch.Generator(device=self._world.device)
        words = (self.config.seed, _JITTER_STREAM, step, self._world.rank)
        mixed = 0
        for word in words:
            mixed = (mixed * 0x9E3779B97F4A7C15 + word + 0x632BE59BD9B4E019) % 2**63
        return generator.manual_seed(mixed)


def without_phase2(config: TrainConfig) -> TrainConfig:
    """The same configuration with phase 1 only."""
    return replace(config, adversarial=replace(config.adversarial, samples=0))


def _parts(batch: PairBatch, count: int) -> list[PairBatch]:
    if count == 1:
        return [batch]
    size = len(batch) // count
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def first_model(
    config: TrainConfig, dataset: ClipSource, expression: LeBS | None, start: dict[str, Tensor] | None
) -> Model:
    """The model before its first step: seeded, with the expression encoder, the starting weights and fitted maps."""
    torch.manual_seed(config.seed)
    model = build_model(config.model)
    install_expression(model, expression)
    if start is not None:
        model.load_state_dict(start)
    for part in model.cues.shapes if isinstance(model, PortraitModel) else ():
        if not part.is_fitted:
            part.set_map(*fit_face_shapes(dataset, part.names))
    return model
