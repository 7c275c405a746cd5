"""Images per second and core of the head renderer, its memory and set-up time, beside the rough prototype if one is given.

    python benchmarks/heads.py --head-model ict_lite.npz [--prototype FOLDER] [--frames 4] [--styles short long] [--save]

Each program runs in a process of its own with one thread, one after the other, and CPU time is counted, so that other
work on the machine disturbs little. On a CUDA device a row for batches is added (wall time). Run by hand, never by
tests. `--prototype` names a folder with head.py whose Identity and render functions are timed at equal settings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from material import save

SETTINGS = ((128, 1), (128, 2), (256, 1), (256, 2))

_PROTOTYPE = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
import head
styles, frames, settings = json.loads(sys.argv[1])
rows = []
for style in styles:
    t = time.process_time()
    person = head.Identity(7, style)
    setup = time.process_time() - t
    poses = [head.pose(-0.5 + k / max(frames - 1, 1), 0.0) for k in range(frames)]
    weights = head.B(mouthSmile=0.6, jawOpen=0.2)
    head.render(person, weights, (0.0, 0.0), *poses[0], size=64, ss=1)
    for size, ss in settings:
        t = time.process_time()
        for p, turn in poses:
            head.render(person, weights, (0.0, 0.0), p, turn, size=size, ss=ss)
        rows.append([style, size, ss, setup, (time.process_time() - t) / frames])
print(json.dumps([rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def measure(head_model: str | None, quality: str, styles: list[str], frames: int, device: str) -> None:
    """Time this package's renderer and print the numbers as JSON."""
    import torch

    from export3d.camera import Camera
    from export3d.heads.look.appearance import AppearanceOptions
    from export3d.heads.look.identity import Identity
    from export3d.heads.look.render import render_frames
    from export3d.heads.shape.model_file import load_head

    torch.set_num_threads(1)
    head = load_head(head_model).to(device)
    clock = time.process_time if device == "cpu" else time.perf_counter

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return clock()

    Identity.create(head, 1, AppearanceOptions(quality=quality, style=styles[0]))  # fields that are kept per process
    camera = Camera.look_at_head(torch.linspace(-0.5, 0.5, frames))
    weights = head.weights(mouthSmile=0.6, jawOpen=0.2).expand(frames, -1)
    rows = []
    for style in styles:
        start = now()
        person = Identity.create(head, 7, AppearanceOptions(quality=quality, style=style, accessories=False))
        setup = now() - start
        render_frames(person, weights[:1], torch.zeros(1, 2), camera[:1], size=64, supersample=1)
        for size, supersample in SETTINGS:
            start = now()
            render_frames(person, weights, torch.zeros(frames, 2), camera, size=size, supersample=supersample)
            rows.append([style, size, supersample, setup, (now() - start) / frames])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device != "cpu":
        memory = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps([rows, memory]))


def _run(command: list[str], cwd: Path | None = None) -> tuple[list[list], float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr}")
    rows, memory = json.loads(done.stdout.strip().splitlines()[-1])
    return rows, memory


def main() -> None:
    """Run every program and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head-model", help="npz of the head; default EXPORT3D_HEAD_MODEL, else the procedural head")
    parser.add_argument("--prototype", type=Path, help="folder of the prototype (head.py, rast.py)")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--styles", nargs="+", default=["bald", "short", "long"])
    parser.add_argument("--qualities", nargs="+", default=["fast", "full"])
    parser.add_argument("--save", action="store_true", help="write results/heads.json")
    parser.add_argument("--worker", nargs=2, metavar=("QUALITY", "DEVICE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options.head_model, options.worker[0], options.styles, options.frames, options.worker[1])
        return
    import torch

    results: dict[str, tuple[list[list], float]] = {}
    if options.prototype is not None:
        task = json.dumps([options.styles, options.frames, SETTINGS])
        results["prototype"] = _run([sys.executable, "-c", _PROTOTYPE, task], cwd=options.prototype)
    again = [sys.executable, str(Path(__file__).resolve()), "--frames", str(options.frames)]
    again += ["--styles", *options.styles]
    if options.head_model:
        again += ["--head-model", str(Path(options.head_model).resolve())]
    for quality in options.qualities:
        results[quality] = _run([*again, "--worker", quality, "cpu"])
    if torch.cuda.is_available():
        batch = [*again, "--worker", "fast", "cuda"]
        batch[batch.index("--frames") + 1] = "64"
        results[f"{torch.cuda.get_device_name()}, batches of 64"] = _run(batch)
    base = {(r[0], r[1], r[2]): r[4] for r in results.get("prototype", ([], 0.0))[0]}
    print("| program | hair | size | samples per side | ms per image | images/s per core | times the prototype |")
    print("|---|---|---|---|---|---|---|")
    for name, (rows, _) in results.items():
        for style, size, supersample, _, seconds in rows:
            before = base.get((style, size, supersample))
            ratio = f"{before / seconds:.2f}" if before else ""
            print(f"| {name} | {style} | {size} | {supersample} | {seconds * 1e3:.0f} | {1 / seconds:.1f} | {ratio} |")
    print()
    print("| program | set-up of an identity, CPU s | largest memory, MiB |\n|---|---|---|")
    for name, (rows, memory) in results.items():
        setups = ", ".join(f"{style} {next(r[3] for r in rows if r[0] == style):.2f}" for style in options.styles)
        print(f"| {name} | {setups} | {memory:.0f} |")
    if options.save:
        content = {name: {"rows": rows, "memory_mib": memory} for name, (rows, memory) in results.items()}
        columns = ["style", "size", "supersample", "setup_s", "image_s"]
        print(f"\nsaved {save('heads', {'columns': columns, 'frames': options.frames, **content})}")


if __name__ == "__main__":
    main()
