"""What `--dry-run` prints: parameters, memory and time of a run, from one timed step on the real data."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from export3d.data.source import ClipSource
from export3d.training.loop.run import Task


def estimate_run(task: Task[Any], module: nn.Module, dataset: ClipSource) -> list[str]:
    """Lines of text; runs two steps of the task, which must not be trained on afterwards."""
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frames = sum(dataset.num_frames(i) for i in range(len(dataset)))
    seconds = []
    for step in range(2):
        start = time.perf_counter()
        task.step(step, task.load_batch(step))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    hours = seconds[-1] * task.total_steps / 3600.0
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    return [
        f"data: {len(dataset)} clips, {frames} frames of {dataset.size} px",
        f"parameters: {total:,} ({trained:,} trained)",
        f"state: about {4 * (3 * trained + total - trained) / 2**20:.0f} MiB per training state",
        f"memory: peak {peak:.2f} GiB for one step of this process",
        f"time: {seconds[-1]:.3f} s per step of {task.samples_per_step} samples; {task.total_steps} steps: {hours:.1f} h",
    ]
