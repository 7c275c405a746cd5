"""What phase 2 (Eq. 14) changes: one model of phase 1, trained on with the discriminator and without it (results/phase2.json).

    export3d train --preset paper-small --start full.safetensors --data train --expression pretrain --batch 8
        --learning-rate 1.8e-5 --decay-from 1 --warmup-steps 0 --samples 8 --adversarial.samples 16000 -o with
    export3d train (the same) --samples 16008 -o without
    export3d reproduce -o work/with --scale paper-small --data train --test test --stages evaluate --variants full --runs ...
    python benchmarks/phase2.py work --start start --data test --models with.safetensors without.safetensors --save

FOLDER/NAME holds the scores of `with`, `without` and of the model that both began with. Differences are paired: the same source
and driver, bootstrap over people (95 %). `--data` and `--models` draw a sheet of the first people, unpicked.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.data import ClipDataset
from export3d.evaluation.figures.sheets import ablation_sheet
from export3d.evaluation.metrics.bootstrap import paired_difference
from export3d.portrait import load_model
from export3d.reproduce.scores import Scores, read_scores
from export3d.reproduce.settings import Settings
from material import save

METRICS = ("psnr", "ssim_gaussian", "akd", "csim_source", "expression_error", "swap_psnr")
QUALITY = ("psnr", "mouth", "eyes", "depth", "sharpness")
SHEET = Path("docs/pictures/paper/phase2.jpg")


def main() -> None:
    """Compare, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", default="start", help="folder of the scores of the model that both began with")
    parser.add_argument("--data", type=Path, default=None, help="test clips of the sheet")
    parser.add_argument("--models", type=Path, nargs=2, default=None, help="the two models, with and without")
    parser.add_argument("--save", action="store_true", help="write results/phase2.json, with --data also the sheet")
    options = parser.parse_args()
    scores = {name: scores_of(options.folder / name) for name in (options.start, "without", "with")}
    rows = {name: facts_of(value) for name, value in scores.items()}
    pairs = [("with", "without"), ("with", options.start), ("without", options.start)]
    differences = {f"{a} - {b}": compared(scores[a], scores[b]) for a, b in pairs}
    for name, row in {**rows, **differences}.items():
        print(name, row)
    if options.save:
        print(save("phase2", {"seed": 0, "rows": rows, "differences": differences}))
        if options.data is not None and options.models is not None:
            models = {
                name: load_model(str(path)) for name, path in zip(("with", "without"), options.models, strict=True)
            }
            sheet = ablation_sheet(models, ClipDataset(options.data), clips=8)
            Image.fromarray(sheet).save(SHEET, quality=90)


def scores_of(work: Path) -> Scores:
    """The scores of `full` in a folder of `export3d reproduce`."""
    found = read_scores(Settings(output=work), "full")
    if found is None:
        raise SystemExit(f"{work}: no scores of `full`; run the stage `evaluate` first.")
    return found


def facts_of(scores: Scores) -> dict[str, Any]:
    """The model, and the means against exact truth."""
    assert scores.quality is not None
    model = scores.facts["model"]
    return {"sha256": model["sha256"], **{name: round(scores.quality["model"][name], 4) for name in QUALITY}}


def compared(a: Scores, b: Scores) -> dict[str, Any]:
    """Paired differences a - b of each metric, same and cross identity."""
    assert a.pairs == b.pairs
    found: dict[str, Any] = {}
    for kind in ("same", "cross"):
        ours, theirs = a.values[kind]["model"], b.values[kind]["model"]
        for metric in METRICS:
            if metric in ours and np.isfinite(ours[metric] - theirs[metric]).any():
                found[f"{metric}, {kind}"] = asdict(paired_difference(ours[metric], theirs[metric]))
    return found


if __name__ == "__main__":
    main()
