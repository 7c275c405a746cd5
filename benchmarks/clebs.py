"""CLeBS as printed and its variants in one table: identity in the code, R^2 of the true expression, retrieval.

    python benchmarks/clebs.py --data out/train --val out/val -o out/clebs --steps 3000 --save

Each row is one `export3d pretrain` with the same clips, order, seed and number of steps, then `export3d measure-expression` on
people it never saw; a finished row is kept, so the same command goes on where it was stopped. `printed` is Eq. 1: 32 negatives
of the same clip, tau 0.07, the positive from the image encoder and not in the denominator.
Clips need 33 frames.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from material import save

PRINTED = ["--frames-per-clip", "33", "--temperature", "0.07", "--no-include-positive", "--no-symmetric"]
VARIANTS = {
    "printed": [],
    "InfoNCE": ["--include-positive"],
    "symmetric InfoNCE": ["--include-positive", "--symmetric"],
    "tau 0.2": ["--temperature", "0.2"],
    "16 frames": ["--frames-per-clip", "16"],
    "n 25": ["--expression.num-basis", "25"],
    "whole frames for f_I": ["--image-encoder.face-share", "1.0"],
}
"""Row -> what differs from `PRINTED`."""


def main() -> None:
    """Pre-train and measure every row; save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training clips of at least 33 frames")
    parser.add_argument("--val", type=Path, required=True, help="rendered clips of other people, with their extractor")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--preset", default="paper-small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--save", action="store_true", help="write results/clebs_variants.json")
    options = parser.parse_args()
    rows = {}
    for name in options.rows:
        run = options.output / name.replace(" ", "-")
        words = ["--preset", options.preset, "--steps", str(options.steps), "--seed", str(options.seed)]
        export3d("pretrain", "--data", options.data, *words, *PRINTED, *VARIANTS[name], "-o", run)
        found = run / "measured.json"
        export3d("measure-expression", "--expression", run, "--data", options.val, "--seed", options.seed, "-o", found)
        content = json.loads(found.read_text(encoding="utf-8"))
        code = next(row for row in content["rows"] if row["code"].startswith("beta' (lambda)"))
        measured = {
            key: code[key] for key in ("identity_1nn", "identity_1nn_frames", "r2", "r2_within", "r2_quadratic")
        }
        rows[name] = {**measured, "contrast": content["contrast"], "weights_sha256": content["weights_sha256"]}
        print(name, {key: round(value, 3) for key, value in measured.items()}, flush=True)
    if options.save:
        facts = {"steps": options.steps, "seed": options.seed, "chance": content["chance"], "rows": rows}
        print(f"saved {save('clebs_variants', facts)}")


def export3d(*words: object) -> None:
    """One command of the package; stops the benchmark where it fails."""
    subprocess.run([sys.executable, "-m", "export3d", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
