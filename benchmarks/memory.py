"""Peak memory of `export3d animate` for a short and a long clip: it must not grow with the length.

    python benchmarks/memory.py                # 10 s and 60 s
    python benchmarks/memory.py --save

Each clip is animated in a process of its own; the peak is the largest resident size that the kernel saw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from export3d.errors import CheckpointError
from export3d.portrait import build_model, preset, save_model
from export3d.portrait.loading import checkpoint_path
from material import save, write_clip, write_photo

LIMIT = 1.10
"""The long clip may take this many times the memory of the short one."""

CHILD = """
import json, resource, sys
from export3d.cli import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def main() -> int:
    """Measure, print, save on request; 1 where the memory grew beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", nargs=2, type=float, default=[10.0, 60.0], metavar=("SHORT", "LONG"))
    parser.add_argument("--model", help="a model file; the bundled model, else the tiny preset, when left out")
    parser.add_argument("--side-by-side", action="store_true", help="pass --side-by-side --smooth as well")
    parser.add_argument("--save", action="store_true", help="write results/memory.json")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, model = write_photo(folder / "photo.png"), find_model(options.model, folder)
        extra = ["--side-by-side", "--smooth"] if options.side_by_side else []
        for seconds in options.seconds:
            clip = write_clip(folder / "clip.mp4", seconds)
            peaks.append(peak_mib(photo, clip, model, folder / "out.mp4", extra))
            print(f"{seconds:g} s clip: peak {peaks[-1]:.0f} MiB", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f} (limit {LIMIT:.2f})")
    if options.save:
        facts = {"seconds": options.seconds, "peak_mib": peaks, "ratio": ratio, "model": model.name}
        print(f"saved {save('memory', facts)}")
    return 0 if ratio <= LIMIT else 1


def find_model(given: str | None, folder: Path) -> Path:
    """The model asked for, the bundled one, or a random tiny one."""
    try:
        return checkpoint_path(given)
    except CheckpointError:
        if given:
            raise
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    save_model(path, build_model(preset("tiny")))
    return path


def peak_mib(photo: Path, clip: Path, model: Path, target: Path, extra: list[str]) -> float:
    """Animate in a child process; its peak resident size."""
    files = ["--source", str(photo), "--driving", str(clip), "-o", str(target), "--model", str(model)]
    line = [sys.executable, "-c", CHILD, "animate", *files, *extra]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["code"] != 0:
        raise SystemExit(f"animate ended with {answer['code']}: {done.stderr}")
    return answer["peak_kib"] / 1024


if __name__ == "__main__":
    sys.exit(main())
