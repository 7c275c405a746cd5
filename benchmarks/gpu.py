"""What a GPU makes of it, in one command: frames per second of pictures and films, samples per second of training.

    python benchmarks/gpu.py --save

Without a GPU it says so and measures nothing. The compiled renderer is for CPUs; here PyTorch renders every sample.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions, animate_video
from export3d.camera import Camera
from export3d.checkpoint import read_checkpoint
from export3d.cli.demo import sample_portraits, samples_folder
from export3d.images import read_image
from export3d.portrait import FastConfig, PortraitModel, load_model
from export3d.portrait.loading import checkpoint_path
from export3d.tracking import Tracker
from export3d.training.batches.prefetch import Prefetcher
from export3d.training.loop.distributed import World
from export3d.training.phases.config import TRAIN_PRESETS
from material import save
from train import make_task, write_random_clips

DEVICE = torch.device("cuda")


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--save", action="store_true", help="write results/gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU")
        return
    weights = read_checkpoint(checkpoint_path(None), kind="export3d").sha256
    result = {"weights_sha256": weights, **pictures(options.repeats), **training(options.repeats)}
    for name, value in result.items():
        print(f"{name:42} {value}")
    if options.save:
        print(f"saved {save('gpu', result)}")


def pictures(repeats: int) -> dict[str, float]:
    """Milliseconds of the steps of a picture, and frames per second of a film, tracking on the CPU included."""
    model = load_model(device="cuda")
    assert isinstance(model, PortraitModel)
    found: dict[str, float] = {}
    with Tracker(choice="largest", size=model.config.image_size) as tracker, tempfile.TemporaryDirectory() as folder:
        animator = Animator(model, tracker, detail=512)
        subject = animator.portrait(read_image(sample_portraits()[0]))
        camera, state = Camera.look_at_head(torch.tensor(0.2, device=DEVICE)), subject.state.to(DEVICE)
        with torch.inference_mode():
            driven = model.drive(subject.code, state)
            found["planes, ms"] = median_ms(lambda: model.drive(subject.code, state), repeats)
            found["picture, ms"] = median_ms(lambda: model.render(driven, camera), repeats)
            fast = FastConfig()
            found["picture, fast path, ms"] = median_ms(lambda: model.render(driven, camera, fast=fast), repeats)
        driver = ClipDriver(samples_folder() / "driving.mp4", tracker)
        film = animate_video(
            animator, driver, Path(folder) / "film.mp4", video=VideoOptions(), motion=TransferOptions()
        )
        driver.close()
        found["film, frames per second"] = film.frames / film.seconds
    return {name: round(value, 3) for name, value in found.items()}


def training(repeats: int) -> dict[str, float]:
    """Samples per second of whole training steps on random clips, batches loaded and pinned beside."""
    presets = (("portrait", 128, 16), ("paper", 256, 8))
    return {f"training {name}, samples per second": speed(name, size, batch, repeats) for name, size, batch in presets}


def speed(preset: str, size: int, batch: int, repeats: int) -> float:
    """Samples per second of one preset."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(TRAIN_PRESETS[preset], batch=batch)
        task = make_task(config, write_random_clips(Path(folder), size), World(device=DEVICE))
        batches = Prefetcher(task.load_batch, 0, repeats + 3, pin=True)
        steps = iter(range(repeats + 3))
        step_ms = median_ms(lambda: task.step(next(steps), batches.next()), repeats)
        batches.close()
    return round(1000 * batch / step_ms, 1)


def median_ms(action: Callable[[], object], repeats: int) -> float:
    """Median of some runs after three that warm up, each until the GPU is done."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        action()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
