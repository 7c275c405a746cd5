"""The studio's speed, browser and server on the same machine: live pictures a second, delay, and the answer to a slider; and
its memory before and after eight pages at once.

    python benchmarks/studio.py --save

A portrait of 640 pixels (the bundled one, enlarged) is driven by the bundled clip as a webcam in Chromium. The delay goes from
the moment in which the page takes the camera's picture to the one in which the portrait made of it is on the canvas; the
answer to a slider from its move to its picture. Medians. On a slow machine live ends after 40 seconds at each size. Memory is
that of the server: after eight pages that brought a portrait each, and after eight more with the same ones. Under 3 minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

from export3d.cli.demo import sample_portraits, samples_folder
from export3d.files import file_sha256
from export3d.portrait.loading import checkpoint_path
from export3d.studio.socket import pack, unpack
from export3d.video import VideoReader
from material import machine, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from browser import browser, write_y4m

PORT = 7979
SIZES = (256, 512)
LONGEST_S = 40.0


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=150, help="live pictures at each size")
    parser.add_argument("--save", action="store_true", help="write results/studio.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, VideoReader(samples_folder() / "driving.mp4") as reader:
        frames = [np.pad(frame.image, ((0, 0), (42, 42), (0, 0)), mode="edge") for frame in reader]
        webcam = write_y4m(Path(folder) / "clip.y4m", frames, fps=30)
        photo = Path(folder) / "portrait.png"
        Image.open(sample_portraits()[0]).convert("RGB").resize((640, 640), Image.Resampling.LANCZOS).save(photo)
        command = [sys.executable, "-m", "export3d", "studio", "--no-browser", "--port", str(PORT), "--yes"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None and "Ctrl-C" in server.stdout.readline()
            with browser(webcam) as found:
                page = found.new_page(viewport={"width": 1280, "height": 900})
                page.goto(f"http://127.0.0.1:{PORT}/")
                page.wait_for_selector("#samples [aria-pressed=true]", timeout=60_000)
                page.set_input_files("#photo", str(photo))
                page.wait_for_selector("#samples [title='portrait.png'][aria-pressed=true]", timeout=60_000)
                rows = {f"live {size}": live(page, size, options.pictures) for size in SIZES}
                rows["slider"] = slider(page)
                page.close()
            rows["eight pages"] = eight_pages(server.pid)
        finally:
            server.terminate()
            server.wait(timeout=30)
    for name, row in rows.items():
        print(name, row)
    if options.save:
        weights = file_sha256(checkpoint_path(None))
        facts = {
            "unit": "pictures a second, ms, MB",
            "weights_sha256": weights,
            "load_before": round(load, 2),
            "rows": rows,
        }
        print(f"saved {save('studio', facts)}")
    print({key: machine()[key] for key in ("processor", "cores")}, f"load before: {load:.1f}")


def live(page: Any, size: int, pictures: int) -> dict[str, float]:
    """Pictures a second and ms of delay, medians of what the page shows after each ten pictures."""
    page.click("#tab-live")
    page.select_option("#live-form [name=size]", str(size))
    page.click("#live-start")
    rates, delays = [], []
    first, end = shown(page), time.monotonic() + LONGEST_S
    for count in range(50, pictures + 1, 10):
        while shown(page) < first + count and time.monotonic() < end:
            time.sleep(0.05)
        rates.append(float(page.get_attribute("#live-picture", "data-rate")))
        delays.append(float(page.get_attribute("#live-picture", "data-delay")))
    page.click("#live-start")
    return {"pictures_per_s": round(median(rates), 2), "delay_ms": round(median(delays), 1)}


def slider(page: Any) -> dict[str, float]:
    """ms from a slider's move to the picture: 256 while it is moved, the whole picture when it is let go."""
    page.click("#tab-face")
    page.wait_for_timeout(2000)
    found: dict[str, list[float]] = {"moving_256_ms": [], "at_rest_512_ms": []}
    for step in range(10):
        for name, event in (("moving_256_ms", "input"), ("at_rest_512_ms", "change")):
            before = page.get_attribute("#face-picture", "data-shown")
            page.evaluate(
                """([value, event]) => { const range = document.querySelector("#sliders input");
                range.value = value; range.dispatchEvent(new Event(event)); }""",
                [0.1 + 0.08 * step, event],
            )
            while page.get_attribute("#face-picture", "data-shown") == before:
                time.sleep(0.01)
            time.sleep(0.3)
            found[name].append(float(page.get_attribute("#face-picture", "data-ms")))
    return {name: median(values) for name, values in found.items()}


def shown(page: Any) -> int:
    """Pictures on the live canvas so far."""
    return int(page.get_attribute("#live-picture", "data-shown") or 0)


def eight_pages(server: int) -> dict[str, float]:
    """Memory of the server, MB, after eight pages at once, at the most during eight more, and after those."""
    photos = [path.read_bytes() for path in sample_portraits()]

    def page(number: int) -> None:
        with connect(f"ws://127.0.0.1:{PORT}/studio/socket") as line:
            header: dict[str, Any] = {"do": "portrait", "name": "a.jpg"}
            for turn in range(6):
                line.send(pack(header, b"" if turn else photos[number % len(photos)]))
                assert "error" not in unpack(line.recv())[0]
                most.append(resident_mb(server))
                header = {"do": "face", "wish": {"turn": [4 * turn, 0, 0]}}

    found: dict[str, float] = {}
    for name in ("before_mb", "after_mb"):
        most: list[float] = []
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(page, range(8)))
        time.sleep(2.0)
        found |= {"most_mb": max(most), name: resident_mb(server)}
    return found


def resident_mb(process: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


if __name__ == "__main__":
    main()
