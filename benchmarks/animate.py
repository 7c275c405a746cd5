"""Milliseconds per frame of each step of animation, for each preset, and frames per second end to end.

    python benchmarks/animate.py --model small           # the bundled model
    python benchmarks/animate.py                         # presets small and paper
    python benchmarks/animate.py --presets paper lp3d --frames 4 --save

The weights of a preset are random; with the fast renderer a trained model's work is another, so give `--model small`.
Times are medians; end to end is wall-clock time of a whole film, from decoding and tracking to the finished file, portrait
and start-up left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from export3d.model.loading import load_model

from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions, animate_video
from export3d.camera import Camera
from export3d.images import to_tensor
from export3d.model import PRESETS, Export3D, preset
from export3d.provenance import Finish, ProvenanceOptions
from export3d.tracking import Tracker, crop_image
from export3d.video import VideoReader, VideoWriter
from material import face_photo, machine, save, write_clip

STEPS = ("tracking", "encode (once)", "planes", "render", "super-resolution", "encoding")


def main() -> None:
    """Measure, print a table, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["small", "paper"], choices=sorted(PRESETS))
    parser.add_argument("--model", help="time this trained model instead of presets: a name or a .safetensors file")
    parser.add_argument("--frames", type=int, default=50, help="frames of the film; large presets use fewer")
    parser.add_argument("--repeats", type=int, default=10, help="repeats of each step")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch threads; 0: its own choice")
    parser.add_argument("--save", action="store_true", help="write results/animate.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    models: dict[str, Callable[[], Export3D]] = {
        name: lambda name=name: Export3D(preset(name)).eval().requires_grad_(False) for name in options.presets
    }
    if options.model:
        models = {options.model: lambda: load_model(options.model)}
    facts = machine()
    print(f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {facts['torch_threads']} threads")
    rows = {}
    with tempfile.TemporaryDirectory() as folder, Tracker(choice="largest") as tracker:
        clip = write_clip(Path(folder) / "clip.mp4", options.frames / 25)
        tracking_ms = time_tracking(clip, tracker)
        for name, build in models.items():
            rows[name] = measure(name, build(), tracker, clip, Path(folder), tracking_ms, options)
    print("\n" + table(rows))
    if options.save:
        print(f"saved {save('animate', {'unit': 'ms per frame', 'presets': rows})}")


def measure(
    name: str,
    model: Export3D,
    tracker: Tracker,
    clip: Path,
    folder: Path,
    tracking_ms: float,
    options: argparse.Namespace,
) -> dict[str, float]:
    """One row: ms of each step, then frames per second of a whole film."""
    size = model.config.image_size
    animator = Animator(model, tracker)
    subject = animator.portrait(face_photo())
    repeats = options.repeats if size <= 128 else min(options.repeats, 3)
    source = to_tensor(np.array(crop_image(subject.image, subject.crop, size)))[None]
    own = Camera.from_vector(torch.from_numpy(subject.camera)[None])
    beta = torch.from_numpy(subject.beta)[None]  # also the portrait's own
    row = {"tracking": tracking_ms}
    half = torch.autocast("cpu", torch.bfloat16, enabled=animator.half)  # as films are made on this processor
    with torch.inference_mode():
        row["encode (once)"] = median_ms(lambda: model.encode(source, own, source_beta=beta), repeats)
        planes = model.planes(subject.code, beta)
        row["planes"] = median_ms(half(lambda: model.planes(subject.code, beta)), repeats)
        rays = model.config.renderer.raw_size
        fast = animator.fast  # None for a model or a device without the fast path: both columns are exact then
        row["render exactly"], row["render"] = interleaved_ms(
            lambda: model.render(planes, own, subject.code, raw_size=rays),
            lambda: model.render(planes, own, subject.code, raw_size=rays, fast=fast),
            repeats,
        )
        row["exact / fast"] = row["render exactly"] / row["render"]
        whole = median_ms(half(lambda: model.render(planes, own, subject.code, fast=fast)), repeats)
    row["super-resolution"] = max(whole - row["render"], 0.0)  # with the source lookup, where the model has one
    row["encoding"] = time_encoding(animator.frame(subject.beta, subject.camera), folder)
    per_frame_ms = sum(row[step] for step in STEPS if step != "encode (once)")
    affordable = max(2, min(options.frames, int(60_000 / per_frame_ms)))  # about a minute of film making
    short = write_clip(folder / "short.mp4", affordable / 25)
    frames, fps, single, plain = film_speed(animator, short, folder / f"{Path(name).stem}.mp4", tracker)
    row["film frames"], row["end-to-end fps"] = frames, fps
    row["side by side / one by one"] = fps / single
    row["with / without mark and manifest"] = fps / plain
    return {key: round(value, 3) for key, value in row.items()}


def film_speed(animator: Animator, clip: Path, path: Path, tracker: Tracker) -> tuple[int, float, float, float]:
    """Frames of a film and frames per second: side by side, one after the other, and side by side without mark and
    manifest; medians of five films each, which take turns."""
    speeds: dict[tuple[int, bool], list[float]] = {(0, False): [], (1, False): [], (0, True): []}
    for _ in range(5):
        for (workers, plain), found in speeds.items():
            driver, options = ClipDriver(clip, tracker), VideoOptions(workers=workers)
            finish = Finish(ProvenanceOptions(no_mark=plain, no_manifest=plain))
            film = animate_video(animator, driver, path, video=options, motion=TransferOptions(), finish=finish)
            driver.close()
            found.append(film.frames / film.seconds)
    side_by_side, single, unmarked = (statistics.median(found) for found in speeds.values())
    return film.frames, side_by_side, single, unmarked


def time_tracking(clip: Path, tracker: Tracker) -> float:
    """Median time to find and measure the face in a decoded frame; the first frame, a full search, left out."""
    tracker.reset()
    times = []
    with VideoReader(clip) as reader:
        for frame in reader:
            start = time.perf_counter()
            tracker.frame(frame.image)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def time_encoding(image: np.ndarray, folder: Path, num_frames: int = 100) -> float:
    """Mean time to encode one frame of the output, the encoder's own delay included."""
    generator = np.random.default_rng(0)
    shifts = generator.integers(-3, 4, size=num_frames)
    start = time.perf_counter()
    with VideoWriter(folder / "encoded.mp4", 25, (image.shape[1], image.shape[0])) as writer:
        for shift in shifts:
            writer.write(np.roll(image, int(shift), axis=1))
    return 1000 * (time.perf_counter() - start) / num_frames


def median_ms(action: Callable[[], object], repeats: int) -> float:
    """Median of some runs after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def interleaved_ms(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of two actions that take turns, so that their ratio stands also on a busy machine."""
    times = [[median_ms(action, 1) for action in (first, second)] for _ in range(repeats)]
    one, other = zip(*times, strict=True)
    return statistics.median(one), statistics.median(other)


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    columns = [*STEPS, "render exactly", "exact / fast", "end-to-end fps", "side by side / one by one"]
    columns += ["with / without mark and manifest"]
    lines = ["| preset | " + " | ".join(f"{c} ms" if c in (*STEPS, "render exactly") else c for c in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        cells = (f"{row[c]:.1f}" if c in STEPS else f"{row[c]:.2f}" for c in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
