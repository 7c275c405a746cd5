"""The invisible mark in single small pictures: what a portrait becomes at the model's own size, as PNG and as JPEG.

    python benchmarks/small_marks.py PORTRAITS --save

PORTRAITS is a folder of photographs. Each gives two pictures of 128 pixels, as it is and turned by 20 degrees. Both are marked
with a payload that is drawn, written, and read as `export3d verify` reads; unmarked they are read as well.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.animation import Animator
from export3d.camera import Camera
from export3d.checkpoint import read_checkpoint
from export3d.errors import Export3DError
from export3d.portrait.loading import checkpoint_path, load_model
from export3d.provenance.detect import MarkDetector
from export3d.provenance.mark import Marker
from export3d.provenance.waves import PROJECT
from export3d.tracking import Tracker
from material import save

KINDS = {"PNG": None, "JPEG 95": 95, "JPEG 85": 85, "JPEG 75": 75}
TURN_DEG = 20


def pictures(folder: Path) -> Iterator[list[np.ndarray]]:
    """Of each portrait with a face, the two pictures, uint8 ``(128, 128, 3)``."""
    model = load_model()
    with Tracker(choice="largest", size=model.config.image_size) as tracker:
        for path in sorted(folder.iterdir()):
            animator = Animator(model, tracker)
            try:
                subject = animator.portrait(path)
            except Export3DError as error:
                print(f"{path.name}: {error}")
                continue
            turned = Camera.look_at_head(yaw=math.radians(TURN_DEG))
            yield [animator.frame(subject.state, camera) for camera in (subject.camera, turned)]


def written(image: np.ndarray, quality: int | None) -> np.ndarray:
    """As it comes out of the file."""
    if quality is None:
        return image
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content).convert("RGB"))


def read(image: np.ndarray, *, every_size: bool = True) -> int | None:
    """The payload that is found."""
    detector = MarkDetector()
    detector.add(image)
    found = detector.read() if every_size else detector.read_unscaled()
    return None if found is None else found.payload


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the payloads")
    parser.add_argument("--save", action="store_true", help="write results/small_marks.json")
    options = parser.parse_args()
    draw, noise, alarms, people = np.random.default_rng(options.seed), [], 0, 0
    counts = {name: {"right": 0, "wrong": 0, "as a frame of a film": 0} for name in KINDS}
    for both in pictures(options.portraits):
        people += 1
        for image in both:
            payload = PROJECT << 24 | int(draw.integers(2**24))
            marker = Marker(payload)
            still, frame = marker.still(image), marker(image)
            noise.append(float(np.mean((still.astype(float) - image) ** 2)))
            alarms += read(image) is not None
            for name, quality in KINDS.items():
                found = read(written(still, quality))
                counts[name]["right"] += found == payload
                counts[name]["wrong"] += found not in (None, payload)
                counts[name]["as a frame of a film"] += read(written(frame, quality), every_size=False) == payload
    psnr = [10.0 * math.log10(255.0**2 / value) for value in noise]
    result: dict[str, Any] = {
        "seed": options.seed,
        "weights_sha256": read_checkpoint(checkpoint_path(None), kind="export3d").sha256,
        **{"portraits": people, "pictures": len(noise), "pixels": 128, "found": counts, "alarms_unmarked": alarms},
        "psnr_db": {"mean": round(statistics.mean(psnr), 2), "lowest": round(min(psnr), 2)},
    }
    print(json.dumps(result, indent=2))
    if options.save:
        print(f"saved {save('small_marks', result)}")


if __name__ == "__main__":
    main()
