"""Phase 2 (Sec. 6.4): what is summed, who is stepped and when, and how often R1 is asked with which factor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.data import ClipDataset
from export3d.expression.lebs import LeBS
from export3d.training.loop.distributed import World
from export3d.training.phases.config import TINY_TRAIN, TrainConfig
from export3d.training.phases.train import TrainTask

ADVERSARIAL = replace(TINY_TRAIN.adversarial, samples=16, r1_every=3, r1_gamma=4.0, weight=0.5, weight_rec=2.0)
CONFIG = replace(TINY_TRAIN, samples=4, adversarial=ADVERSARIAL)  # two steps of phase 1, eight of phase 2
FIRST = CONFIG.phase1_steps


def make_task(folder: Path, config: TrainConfig = CONFIG) -> TrainTask:
    torch.manual_seed(5)
    return TrainTask(config, ClipDataset(folder, split="train"), World(), expression=LeBS(config.model.expression))


def discriminator_of(task: TrainTask) -> list[torch.Tensor]:
    assert task.adversary is not None
    return [value.clone() for value in task.adversary.discriminator.parameters()]


def test_the_total_of_phase_2_is_equation_14_and_that_of_phase_1_has_no_adversarial_term(clip_folder: Path) -> None:
    task = make_task(clip_folder)
    batch = task.load_batch(0)
    assert "adversarial" not in task.step(0, batch)
    terms = task.step(FIRST, batch)
    assert terms["adversarial"] > 0.01
    wanted = 2.0 * terms["reconstruction"] + 0.5 * terms["adversarial"]
    assert terms["total"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_discriminator_learns_in_phase_2_and_only_there(clip_folder: Path) -> None:
    task = make_task(clip_folder, replace(CONFIG, adversarial=replace(ADVERSARIAL, learning_rate=1e-2)))
    batch = task.load_batch(0)
    before = discriminator_of(task)
    task.step(0, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator_of(task), strict=True))
    losses = [float(task.step(FIRST + step, batch)["discriminator"]) for step in range(8)]
    assert not any(torch.equal(a, b) for a, b in zip(before, discriminator_of(task), strict=True))
    assert losses[-1] < losses[0], losses


def test_r1_is_added_every_third_step_with_half_gamma_times_three(clip_folder: Path) -> None:
    task = make_task(clip_folder)
    batch = task.load_batch(0)
    for step in range(5):
        terms = task.step(FIRST + step, batch)
        if step % 3:
            assert "r1" not in terms and terms["discriminator_total"] == terms["discriminator"]
            continue
        # gamma 4: 4 / 2 * 3 = 6
        wanted = terms["discriminator"] + 6.0 * terms["r1"]
        assert terms["r1"] > 0
        assert terms["discriminator_total"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_random_depths_differ_between_steps_processes_and_seeds_and_come_again_in_a_resumed_run(
    clip_folder: Path,
) -> None:
    def depths(step: int, rank: int = 0, seed: int = 0) -> torch.Tensor:
        task = make_task(clip_folder, replace(CONFIG, seed=seed))
        task._world = World(rank=rank, size=2)
        return torch.rand(8, generator=task._jitter(step))

    first = depths(0)
    assert torch.equal(first, depths(0))
    assert not any(torch.equal(first, other) for other in (depths(1), depths(0, rank=1), depths(0, seed=1)))
