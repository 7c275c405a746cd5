"""Processes of one training run under `torchrun`: who am I, sums over processes, parts of the batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others; one process alone is a world of size 1."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def places(self, batch: int) -> range:
        """The places of a batch of `batch` samples that this process computes.

        Raises:
            UsageError: The batch cannot be divided among the processes.
        """
        if batch % self.size:
            raise UsageError(f"--batch {batch} cannot be divided among {self.size} processes; choose a multiple.")
        share = batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the processes; the same on each of them."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor([1.0 if flag else 0.0], device=self.device)
        dist.all_reduce(total, op=dist.ReduceOp.MAX)
        return bool(total.item() > 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that `torchrun` started (environment RANK, WORLD_SIZE, LOCAL_RANK), or be alone.

    Args:
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device '{device}': choose auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this PyTorch sees no CUDA device; use --device cpu.")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if size == 1:
        yield World(device=place)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield World(rank=rank, size=size, device=place)
    finally:
        dist.destroy_process_group()
