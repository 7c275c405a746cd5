"""CLeBS pre-training (Sec. 3.1, Eq. 1): the expression encoder f_e and its basis learn from in-clip negatives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from export3d.camera import Camera
from export3d.checkpoint import write_checkpoint
from export3d.configs import config_to_dict
from export3d.data.source import ClipSource
from export3d.expression.contrastive import contrastive_loss, retrieval_accuracy
from export3d.expression.image_encoder import ImageEncoder
from export3d.expression.lebs import LeBS
from export3d.images import to_tensor_of
from export3d.model.superres import resize
from export3d.precision import uses_bf16
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.clip_batches import ClipBatch, clip_batch
from export3d.training.batches.frame_store import FrameStore
from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import clip_gradients, make_adam, scaled_rate, set_rate
from export3d.training.loop.run import cosine_rate, require_finite
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.expression_report import expression_report, expression_table
from export3d.training.phases.pretrain_config import PretrainConfig, kept_size
from export3d.training.phases.pretrain_files import (
    EXPRESSION_FILE,
    EXPRESSION_KIND,
    FACE_NETWORK_FILE,
    FACE_NETWORK_KIND,
    check_space,
)

_REPORT_CLIPS = 200


class ContrastiveStep(nn.Module):
    """f_e, f_I and their loss as one module, so that gradients are averaged over processes in one place."""

    def __init__(self, config: PretrainConfig, autocast: bool = False) -> None:
        super().__init__()
        self.config, self._autocast = config, autocast
        self.expression = LeBS(config.expression)
        self.image_encoder = ImageEncoder(config.image_encoder)

    def forward(self, images: Tensor, beta: Tensor, shape: Tensor) -> dict[str, Tensor]:
        """Loss terms of K clips.

        Args:
            images: ``(K, N, 3, H, W)`` in [-1, 1].
            beta: ``(K, N, 64)``.
            shape: ``(K, N, 139)`` landmarks and head angles, for the landmark head.
        """
        clips, frames = beta.shape[:2]
        expression_codes = self.expression(beta.flatten(0, 1)).unflatten(0, (clips, frames))
        pictures = resize(images.flatten(0, 1), self.config.image_encoder.image_size)
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self._autocast):
            codes, predicted = self.image_encoder.codes_and_shape(pictures)
        codes, predicted = codes.float(), predicted if predicted is None else predicted.float()
        image_codes = codes.unflatten(0, (clips, frames))
        terms = {
            "contrastive": contrastive_loss(
                expression_codes,
                image_codes,
                temperature=self.config.temperature,
                include_positive=self.config.include_positive,
                symmetric=self.config.symmetric,
            )
        }
        total = terms["contrastive"]
        if predicted is not None:
            terms["landmarks"] = F.smooth_l1_loss(predicted.float(), shape.flatten(0, 1), beta=0.02)
            total = total + self.config.landmark_weight * 10.0 * terms["landmarks"]
        terms["total"] = total
        with torch.no_grad():
            terms["retrieval"] = retrieval_accuracy(expression_codes, image_codes)
        return terms


class PretrainTask:
    """Pre-training as the loop needs it (`loop.Task`).

    Args:
        held_out: clips of other identities, on which `report` measures; None measures nothing.
        cache_gb: memory for decoded frames.
    """

    def __init__(
        self,
        config: PretrainConfig,
        dataset: ClipSource,
        world: World,
        *,
        held_out: ClipSource | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        self.config = config
        self._world = world
        self._places = world.places(config.clips)
        self._extractor = dataset.extractor
        check_space(dataset.extractor, config.expression.space, dataset.name)
        self._store = FrameStore(dataset, int(cache_gb * 2**30), size=kept_size(config.image_encoder))
        torch.manual_seed(config.seed)
        self.module = ContrastiveStep(config, uses_bf16(config.precision, world.device)).to(world.device)
        self.module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._forward: nn.Module = self.module
        if world.size > 1:
            self._forward = DistributedDataParallel(self.module)
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        self._optimizer = make_adam([{"params": parameters}], config.learning_rate, (0.9, 0.999), world.device)
        self._held_out = held_out

    @property
    def total_steps(self) -> int:
        return self.config.steps

    @property
    def samples_per_step(self) -> int:
        return self.config.clips * self.config.frames_per_clip

    def load_batch(self, step: int) -> ClipBatch:
        config = self.config
        return clip_batch(
            self._store,
            config.seed,
            step,
            self._places,
            num_frames=config.frames_per_clip,
            augment=config.augment,
            face_share=config.image_encoder.face_share,
        )

    def step(self, step: int, batch: ClipBatch) -> dict[str, Tensor]:
        config, device = self.config, self._world.device
        fraction = step / config.steps
        rate = scaled_rate(config.learning_rate, config.clips, config.rate_clips)
        set_rate(self._optimizer, rate * cosine_rate(fraction, config.decay_from, config.decay_floor))
        images = to_tensor_of(batch.images.to(device, non_blocking=True))
        shape = shape_targets(batch).to(device)
        self._optimizer.zero_grad(set_to_none=True)
        terms = self._forward(images, batch.beta.to(device), shape)
        terms["total"].backward()
        norm = clip_gradients(self.module.parameters(), config.clip_gradient)
        require_finite({**terms, "gradient_norm": norm}, step)
        self._optimizer.step()
        return {**{name: value.detach() for name, value in terms.items()}, "gradient_norm": norm}

    def state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "config": json.dumps(config_to_dict(self.config)),
        }

    def load_state(self, content: dict[str, Any]) -> None:
        self.module.load_state_dict(content["module"])
        self._optimizer.load_state_dict(content["optimizer"])

    def report(self, step: int, run: RunFolder) -> dict[str, float]:
        if self._held_out is None:
            return {}
        measured = self._held_out_contrast()
        expression = self.module.expression
        table = expression_table(expression, self._held_out, _REPORT_CLIPS)
        fit = expression_table(expression, self._store.dataset, _REPORT_CLIPS)
        return measured | expression_report(table, fit)

    def model_files(self, step: int | None) -> tuple[str, ...]:
        suffix = "" if step is None else f"-{step:08d}"
        names = (Path(EXPRESSION_FILE), Path(FACE_NETWORK_FILE))
        return tuple(f"{name.stem}{suffix}{name.suffix}" for name in names)

    def export(self, run: RunFolder, step: int, numbered: bool) -> None:
        extra = {"extractor": self._extractor, "step": step, "pretrain": config_to_dict(self.config)}
        expression = self.module.expression.frozen(self.coefficient_scale())
        encoder = self.module.image_encoder
        parts = ((EXPRESSION_KIND, expression), (FACE_NETWORK_KIND, encoder))
        for name, (kind, part) in zip(self.model_files(step if numbered else None), parts, strict=True):
            write_checkpoint(
                run.path / name, part.state_dict(), kind=kind, config=config_to_dict(part.config), extra=extra
            )

    @torch.no_grad()
    def _held_out_contrast(self) -> dict[str, float]:
        """Loss and retrieval accuracy on held-out clips without augmentation, next to their chance values."""
        config, dataset = self.config, self._held_out
        assert dataset is not None
        frames = config.frames_per_clip
        if not any(dataset.num_frames(i) >= frames for i in range(len(dataset))):
            return {}
        encoder = config.image_encoder
        store = FrameStore(dataset, 0, size=kept_size(encoder))
        places = range(min(len(dataset), config.clips))
        batch = clip_batch(
            store, config.seed, 0, places, num_frames=frames, augment=AugmentConfig(), face_share=encoder.face_share
        )
        device = self._world.device
        self.module.eval()
        images = to_tensor_of(batch.images.to(device))
        terms = self.module(images, batch.beta.to(device), shape_targets(batch).to(device))
        self.module.train()
        return {
            "held_out_contrastive": float(terms["contrastive"]),
            "held_out_retrieval": float(terms["retrieval"]),
            "chance_contrastive": math.log(frames if config.include_positive else frames - 1),
            "chance_retrieval": 1.0 / frames,
        }

    @torch.no_grad()
    def coefficient_scale(self, clips: int = 64) -> float:
        """1 / root mean square of the coefficients over the first clips: Eq. 1 does not fix their size."""
        dataset = self._store.dataset
        beta = [torch.from_numpy(self._store.arrays(i)["beta"].copy()) for i in range(min(clips, len(dataset)))]
        coefficients = self.module.expression.coefficients(torch.cat(beta).to(self._world.device))
        return float(1.0 / coefficients.square().mean().sqrt().clamp(min=1e-6))


def shape_targets(batch: ClipBatch) -> Tensor:
    """``(K, N, 139)``: landmarks in [0, 1] and the head's yaw, pitch, roll."""
    clips, frames = batch.beta.shape[:2]
    angles = Camera.from_vector(batch.camera.flatten(0, 1)).head_angles().unflatten(0, (clips, frames))
    return torch.cat([batch.landmarks.flatten(2), angles], dim=-1)
