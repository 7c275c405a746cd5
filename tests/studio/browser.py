"""A real browser for tests: Debian's Chromium through Playwright, with a clip in place of a webcam."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

CHROMIUM = os.environ.get("EXPORT3D_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "--autoplay-policy=no-user-gesture-required",
]


def write_y4m(path: Path, frames: Sequence[np.ndarray], fps: int = 15) -> Path:
    """Frames uint8 ``(H, W, 3)`` as the file that Chromium takes for a webcam."""
    height, width = frames[0].shape[:2]
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in frames:
            planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").to_ndarray(
                format="yuv420p"
            )
            file.write(b"FRAME\n" + planes.tobytes())
    return path


@contextmanager
def browser(webcam: Path | None = None, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Playwright's browser."""
    from playwright.sync_api import sync_playwright

    flags = [*FLAGS, *flags] + ([] if webcam is None else [f"--use-file-for-fake-video-capture={webcam}"])
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield found
        finally:
            found.close()
