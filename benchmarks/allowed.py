"""Do copies of allowed portraits pass, and are other faces refused? (src/export3d/provenance/allowed.py)

    python benchmarks/allowed.py --portraits FOLDER --others DATA_SET ... --save

Every portrait of FOLDER is the only allowed one in turn: its copies must pass; the other portraits, and two
frames of each identity of the data sets, must not.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.data import ClipDataset
from export3d.images import read_image
from export3d.provenance.allowed import MAX_DIFFERENT_BITS, look_of
from material import save


def saved_again(quality: int, share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Resized by a share and saved as JPEG."""

    def change(image: np.ndarray) -> np.ndarray:
        size = (round(image.shape[1] * share), round(image.shape[0] * share))
        content = io.BytesIO()
        Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=quality)
        return np.asarray(Image.open(content).convert("RGB"))

    return change


COPIES = {
    "JPEG 75": saved_again(75, 1.0),
    "half size, JPEG 75": saved_again(75, 0.5),
    "quarter size, JPEG 50": saved_again(50, 0.25),
    "1.7 times as large, JPEG 30": saved_again(30, 1.7),
    "15 % brighter": lambda image: np.clip(image * 1.15, 0, 255).astype(np.uint8),
    "10 % crop (not promised to pass)": lambda i: i[
        i.shape[0] // 20 : -i.shape[0] // 20, i.shape[1] // 20 : -i.shape[1] // 20
    ],
    "mirrored (not promised to pass)": lambda image: image[:, ::-1],
}


def measure(portraits: Path, data_sets: list[Path]) -> dict[str, Any]:
    """Different bits of copies and of other faces."""
    images = [read_image(path) for path in sorted(portraits.iterdir()) if path.suffix in (".jpg", ".png")]
    looks = np.array([look_of(image) for image in images])
    copies = {}
    for name, change in COPIES.items():
        bits = np.array([(look_of(change(i)) ^ look).sum() for i, look in zip(images, looks, strict=True)])
        copies[name] = {"passed": int((bits <= MAX_DIFFERENT_BITS).sum()), "most_different_bits": int(bits.max())}
    others, people = list(looks), len(looks)
    for folder in data_sets:
        data = ClipDataset(folder)
        others += [look_of(data.frame(i, t)) for i in range(len(data)) for t in (0, data.num_frames(i) // 2)]
        people += len({data.identity(i) for i in range(len(data))})
    found = np.array(others)
    pairs = [(found ^ look).sum(axis=1) for look in looks]
    for number, bits in enumerate(pairs):
        bits[number] = 255  # itself
    bits = np.concatenate(pairs)
    return {
        "portraits": len(images),
        "other_people": people - 1,
        "other_faces": len(others) - 1,
        "limit_different_bits": MAX_DIFFERENT_BITS,
        "bits": 255,
        "copies": copies,
        "pairs_of_different_faces": len(bits) - len(images),
        "wrongly_passed": int((bits <= MAX_DIFFERENT_BITS).sum()),
        "fewest_different_bits": int(bits.min()),
    }


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--others", type=Path, nargs="+", default=[])
    parser.add_argument("--save", action="store_true", help="write results/allowed.json")
    options = parser.parse_args()
    result = measure(options.portraits, options.others)
    for key, value in result.items():
        print(f"{key}: {value}")
    if options.save:
        print(f"saved {save('allowed', result)}")


if __name__ == "__main__":
    main()
