"""Adam as the paper uses it, gradient clipping, and the running mean of weights (an option)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def make_adam(
    groups: list[dict[str, Any]], rate: float, betas: tuple[float, float], device: torch.device
) -> torch.optim.Adam:
    """Fused Adam on the device; each group may hold `scale`, a factor of the learning rate."""
    for group in groups:
        group.setdefault("scale", 1.0)
    _import_compiler()
    return torch.optim.Adam(groups, lr=rate, betas=betas, fused=device.type in ("cpu", "cuda"))


def scaled_rate(rate: float, batch: int, rate_batch: int) -> float:
    """The learning rate of a batch, given that of `rate_batch` samples: times the root of their ratio.

    For Adam the noise of a step stays alike under this rule (Malladi et al. 2022). `rate_batch` 0 leaves the rate as it is.
    """
    return rate * (batch / rate_batch) ** 0.5 if rate_batch else rate


def _import_compiler() -> None:
    """What every optimiser imports: by itself it makes an empty folder of its caches and leaves it."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    given = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = given or folder
        import torch._dynamo  # noqa: F401

        if given is None:
            del os.environ[name]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times the group's `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their common norm is at most `limit` (0: no limit); returns the norm before."""
    found = [p for p in parameters if p.grad is not None]
    return nn.utils.clip_grad_norm_(found, limit if limit > 0 else float("inf"), foreach=True)


class WeightMean:
    """Exponential running mean of a model's floating-point state, updated after each step.

    The decay grows from 0 to its value over the first steps, so that the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in _floating(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step number `step` (from 0)."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        current = dict(_floating(model))
        names = list(self.values)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [self.values[n] for n in names], [current[n] for n in names], 1.0 - decay
        )

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Take the mean from a training state."""
        for name, value in self.values.items():
            value.copy_(values[name])

    def averaged_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state with the means in place of its floating-point weights."""
        return {**model.state_dict(), **self.values}


def _floating(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in model.state_dict().items() if value.is_floating_point()]
