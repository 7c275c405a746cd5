"""What the benchmarks share: a clip of a real face, the facts about the machine, and saving a result."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import struct
import sys
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.files import measured_now
from export3d.video import VideoWriter

RESULTS = Path(__file__).resolve().parents[1] / "results"
AUDIO_RATE_HZ = 44_100


def face_photo() -> np.ndarray:
    """scikit-image's astronaut, uint8 ``(512, 512, 3)``."""
    from skimage import data

    return data.astronaut()


def write_photo(path: Path) -> Path:
    """The photo as a file."""
    Image.fromarray(face_photo()).save(path)
    return path


def write_clip(path: Path, seconds: float, *, fps: Fraction = Fraction(25), side_px: int = 400) -> Path:
    """A clip of that length with sound: a window that wanders over the photo. Written frame by frame."""
    photo = face_photo()
    sound = path.with_suffix(".wav")
    _write_tone(sound, seconds)
    room = photo.shape[0] - side_px
    with VideoWriter(path, fps, (side_px, side_px), copy_audio_from=sound) as writer:
        for index in range(round(seconds * float(fps))):
            x = round(room * (0.5 + 0.4 * math.sin(index / 9.0)))
            y = round(room * (0.3 + 0.3 * math.sin(index / 13.0)))
            writer.write(np.ascontiguousarray(photo[y : y + side_px, x : x + side_px]))
    sound.unlink()
    return path


def machine() -> dict[str, Any]:
    """Facts about the machine that a timing depends on."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with command, commit, date, machine, and a seed of null where nothing is drawn."""
    RESULTS.mkdir(exist_ok=True)
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    facts = {"command": command, **measured_now(), "seed": None, "machine": machine(), **result}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _write_tone(path: Path, seconds: float) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(AUDIO_RATE_HZ)
        one_second = b"".join(
            struct.pack("<h", int(8000 * math.sin(math.tau * 440 * k / AUDIO_RATE_HZ))) for k in range(AUDIO_RATE_HZ)
        )
        whole = int(seconds)
        for _ in range(whole):
            sound.writeframes(one_second)
        sound.writeframes(one_second[: 2 * round((seconds - whole) * AUDIO_RATE_HZ)])
