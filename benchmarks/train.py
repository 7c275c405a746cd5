"""Training speed per part: plain PyTorch settings against our defaults, for `small` and (few samples) `paper`.

    python benchmarks/train.py                          # both presets, on random clips
    python benchmarks/train.py --preset small --save

Each setting runs in a process of its own, the two by turns. `plain` is eager fp32 with NCHW images and weights, the
default Adam, PyTorch's memory allocator as it is, and batches loaded in the step; `ours` is what `export3d train` does.
Times are wall seconds and CPU seconds of the process; on a busy machine only the second can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import Clip, ClipDataset, ShardWriter, make_meta
from export3d.expression.image_encoder import ImageEncoder
from export3d.expression.lebs import LeBS
from export3d.training.batches.prefetch import Prefetcher
from export3d.training.loop.distributed import World
from export3d.training.loop.memory import keep_freed_memory
from export3d.training.losses.perceptual import LPIPS, FaceNetworkDistance
from export3d.training.phases.config import TRAIN_PRESETS, TrainConfig
from export3d.training.phases.pretrain_config import SMALL_PRETRAIN
from export3d.training.phases.train import TrainTask
from material import save

TARGET = 1.6
"""Issue's bar: ours over plain on a CPU."""

PAPER_SCHEDULE_SAMPLES = 310_000 * 8
PARTS = ("data", "encode", "planes", "renderer", "super-resolution", "losses", "backward", "optimiser and rest")


