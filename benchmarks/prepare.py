"""Speed of each step of `export3d prepare` on one core, and what all of VFHQ would cost at that speed (docs/data.md).

    python benchmarks/prepare.py --save

Two videos of one face that moves are made, 512 x 512 and 1280 x 720, and prepared at 256 px (as PNG; the first also as
JPEG) in this process with one thread. The numbers are CPU time, as the report of every preparation has them, so that
other work disturbs them little.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from export3d.preprocess import PrepareOptions, RunOptions, prepare
from export3d.video import VideoWriter
from material import face_photo, save

SIZES = ((512, 512), (1280, 720))
VFHQ_CLIPS = 15_204
VFHQ_FRAMES_PER_CLIP = 250
"""Not measured: 10 s at 25 fps."""


def main() -> None:
    """Measure, print a table and the estimate, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100, help="frames of each video")
    parser.add_argument("--repeats", type=int, default=3, help="preparations of each video; the fastest counts")
    parser.add_argument("--save", action="store_true", help="write results/prepare.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for width, height in SIZES:
            path = Path(name) / f"{width}x{height}.mp4"
            write_video(path, width, height, options.frames)
            for stored in ("png", "jpg") if (width, height) == SIZES[0] else ("png",):
                runs = [measure(path, Path(name) / f"{width}-{stored}-{n}", stored) for n in range(options.repeats)]
                rows[f"{path.stem} {stored}"] = min(runs, key=lambda run: run["steps"]["all"]["ms"])
    show(rows)
    frames = VFHQ_CLIPS * VFHQ_FRAMES_PER_CLIP
    png, jpg = rows["512x512 png"], rows["512x512 jpg"]
    read_ms = png_milliseconds()
    estimate = {
        "clips": VFHQ_CLIPS,
        "frames_per_clip": VFHQ_FRAMES_PER_CLIP,
        "core_hours_from_video": core_hours(frames, png["steps"]["all"]["ms"]),
        "read_png_512_ms": read_ms,
        "core_hours_more_from_png_frames": core_hours(frames, read_ms - png["steps"]["decode"]["ms"]),
        "gigabytes_png": frames * png["bytes_per_frame"] / 1e9,
        "gigabytes_jpg": frames * jpg["bytes_per_frame"] / 1e9,
    }
    for name, value in estimate.items():
        print(f"VFHQ: {name} {value:,.1f}")
    if options.save:
        print(f"saved {save('prepare', {'frames': options.frames, 'videos': rows, 'vfhq': estimate})}")


def core_hours(frames: int, ms: float) -> float:
    """Frames times milliseconds, in hours."""
    return frames * ms / 1000 / 3600


def png_milliseconds(repeats: int = 20) -> float:
    """CPU time to decode a 512 x 512 PNG, as VFHQ's own archives hold them."""
    content = io.BytesIO()
    Image.fromarray(face_photo()).save(content, "PNG")
    start = time.process_time()
    for _ in range(repeats):
        np.asarray(Image.open(io.BytesIO(content.getvalue())).convert("RGB"))
    return 1e3 * (time.process_time() - start) / repeats


def measure(video: Path, out: Path, frame_format: Literal["png", "jpg"]) -> dict[str, Any]:
    """CPU milliseconds and frames per second of each step, and the stored bytes of a frame."""
    options = PrepareOptions(frame_format=frame_format, min_sharpness=0.0)  # the enlarged photo is soft
    report = prepare([video], out, options, RunOptions(workers=0))
    speed = json.loads((out / "report.json").read_text())["speed"]
    stored = sum(path.stat().st_size for path in out.glob("*.tar"))
    steps = {step: {"ms": 1e3 * row["seconds"] / row["frames"], "fps": row["fps"]} for step, row in speed.items()}
    return {"frames": report.frames, "bytes_per_frame": stored / report.frames, "steps": steps}


def write_video(path: Path, width: int, height: int, frames: int) -> None:
    """The photo, as high as the video, on a plain ground, moving from side to side."""
    photo = np.asarray(Image.fromarray(face_photo()).resize((height, height), Image.Resampling.LANCZOS))
    with VideoWriter(path, 25, (width, height)) as writer:
        for index in range(frames):
            canvas = np.full((height, width, 3), (40, 60, 110), np.uint8)
            left = (width - height) // 2 + round(0.05 * height * math.sin(index / 9.0))
            start, stop = max(left, 0), min(left + height, width)
            canvas[:, start:stop] = photo[:, start - left : stop - left]
            writer.write(canvas)


def show(rows: dict[str, Any]) -> None:
    """Print one table."""
    print("| Step | " + " | ".join(f"{name}: ms per frame | frames per second and core" for name in rows) + " |")
    print("|---|" + "---|---|" * len(rows))
    for step in next(iter(rows.values()))["steps"]:
        cells = (f"{row['steps'][step]['ms']:.1f} | {row['steps'][step]['fps']:,.0f}" for row in rows.values())
        print(f"| {step} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
