"""`python tests/fuzz/kills.py --kills N --seed S -- COMMAND...`: stop a command at random moments, then let it finish.

After a kill no target may be there that is not whole; a signal that can be caught must leave no temporary file; after the
next run nothing else may be there, and every file as in an undisturbed run. The command names its folder as `{out}`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

STOPS = {"-9": (9,), "-15": (15,), "-1": (1,), "-2": (2,), "-2 -2": (2, 2)}


def contents(folder: Path, ignored: list[str]) -> dict[str, str]:
    """Name -> digest of every file but those that hold times and so never repeat."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ignored]
    return {str(path.relative_to(folder)): digest(path) for path in files}


def digest(path: Path) -> str:
    """Of a film the pictures count: its manifest of origin has another number and time in each run."""
    total = hashlib.sha256()
    if path.suffix != ".mp4":
        total.update(path.read_bytes())
        return total.hexdigest()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            total.update(f"{frame.pts}".encode() + frame.to_ndarray(format="rgb24").tobytes())
    return total.hexdigest()


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    """The command with its folder; signals reach it as from a terminal."""

    def as_in_a_terminal() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    words = [word.replace("{out}", str(out)) for word in command]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, **quiet, preexec_fn=as_in_a_terminal)


def main() -> int:
    """Kill, look, finish, compare; 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ignore", nargs="*", default=[], help="names of files that hold times and so never repeat")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = [word for word in options.command if word != "--"]
    rng, problems = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder) / "whole", Path(folder) / "killed"
        whole.mkdir()
        started = time.monotonic()
        assert start(command, whole).wait() == 0, "the command must work undisturbed"
        took = time.monotonic() - started
        wanted = contents(whole, options.ignore)
        codes: dict[str, list[int]] = {name: [] for name in STOPS}
        for number in range(options.kills):
            name = list(STOPS)[number % len(STOPS)]
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            process = start(command, out)
            time.sleep(took * rng.random())
            for signal_number in STOPS[name]:
                process.send_signal(signal_number)
                time.sleep(0.02)
            codes[name].append(process.wait(120))
            after = contents(out, options.ignore)
            if len(wanted) == 1 and any(after.get(target, value) != value for target, value in wanted.items()):
                problems.append(f"kill {number} ({name}): a partial target")
            if name != "-9" and any(".tmp" in path for path in after):
                problems.append(f"kill {number} ({name}): left {[path for path in after if '.tmp' in path]}")
            code, finished = start(command, out).wait(600), contents(out, options.ignore)
            if code != 0 or finished != wanted:
                different = sorted(n for n in {*finished, *wanted} if finished.get(n) != wanted.get(n))
                problems.append(f"kill {number} ({name}): the next run ended with {code}; differs in {different[:5]}")
    print("\n".join([*problems, f"{options.kills} kills, {len(problems)} not as promised; exit codes {codes}"]))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
