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
from export3d.errors import TrainingError, UsageError
from export3d.expression.lebs import LeBS
from export3d.fitting.face_shapes import fit_face_shapes
from export3d.model.export3d import Export3D
from export3d.model.loading import save_model
from export3d.precision import uses_bf16
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batches import PairBatch, pair_batch
from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import WeightMean, clip_gradients, make_adam, set_rate
from export3d.training.loop.run import cosine_rate, require_finite
from export3d.training.loop.run_folder import RunFolder
from export3d.training.losses.discriminator import DualDiscriminator
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain import check_space
from export3d.training.phases.steps import DiscriminatorStep, GeneratorStep, View

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
        self.config = config
        self._world = world
        self._places = world.places(config.batch)
        if len(self._places) % config.accumulate:
            raise UsageError(
                f"--accumulate {config.accumulate} does not divide the {len(self._places)} samples of one process."
            )
        check_space(dataset.extractor, config.model.expression.space, dataset.name)
        self._notes = {"extractor": dataset.extractor, "train": config_to_dict(config), **(notes or {})}
        self._store = FrameStore(dataset, int(cache_gb * 2**30))
        self.sheet_clips = sheet_clips or dataset
        torch.manual_seed(config.seed)
        device = world.device
        self.model = Export3D(config.model)
        install_expression(self.model, expression)
        if start is not None:
            self.model.load_state_dict(start)
        for part in self.model.face_shapes:
            if not part.is_fitted:
                part.set_map(*fit_face_shapes(dataset, part.names))
        self.model.to(device)
        if perceptual is not None:
            perceptual.to(device)
        self._autocast = uses_bf16(config.precision, device)
        if config.compile:
            self.model.generator.compile()
        step = GeneratorStep(
            self.model,
            config.weights,
            perceptual,
            focus=config.focus,
            edge_px=config.edge_px,
            weight_rec=config.adversarial.weight_rec,
            weight_adv=config.adversarial.weight,
            autocast=self._autocast,
        )
        self._generator_step: nn.Module = step
        self._optimizer = make_adam(self._groups(), config.learning_rate, config.betas, device)
        self.weight_mean = WeightMean(self.model, config.weight_mean) if config.weight_mean > 0 else None
        self.discriminator: DualDiscriminator | None = None
        self._discriminator_step: nn.Module | None = None
        self._discriminator_optimizer: torch.optim.Adam | None = None
        if config.phase2_steps > 0:
            self._make_discriminator()
        if world.size > 1:
            # The first stages leave parts without gradient, the late branch its own part.
            partial = (
                config.portrait_until > 0
                or config.coarse_until > 0
                or config.pixel_aligned_from > 0
                or config.pixel_aligned_drop > 0
            )
            self._generator_step = DistributedDataParallel(
                step, broadcast_buffers=False, find_unused_parameters=partial
            )
            if self._discriminator_step is not None:
                self._discriminator_step = DistributedDataParallel(self._discriminator_step, broadcast_buffers=False)
        self.make_sheet: Callable[[TrainTask, Export3D, RunFolder, int], dict[str, float]] | None = None
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
        truth = weights.depth > 0 or weights.opacity > 0 or weights.matte > 0 or self.model.matte is not None
        sampling = config.sampling
        if step < self._portrait_steps:
            sampling = replace(sampling, space_points=0)
        return pair_batch(
            self._store,
            config.seed,
            step,
            self._places,
            sampling=sampling,
            augment=config.augment,
            with_truth=truth,
        )

    def view(self, step: int) -> View:
        """What part of the frame step `step` renders."""
        config = self.config
        through = step / config.phase1_steps
        if step < self._portrait_steps:
            return View(portrait_only=True)
        if through < config.coarse_until:
            coarse: int | None = config.coarse_size
        else:
            coarse = None
        sees = 1.0 - config.pixel_aligned_drop if through >= config.pixel_aligned_from else 0.0
        return View(window=config.sampling.window, coarse_size=coarse, pixel_share=sees)

    def rate(self, step: int) -> float:
        """The generator's learning rate at a step."""
        config = self.config
        # What the portrait's stage left alone starts afterwards, and gently too.
        since = step if step < self._portrait_steps else step - self._portrait_steps
        warm = min(1.0, (since + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        through = min(step / config.phase1_steps, 1.0)
        return config.learning_rate * warm * cosine_rate(through, config.decay_from, config.decay_floor)

    def step(self, step: int, batch: PairBatch) -> dict[str, Tensor]:
        """One optimiser step of G, the mean planes and, in phase 2, of D."""
        config = self.config
        in_phase2 = step >= config.phase1_steps
        discriminator = self.discriminator if in_phase2 else None
        jitter = self._jitter(step) if config.jitter else None
        set_rate(self._optimizer, self.rate(step))
        self._optimizer.zero_grad(set_to_none=True)
        if discriminator is not None:
            discriminator.requires_grad_(False)
        parts = _parts(batch.to(self._world.device), config.accumulate)
        metrics: dict[str, Tensor] = {}
        planes, fakes, reals = [], [], []
        for number, part in enumerate(parts):
            with _gradient_sync(self._generator_step, number == len(parts) - 1):
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
        if in_phase2:
            metrics |= self._step_discriminator(step, parts, reals, fakes)
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
        if self.discriminator is not None and self._discriminator_optimizer is not None:
            content["discriminator"] = self.discriminator.state_dict()
            content["discriminator_optimizer"] = self._discriminator_optimizer.state_dict()
        return content

    def load_state(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self._optimizer.load_state_dict(content["optimizer"])
        if self.weight_mean is not None:
            self.weight_mean.load(content["weight_mean"])
        if self.discriminator is not None and self._discriminator_optimizer is not None:
            self.discriminator.load_state_dict(content["discriminator"])
            self._discriminator_optimizer.load_state_dict(content["discriminator_optimizer"])

    def report(self, step: int, run: RunFolder) -> dict[str, float]:
        return self.make_sheet(self, self.model_for_use(), run, step) if self.make_sheet is not None else {}

    def export(self, run: RunFolder, step: int, numbered: bool) -> None:
        name = MODEL_FILE if not numbered else f"model-{step:08d}.safetensors"
        extra = {**self._notes, "step": step, "samples": step * self.config.batch}
        save_model(run.path / name, self.model_for_use(), extra=extra)

    @torch.no_grad()
    def model_for_use(self) -> Export3D:
        """A copy for inference, with the running mean of the weights if there is one."""
        model = Export3D(self.config.model)
        state = self.model.state_dict()
        if self.weight_mean is not None:
            state = self.weight_mean.averaged_state(self.model)
        model.load_state_dict(state)
        return model.to(self._world.device).eval().requires_grad_(False)

    def _groups(self) -> list[dict[str, Any]]:
        expression = [p for p in self.model.expression.parameters() if p.requires_grad]
        shapes = [p for part in self.model.face_shapes for p in part.parameters()]
        if self.model.neck is not None:  # another small layer that joins the condition of G
            shapes += self.model.neck.parameters()
        known = {id(p) for p in (*self.model.expression.parameters(), *shapes)}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": others}]
        for params, scale in ((expression, self.config.expression_rate), (shapes, self.config.face_shapes_rate)):
            if params:
                groups.append({"params": params, "scale": scale})
        return groups

    def _make_discriminator(self) -> None:
        config, device = self.config.adversarial, self._world.device
        side = self.config.model.image_size
        if self.config.sampling.window is not None:
            side = side // self.config.model.renderer.raw_size * self.config.sampling.window
        self.discriminator = DualDiscriminator(config.discriminator, side).to(device)
        self._discriminator_step = DiscriminatorStep(self.discriminator)
        groups: list[dict[str, Any]] = [{"params": list(self.discriminator.parameters())}]
        self._discriminator_optimizer = make_adam(groups, config.learning_rate, config.betas, device)

    def _step_discriminator(
        self, step: int, parts: list[PairBatch], reals: list[Any], fakes: list[Any]
    ) -> dict[str, Tensor]:
        config = self.config.adversarial
        assert self.discriminator is not None
        assert self._discriminator_step is not None and self._discriminator_optimizer is not None
        self.discriminator.requires_grad_(True)
        self._discriminator_optimizer.zero_grad(set_to_none=True)
        penalised = config.r1_gamma > 0 and (step - self.config.phase1_steps) % config.r1_every == 0
        r1_weight = 0.5 * config.r1_gamma * config.r1_every if penalised else 0.0
        metrics: dict[str, Tensor] = {}
        for number, (part, real, fake) in enumerate(zip(parts, reals, fakes, strict=True)):
            with _gradient_sync(self._discriminator_step, number == len(parts) - 1):
                terms = self._discriminator_step(real, fake, part.camera, r1_weight)
                (terms["discriminator_total"] / len(parts)).backward()
            for name, value in terms.items():
                metrics[name] = metrics.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
        norm = clip_gradients(self.discriminator.parameters(), 0.0)
        require_finite({**metrics, "discriminator_gradient_norm": norm}, step)
        self._discriminator_optimizer.step()
        return {**metrics, "discriminator_gradient_norm": norm}

    def _jitter(self, step: int) -> torch.Generator:
        """Random numbers of a step in this process; derived, so a resumed run draws the same."""
        generator = torch.Generator(device=self._world.device)
        words = (self.config.seed, _JITTER_STREAM, step, self._world.rank)
        mixed = 0
        for word in words:
            mixed = (mixed * 0x9E3779B97F4A7C15 + word + 0x632BE59BD9B4E019) % 2**63
        return generator.manual_seed(mixed)


def install_expression(model: Export3D, expression: LeBS | None) -> None:
    """Put the pre-trained expression encoder into the model.

    A model with `expression.pretrained` keeps it frozen (the paper). Without, it starts there and is trained on, at
    `expression_rate` times the learning rate (not the paper); without an encoder it starts at random (Table 3, E2E LeBS).

    Raises:
        UsageError: The model wants one and none is given, or it has no place for one (Table 3, Direct 3DMM).
        TrainingError: Its configuration differs from the model's; the differences are shown.
    """
    wanted = model.config.expression
    if expression is None:
        if wanted.pretrained:
            raise UsageError(
                "this model needs a pre-trained expression encoder: run 'export3d pretrain' and give --expression RUN."
            )
        return
    if not isinstance(model.expression, LeBS):
        raise UsageError("--expression: this model has no basis to fill (kind 'direct'); leave the option out.")
    if replace(expression.config, pretrained=wanted.pretrained) != wanted:
        given, asked = config_to_dict(expression.config), config_to_dict(wanted)
        lines = [f"{name}: {given[name]} -> {asked[name]}" for name in asked if given[name] != asked[name]]
        raise TrainingError(
            "the pre-trained expression encoder does not fit the model (it has -> model wants): " + "; ".join(lines)
        )
    if wanted.pretrained:
        model.expression.load_state_dict(expression.state_dict())
        model.expression.requires_grad_(False)
        return
    with torch.no_grad():
        model.expression.layers.load_state_dict(expression.layers.state_dict())
        model.expression.coeff_scale.copy_(expression.coeff_scale)
        model.expression.free_basis.copy_(expression.basis)  # orthonormal: its own QR gives it back


def check_same_extractor(expression_notes: dict[str, Any], data_extractor: dict[str, str]) -> None:
    """Raise `TrainingError` if the expression encoder was trained on another extractor's beta than the data holds."""
    given = expression_notes["extractor"]
    if given == data_extractor:
        return
    lines = [
        f"{name}: {given.get(name)} -> {data_extractor.get(name)}"
        for name in sorted({*given, *data_extractor})
        if given.get(name) != data_extractor.get(name)
    ]
    raise TrainingError(
        "the expression encoder was pre-trained on another extractor than the data has (pre-training -> data): "
        + "; ".join(lines)
        + ". Pre-train on this data, or prepare it with the same extractor."
    )


def without_phase2(config: TrainConfig) -> TrainConfig:
    """The same configuration with phase 1 only."""
    return replace(config, adversarial=replace(config.adversarial, samples=0))


def _parts(batch: PairBatch, count: int) -> list[PairBatch]:
    if count == 1:
        return [batch]
    size = len(batch) // count
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def _gradient_sync(module: nn.Module, wanted: bool) -> Any:
    """DistributedDataParallel averages gradients only in the last part of an accumulated batch."""
    if isinstance(module, DistributedDataParallel) and not wanted:
        return module.no_sync()
    return torch.enable_grad()
