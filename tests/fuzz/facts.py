"""What a results file says of its own making: command, seed, date, commit."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path


def facts(seed: int) -> dict[str, object]:
    """Command with paths shortened to names, seed, date, and the commit of the checkout (`+` where files were changed)."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    ).stdout
    command = shlex.join(["python", f"tests/fuzz/{Path(sys.argv[0]).name}", *(_short(word) for word in sys.argv[1:])])
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"command": command, "seed": seed, "date": date, "commit": commit + "+" * bool(changed)}


def _short(word: str) -> str:
    return Path(word).name if word.startswith("/") else word
