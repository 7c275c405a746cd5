"""What a results file says of its own making: command, seed, date, commit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from export3d.files import measured_now


def facts(seed: int) -> dict[str, object]:
    """Command with paths shortened to names, seed, date, and the commit of the code that runs."""
    command = shlex.join(["python", f"tests/fuzz/{Path(sys.argv[0]).name}", *(_short(word) for word in sys.argv[1:])])
    return {"command": command, "seed": seed, **measured_now()}


def _short(word: str) -> str:
    return Path(word).name if word.startswith("/") else word
