"""Does an independent face detector see our synthetic heads? MediaPipe on rendered clips: faces found, yaw against truth.

    export3d heads render --split test --identities 100 --frames 10 --size 128 --quality fast -o out/heads-test
    python benchmarks/heads_detector.py out/heads-test --save

Yaw is read from MediaPipe's landmarks by the bundled regressor; the truth is the clip's camera.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.tracking import Tracker
from material import save

MAX_YAW_DEG = 35.0


def main() -> None:
    """Count faces, compare yaw, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of synthetic clips")
    parser.add_argument(
        "--frames", type=int, default=1000, help="frames to look at, drawn at random within 35 degrees of yaw"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write results/heads_detector.json")
    options = parser.parse_args()
    dataset = ClipDataset(options.data)
    places = [
        (clip, time)
        for clip in range(len(dataset))
        for time in np.flatnonzero(np.abs(np.degrees(dataset.head_angles(clip)[:, 0])) <= MAX_YAW_DEG)
    ]
    order = np.random.default_rng(options.seed).permutation(len(places))[: options.frames]
    found, true_deg, read_deg = 0, [], []
    with Tracker(choice="largest") as tracker:
        for index in order:
            clip, time = places[index]
            tracker.reset()
            tracked = tracker.frame(np.array(dataset.frame(clip, int(time))))
            if not tracked.found:
                continue
            found += 1
            camera = Camera.from_vector(torch.tensor(tracked.camera, dtype=torch.float32)[None])
            read_deg.append(float(np.degrees(camera.head_angles()[0, 0].item())))
            true_deg.append(float(np.degrees(dataset.head_angles(clip)[time, 0])))
    row = {
        "frames": len(order),
        "identities": len({places[i][0] for i in order}),
        "faces_found": found,
        "share_found": found / len(order),
        "yaw_correlation": float(np.corrcoef(true_deg, read_deg)[0, 1]),
        "yaw_mean_error_deg": float(np.mean(np.abs(np.subtract(true_deg, read_deg)))),
        "seed": options.seed,
    }
    for name, value in row.items():
        print(f"{name:20s} {value}")
    if options.save:
        print(f"wrote {save('heads_detector', {'max_yaw_deg': MAX_YAW_DEG, **row})}")


if __name__ == "__main__":
    main()
