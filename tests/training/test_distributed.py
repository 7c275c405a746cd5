"""Two processes (gloo) with half the batch each do what one process does with all of it; and they resume exactly."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.errors import UsageError
from export3d.training.loop.distributed import World, joined_world

WORKER = Path(__file__).with_name("ddp_worker.py")
_spec = importlib.util.spec_from_file_location("ddp_worker", WORKER)
assert _spec is not None and _spec.loader is not None
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def two_processes(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ddp")
    port = str(free_port())
    running = []
    for rank in ("0", "1"):
        environment = {
            **os.environ,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(WORKER), str(clip_folder), str(out)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for process in running:
        _, text = process.communicate(timeout=240)
        assert process.returncode == 0, text.decode()[-3000:]
    return out


@pytest.mark.parametrize("stage", ["0", "2", "coarse"], ids=["phase 1", "phase 2", "coarse stage"])
def test_two_processes_give_the_gradients_of_one_to_a_millionth(
    clip_folder: Path, two_processes: Path, stage: str
) -> None:
    config = worker.coarse_config() if stage == "coarse" else worker.test_config()
    alone = worker.gradients_of(clip_folder, World(), config, 2 if stage == "2" else 0)
    for rank in (0, 1):
        found = torch.load(two_processes / f"gradients-{rank}.pt", weights_only=True)[stage]
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            assert torch.allclose(found[name], gradient, atol=1e-6, rtol=1e-5), name
    has_discriminator = any(name.startswith("discriminator.") for name in alone)
    assert has_discriminator == (stage == "2")
    assert any("superres" in name for name in alone) == (stage != "coarse")
    assert alone["mean_planes"].abs().max() > 0


def test_two_processes_resume_bit_for_bit_in_both_phases(two_processes: Path) -> None:
    for rank in (0, 1):
        result = json.loads((two_processes / f"result-{rank}.json").read_text())
        assert result == {"exact": True, "size": 2}


def test_accumulating_two_parts_gives_the_gradients_of_the_whole_batch(clip_folder: Path) -> None:
    config = worker.test_config()
    for step in (0, 2):
        whole = worker.gradients_of(clip_folder, World(), config, step)
        parts = worker.gradients_of(clip_folder, World(), replace(config, accumulate=2), step)
        for name, gradient in whole.items():
            assert torch.allclose(parts[name], gradient, atol=1e-6, rtol=1e-5), name


def test_a_dry_run_ends_in_every_process_and_one_of_them_tells_what_it_found(clip_folder: Path, tmp_path: Path) -> None:
    words = (
        f"train --data {clip_folder} --preset tiny --ablation direct-3dmm --device cpu --dry-run -o {tmp_path / 'run'}"
    )
    port, running = str(free_port()), []
    for rank in ("0", "1"):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "export3d", *words.split()]
        environment = {**os.environ, **world, "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert b"s per step of 2 samples" in said[0][0] and said[1][0] == b""


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch 5 cannot be divided among 2 processes"):
        World(size=2).places(5)


def test_the_parts_of_a_batch_cover_it_once() -> None:
    parts = [list(World(rank=rank, size=4).places(8)) for rank in range(4)]
    assert [place for part in parts for place in part] == list(range(8))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="--device 'tpu'"), joined_world("tpu"):
        pass
