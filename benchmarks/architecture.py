"""Which parts of `small` earn their place: the same short training for each variant, scored on people of the val split.

    python benchmarks/architecture.py --data out/train --val out/val --expression runs/clebs -o out/architecture --save

Every variant sees the same samples with the same seed and differs from `small` in the options below, nothing else. The test
split is not read. A variant that is finished is not trained again, so the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from material import save

VARIANTS: dict[str, list[str]] = {
    "small": [],
    "no motion planes": ["--model.generator.motion-basis", "0"],
    "no source lookup": [
        "--model.source-lookup.no-enabled",
        "--model.generator.motion-basis",
        "0",
        "--model.source-depth.no-enabled",
    ],
    "pixel-aligned features instead": [
        "--model.source-lookup.no-enabled",
        "--model.generator.motion-basis",
        "0",
        "--model.source-depth.no-enabled",
        "--model.pixel-aligned.enabled",
    ],
    "background in the tri-plane": ["--model.background.mode", "triplane"],
    "no high-resolution branch": ["--model.generator.highres-channels"],
    "8 + 12 samples per ray": ["--model.renderer.num-coarse", "8", "--model.renderer.num-fine", "12"],
    "no source depth": ["--model.source-depth.no-enabled"],
    "no upper face": ["--model.no-upper-face"],
    "no lower face": ["--model.no-lower-face"],
    "no occupancy term": ["--weights.occupancy", "0", "--sampling.space-points", "0"],
    "no surface term": ["--weights.surface", "0", "--sampling.surface-points", "0"],
    "width 256": ["--model.generator.hidden", "256"],
}
"""Name -> options of `export3d train`."""


def main() -> None:
    """Train, score, print a table, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training clips (synthetic)")
    parser.add_argument("--val", type=Path, required=True, help="synthetic clips of the val split")
    parser.add_argument("--expression", type=Path, required=True, help="pre-training run")
    parser.add_argument("--samples", type=int, default=3200, help="samples of each variant")
    parser.add_argument("--clips", type=int, default=20, help="people that are scored")
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--save", action="store_true", help="write results/architecture.json")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.variants:
        rows[name] = measure(name, options)
        print(f"{name:32s}" + "".join(f"  {key} {value:.3f}" for key, value in rows[name].items()), flush=True)
    if options.save:
        facts = {
            "samples": options.samples,
            "scored_people": options.clips,
            "split": "val",
            "seed": 0,
            "units": "dB; depth in scene units; sharpness as a share of the truth's; mouth over ignoring the driver's "
            "expression",
            "options": {name: " ".join(VARIANTS[name]) or "-" for name in rows},
            "variants": rows,
        }
        print(f"saved {save('architecture', facts)}")


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one variant if that is still to do, score it if that is, and return its row."""
    run = options.output / name.replace(" ", "-").replace("+", "and")
    scores = run.with_suffix(".json")
    if not scores.exists():
        export3d(
            *("train", "--data", options.data, "--preset", "small", "--expression", options.expression),
            *("--perceptual", "none", "--weights.perceptual", "0", "--samples", options.samples),
            *("--threads", options.threads, "-o", run, *VARIANTS[name]),
        )
        export3d(
            *("quality", "--model", run / "model.safetensors", "--data", options.val, "--clips", options.clips),
            *("--threads", options.threads, "-o", scores, "--sheet", run / "sheet.png"),
        )
    found = json.loads(scores.read_text())["scores"]
    speed = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(line["samples_per_s"] for line in speed if "samples_per_s" in line)
    return {
        "psnr": found["model"]["psnr"],
        "foreground": found["model"]["foreground"],
        "mouth_gain": found["model"]["mouth"] - found["source_expression"]["mouth"],
        "depth": found["model"]["depth"],
        "sharpness": found["model"]["sharpness"],
        "samples_per_s": rates[len(rates) // 2],
    }


def export3d(*arguments: object) -> None:
    """Run a command of this package; its output goes to the terminal."""
    command = [sys.executable, "-m", "export3d", *(str(a) for a in arguments)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
