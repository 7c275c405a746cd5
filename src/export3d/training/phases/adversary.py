"""Phase 2's other side (Sec. 6.4): the discriminator, its optimiser and one step of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import clip_gradients, make_adam, scaled_rate
from export3d.training.loop.run import require_finite
from export3d.training.losses.discriminator import DualDiscriminator
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.steps import DiscriminatorStep

Pictures = tuple[Tensor, Tensor] | None
"""A final and a raw image."""


class Adversary:
    """The discriminator of one training run; all its state is listed in `state`."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config, self._first = config.adversarial, config.phase1_steps
        side = config.model.image_size
        if config.sampling.window is not None:
            side = side // config.model.renderer.raw_size * config.sampling.window
        self.discriminator = DualDiscriminator(self.config.discriminator, side).to(world.device)
        self._step: nn.Module = DiscriminatorStep(self.discriminator)
        groups: list[dict[str, Any]] = [{"params": list(self.discriminator.parameters())}]
        rate = scaled_rate(self.config.learning_rate, config.batch, config.rate_batch)
        self._optimizer = make_adam(groups, rate, self.config.betas, world.device)
        if world.size > 1:
            self._step = DistributedDataParallel(self._step, broadcast_buffers=False)

    def step(self, step: int, cameras: list[Tensor], reals: list[Pictures], fakes: list[Pictures]) -> dict[str, Tensor]:
        """One optimiser step on the parts of a batch: cameras ``(B, 25)``, true and made pictures of each."""
        config = self.config
        self.discriminator.requires_grad_(True)
        self._optimizer.zero_grad(set_to_none=True)
        penalised = config.r1_gamma > 0 and (step - self._first) % config.r1_every == 0
        r1_weight = 0.5 * config.r1_gamma * config.r1_every if penalised else 0.0
        metrics: dict[str, Tensor] = {}
        for number, (camera, real, fake) in enumerate(zip(cameras, reals, fakes, strict=True)):
            with gradient_sync(self._step, number == len(cameras) - 1):
                terms = self._step(real, fake, camera, r1_weight)
                (terms["discriminator_total"] / len(cameras)).backward()
            for name, value in terms.items():
                metrics[name] = metrics.get(name, torch.zeros_like(value)) + value.detach() / len(cameras)
        norm = clip_gradients(self.discriminator.parameters(), 0.0)
        require_finite({**metrics, "discriminator_gradient_norm": norm}, step)
        self._optimizer.step()
        return {**metrics, "discriminator_gradient_norm": norm}

    def state(self) -> dict[str, Any]:
        """What `load_state` needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, content: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.discriminator.load_state_dict(content["discriminator"])
        self._optimizer.load_state_dict(content["discriminator_optimizer"])


def gradient_sync(module: nn.Module, wanted: bool) -> Any:
    """DistributedDataParallel averages gradients only in the last part of an accumulated batch."""
    if isinstance(module, DistributedDataParallel) and not wanted:
        return module.no_sync()
    return torch.enable_grad()
