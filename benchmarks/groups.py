"""Scores of an evaluation by kind of person and by how far the head turns: for whom does the model work worse?

    export3d evaluate --data out/test -o out/eval
    python benchmarks/groups.py --data out/test --evaluation out/eval --save

Same-identity frames of synthetic test people, whose skin, age, hair, beard and glasses are known. Each person counts once:
the mean over people of each person's mean. The portrait's own frame is left out, as in the tables of `export3d evaluate`.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export3d.data import ClipDataset
from export3d.heads.look.appearance import AppearanceOptions, Traits, draw_traits
from material import save

METRICS = {"psnr": "PSNR", "ssim_gaussian": "SSIM", "akd": "AKD", "csim_source": "CSIM", "aed": "AED"}

GROUPS: dict[str, Callable[[Traits], bool]] = {
    "everybody": lambda t: True,
    "skin light (melanin below 0.4)": lambda t: t.melanin < 0.4,
    "skin medium": lambda t: 0.4 <= t.melanin < 0.8,
    "skin dark (0.8 and more)": lambda t: t.melanin >= 0.8,
    "age below 38": lambda t: t.age < 38,
    "age 38 to 57": lambda t: 38 <= t.age < 58,
    "age 58 and more": lambda t: t.age >= 58,
    "feminine": lambda t: t.is_feminine,
    "masculine": lambda t: not t.is_feminine,
    "bald": lambda t: t.style == "bald",
    "glasses": lambda t: t.glasses is not None,
    "beard": lambda t: t.beard > 0.3,
}
"""Name -> whether a person belongs to it."""

TURNS = {"turned less than 15 degrees": (0.0, 15.0), "15 to 30": (15.0, 30.0), "more than 30": (30.0, 181.0)}
"""Name -> limits of the yaw between portrait and driving frame, degrees."""


def main() -> None:
    """Read the evaluation, print a table, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the evaluated clips (synthetic)")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder of `export3d evaluate`")
    parser.add_argument("--save", action="store_true", help="write results/groups.json")
    options = parser.parse_args()
    dataset = ClipDataset(options.data)
    clips = {key: number for number, key in enumerate(dataset.keys)}
    traits = {key: draw_traits(int(dataset.meta(n)["extra"]["seed"]), AppearanceOptions()) for key, n in clips.items()}
    angles = {key: np.degrees(dataset.head_angles(number)) for key, number in clips.items()}
    with open(options.evaluation / "frames.csv", newline="", encoding="utf-8") as file:
        frames = [
            row
            for row in csv.DictReader(file)
            if row["method"] == "model" and row["kind"] == "same" and row["frame"] != row["source_frame"]
        ]
    for row in frames:
        yaw = angles[row["source_clip"]][int(row["source_frame"]), 0]
        row["turn"] = str(abs(angles[row["driving_clip"]][int(row["frame"]), 0] - yaw))
    rows = {name: means([r for r in frames if belongs(traits[r["source_clip"]])]) for name, belongs in GROUPS.items()}
    for name, (low, high) in TURNS.items():
        rows[name] = means([r for r in frames if low <= float(r["turn"]) < high])
    for name, row in rows.items():
        print(f"{name:32s}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    if options.save:
        facts = {"split": "test", "seed": 0, "units": "PSNR in dB, AKD in px at 256", "groups": rows}
        print(f"saved {save('groups', facts)}")


def means(frames: list[dict[str, str]]) -> dict[str, Any]:
    """People, frames, and the mean over people of each metric; frames without a value of a metric are left out of it."""
    row: dict[str, Any] = {"people": len({r["source_clip"] for r in frames}), "frames": len(frames)}
    for metric, label in METRICS.items():
        people: dict[str, list[float]] = defaultdict(list)
        for r in frames:
            if r[metric]:
                people[r["source_clip"]].append(float(r[metric]))
        row[label] = round(float(np.mean([np.mean(values) for values in people.values()])), 4) if people else None
    return row


if __name__ == "__main__":
    main()
