"""One of two processes of test_distributed.py: gradients of a phase-1 and a phase-2 step, then 2 + resume + 2 steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from export3d.data import ClipDataset
from export3d.expression.lebs import LeBS
from export3d.training.loop.distributed import World, joined_world
from export3d.training.loop.state import list_states, load_state, save_state
from export3d.training.phases.config import TINY_TRAIN, TrainConfig
from export3d.training.phases.train import TrainTask


def test_config() -> TrainConfig:
    """Phase 1 has 2 steps, phase 2 has 2. No jitter and no mini-batch statistics, which depend on the split."""
    small = replace(TINY_TRAIN.adversarial.discriminator, group_size=1)
    adversarial = replace(TINY_TRAIN.adversarial, samples=8, r1_every=1, discriminator=small)
    weights = replace(TINY_TRAIN.weights, depth=0.5, opacity=0.5, l1=1.0)
    return replace(TINY_TRAIN, samples=8, batch=4, jitter=False, adversarial=adversarial, weights=weights)


def coarse_config() -> TrainConfig:
    """The first stage of `small`: no super-resolution, so part of the model gets no gradient."""
    return replace(test_config(), coarse_until=0.5, coarse_size=4)


def make_task(folder: Path, world: World, config: TrainConfig) -> TrainTask:
    torch.manual_seed(5)
    expression = LeBS(config.model.expression)
    return TrainTask(config, ClipDataset(folder, split="train"), world, expression=expression)


def gradients_of(folder: Path, world: World, config: TrainConfig, step: int) -> dict[str, torch.Tensor]:
    """Gradients that step `step` leaves behind in a fresh task, and the mean planes after it."""
    task = make_task(folder, world, config)
    task.step(step, task.load_batch(step))
    found = {f"model.{n}": p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}
    assert task.adversary is not None
    for name, parameter in task.adversary.discriminator.named_parameters():
        if parameter.grad is not None:
            found[f"discriminator.{name}"] = parameter.grad.clone()
    found["mean_planes"] = task.model.mean_planes.mean.clone()
    return found


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def resume_is_exact(folder: Path, out: Path, world: World) -> bool:
    """4 steps (two of each phase) against 2 steps, a state file, and 2 steps; jitter on."""
    config = replace(test_config(), jitter=True)
    whole = make_task(folder, world, config)
    for step in range(4):
        whole.step(step, whole.load_batch(step))
    first = make_task(folder, world, config)
    for step in range(2):
        first.step(step, first.load_batch(step))
    if world.is_main:
        save_state(out, 2, first.state())
    world.barrier()
    second = make_task(folder, world, config)
    second.load_state(load_state(list_states(out)[0]))
    for step in range(2, 4):
        second.step(step, second.load_batch(step))
    return same(second.state(), whole.state())


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with joined_world("cpu") as world:
        config = test_config()
        found = {str(step): gradients_of(folder, world, config, step) for step in (0, 2)}
        found["coarse"] = gradients_of(folder, world, coarse_config(), 0)
        exact = resume_is_exact(folder, out, world)
        torch.save(found, out / f"gradients-{world.rank}.pt")
        (out / f"result-{world.rank}.json").write_text(json.dumps({"exact": exact, "size": world.size}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