def main() -> int:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("portrait", "paper"), action="append")
    parser.add_argument("--steps", type=int, default=6, help="timed steps per process")
    parser.add_argument("--rounds", type=int, default=2, help="processes per setting")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, help="samples per step (small 16, paper 1 on a CPU)")
    parser.add_argument("--save", action="store_true", help="write results/train_speed.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(json.loads(options.worker))))
        return 0
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for preset in options.preset or ["portrait", "paper"]:
            batch = options.batch or (16 if preset == "portrait" else 1)
            folder = write_random_clips(Path(name) / preset, 128 if preset == "portrait" else 256)
            results[preset] = compare(preset, folder, batch, options.steps, options.rounds, options.threads)
            show(preset, results[preset])
    if options.save:
        print(f"saved {save('train_speed', {'target': TARGET, 'presets': results})}")
    return 0


def compare(preset: str, folder: Path, batch: int, steps: int, rounds: int, threads: int) -> dict[str, Any]:
    """Run both settings by turns; medians over their steps."""
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for setting in found:
            job = {
                "preset": preset,
                "setting": setting,
                "folder": str(folder),
                "batch": batch,
                "steps": steps,
                "threads": threads,
            }
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, __file__, "--worker", json.dumps(job)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[setting].append(json.loads(done.stdout.splitlines()[-1]))
    summary: dict[str, Any] = {"batch": batch, "threads": threads, "parameters": found["ours"][0]["parameters"]}
    summary["bf16"] = [run["bf16"] for run in found["ours"]]  # what the start-up timing chose in each round
    for setting, runs in found.items():
        cpu = [s for run in runs for s in run["cpu_s"]]
        wall = [s for run in runs for s in run["wall_s"]]
        summary[setting] = {
            "samples_per_s": batch / statistics.median(wall),
            "samples_per_cpu_s": batch / statistics.median(cpu),
            "parts_s_per_sample": {part: statistics.median(r["parts"][part] for r in runs) / batch for part in PARTS},
        }
    ours, plain = summary["ours"], summary["plain"]
    summary["ratio_wall"] = ours["samples_per_s"] / plain["samples_per_s"]
    summary["ratio_cpu"] = ours["samples_per_cpu_s"] / plain["samples_per_cpu_s"]
    summary["paper_schedule_days"] = PAPER_SCHEDULE_SAMPLES / ours["samples_per_s"] / 86400
    return summary


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Time the steps of one setting in this process."""
    torch.set_num_threads(job["threads"])
    ours = job["setting"] == "ours"
    if ours:
        keep_freed_memory()
    config = replace(TRAIN_PRESETS[job["preset"]], batch=job["batch"], precision="auto" if ours else "fp32")
    config = replace(config, coarse_until=0.0, pixel_aligned_from=0.0)
    task = make_task(config, Path(job["folder"]))
    if not ours:
        make_plain(task)
    clock = PartClock(task)
    total = job["steps"] + 2  # two to warm up
    batches = Prefetcher(task.load_batch, 0, total, 2 if ours else 0)
    wall, cpu, parts = [], [], []
    for step in range(total):
        start, cpu_start = time.perf_counter(), cpu_seconds()
        clock.start()
        with clock.measure("data"):
            batch = batches.next()
        task.step(step, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        cpu.append(cpu_seconds() - cpu_start)
        parts.append(clock.finish(wall[-1]))
    batches.close()
    return {
        "wall_s": wall[2:],
        "cpu_s": cpu[2:],
        "parts": {part: statistics.median(p[part] for p in parts[2:]) for part in PARTS},
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "bf16": task._autocast,
    }


def make_task(config: TrainConfig, folder: Path, world: World | None = None) -> TrainTask:
    """The preset's task with random perceptual weights, which cost the same as trained ones."""
    perceptual = (
        LPIPS() if config.perceptual == "lpips" else FaceNetworkDistance(ImageEncoder(SMALL_PRETRAIN.image_encoder))
    )
    expression = LeBS(config.model.expression)
    return TrainTask(config, ClipDataset(folder), world or World(), expression=expression, perceptual=perceptual)


def make_plain(task: TrainTask) -> None:
    """Undo what we do for speed: NCHW weights, Adam as PyTorch constructs it."""
    task.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    groups = [dict(group) for group in task._optimizer.param_groups]
    kept = [{"params": g["params"], "scale": g["scale"]} for g in groups]
    task._optimizer = torch.optim.Adam(kept, lr=task.config.learning_rate, betas=task.config.betas)


class PartClock:
    """Wall time of the parts of a step, by wrapping the model's verbs on this one instance."""

    def __init__(self, task: TrainTask) -> None:
        self._seconds: dict[str, float] = {}
        model = task.model
        for name in ("encode", "planes", "render"):
            setattr(model, name, self._timed(name, getattr(model, name)))
        for name in ("_enlarge", "_look_up"):  # from rays to the final image; a model uses one of them
            setattr(model, name, self._timed("super-resolution", getattr(model, name)))
        task._generator_step.forward = self._timed("forward", task._generator_step.forward)
        backward = torch.Tensor.backward
        torch.Tensor.backward = self._timed("backward", backward)  # type: ignore[method-assign]

    def start(self) -> None:
        """Forget the last step."""
        self._seconds = {}

    def measure(self, name: str) -> Span:
        """A context that adds its time to a part."""
        return Span(self._seconds, name)

    def finish(self, total: float) -> dict[str, float]:
        """Seconds of each part of the step that took `total` seconds."""
        s = {
            name: self._seconds.get(name, 0.0) for name in ("data", "encode", "planes", "render", "forward", "backward")
        }
        superres = self._seconds.get("super-resolution", 0.0)
        return {
            "data": s["data"],
            "encode": s["encode"],
            "planes": s["planes"],
            "renderer": s["render"] - superres,
            "super-resolution": superres,
            "losses": s["forward"] - s["encode"] - s["planes"] - s["render"],
            "backward": s["backward"],
            "optimiser and rest": total - s["data"] - s["forward"] - s["backward"],
        }

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with Span(self._seconds, name):
                return function(*args, **kwargs)

        return timed


class Span:
    """Adds the time between enter and exit to an entry."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._all = seconds
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._all[self._name] = self._all.get(self._name, 0.0) + time.perf_counter() - self._start


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_random_clips(folder: Path, size: int) -> Path:
    """Two clips of noise with every member of a synthetic clip."""
    rng = np.random.default_rng(0)
    extractor = {"name": "random", "version": "1", "sha256": "0" * 64, "expression_space": "ict64"}
    writer = ShardWriter(folder)
    count = 8
    for number in range(2):
        yaw = torch.from_numpy(rng.uniform(-0.4, 0.4, count).astype(np.float32))
        arrays = {
            "beta": rng.normal(size=(count, 64)).astype(np.float32),
            "beta_mirror": rng.normal(size=(count, 64)).astype(np.float32),
            "camera": Camera.look_at_head(yaw).to_vector().numpy(),
            "landmarks": rng.random((count, 68, 2)).astype(np.float32),
            "confidence": np.ones(count, np.float32),
            "crop": np.zeros((count, 3), np.float32),
        }
        key = f"noise_{number}"
        meta = make_meta(
            key=key, num_frames=count, size=size, fps=25, identity=key, source="noise", extractor=extractor
        )
        writer.write(
            Clip(
                key=key,
                frames=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
                arrays=arrays,
                meta=meta,
                masks=rng.integers(0, 256, (count, size, size), dtype=np.uint8),
                depths=np.full((count, size, size), 43000, np.uint16),
                background=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            )
        )
    writer.close()
    return folder


def show(preset: str, result: dict[str, Any]) -> None:
    """Print one preset's table."""
    print(
        f"{preset}: {result['parameters'] / 1e6:.1f} M parameters, batch {result['batch']}, {result['threads']} threads, "
        f"ours in {' and '.join(sorted({'bf16' if chosen else 'fp32' for chosen in result['bf16']}))}"
    )
    for setting in ("plain", "ours"):
        facts = result[setting]
        print(f"  {setting:6s} {facts['samples_per_s']:.3f} samples/s, {facts['samples_per_cpu_s']:.3f} per CPU-second")
        for part, seconds in facts["parts_s_per_sample"].items():
            print(f"         {part:20s} {1e3 * seconds:9.1f} ms per sample")
    print(f"  ours / plain: wall {result['ratio_wall']:.2f}, CPU time {result['ratio_cpu']:.2f} (target {TARGET})")
    if preset == "paper":
        print(f"  the paper's whole schedule at this speed: {result['paper_schedule_days']:.0f} days")


if __name__ == "__main__":
    sys.exit(main())
