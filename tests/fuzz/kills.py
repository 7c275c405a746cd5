"""`python tests/fuzz/kills.py --kills N --seed S`: stop five commands at random moments, then let the next run finish.

After a kill every file that has its final name must be whole; a signal that can be caught must leave no temporary file; after
the next run nothing else may be there, and every file must be as in an undisturbed run. Two at once into one folder: one is
refused or both are right. Files that differ between two undisturbed runs hold times and are not compared.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing.util
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image
from safetensors import safe_open

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from facts import facts  # noqa: E402

import export3d.cli  # noqa: E402
from clips import make_clip, panned_frames  # noqa: E402
from export3d.tensor_files import content_digest  # noqa: E402

for module in ("animate", "heads", "prepare", "train"):
    importlib.import_module(f"export3d.cli.{module}")

STOPS = {"-9": (9,), "-15": (15,), "-1": (1,), "-2": (2,), "-2 -2": (2, 2)}
LOOSE = re.compile(r"state-\d+|metrics\.jsonl$|seconds")
"""Which states are kept depends on when a run was stopped; times are never the same."""

TINY = "--preset tiny --device cpu --threads 1 --log-every 5 --state-every 10 --sheet-every 20"
COMMANDS = {
    "animate": "animate --source {made}/photo.png --driving {made}/a.mp4 --model {made}/train/model.safetensors "
    "-o {out}/film.mp4 --no-manifest --no-mark --threads 1",
    "heads render": "heads render --identities 3 --frames 4 --size 64 --quality fast --workers 1 -o {out}",
    "prepare": "prepare {made}/videos -o {out} --size 64 --workers 1 --min-frames 8 --min-face-px 50 --min-sharpness 1",
    "pretrain": f"pretrain --data {{made}}/heads {TINY} --steps 60 -o {{out}}",
    "train": f"train --data {{made}}/heads --expression {{made}}/pretrain {TINY} --samples 120 -o {{out}}",
}
"""`{made}` is a folder of inputs, `{out}` an empty one."""


class Run:
    """A command in a process of its own, forked from this one, which has imported everything: only what it does takes time.
    Signals reach it as from a terminal."""

    def __init__(self, command: str, made: Path, out: Path) -> None:
        words = [word.format(made=made, out=out) for word in COMMANDS[command].split()]
        self.pid, self.code = os.fork(), None
        if self.pid == 0:
            code = 1
            try:
                code = self._work(words)
            except KeyboardInterrupt:  # before the program has begun, as the interpreter ends of it
                code = 128 + signal.SIGINT
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = 600) -> int:
        """The exit code; `TimeoutError` where it never ends."""
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} did not end in {seconds} s")
            time.sleep(0.02)
        return self.code or 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _work(self, words: list[str]) -> int:
        """In the child: as `python -m export3d` begins and ends."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        sys.modules["__main__"] = importlib.import_module("export3d.__main__")  # what its workers import
        code = export3d.cli.main(words)
        multiprocessing.util._exit_function()
        return code


def make_inputs(made: Path) -> None:
    """A photo, clips, rendered heads, and a model trained on them."""
    (made / "videos").mkdir()
    Image.fromarray(panned_frames(1, (256, 256))[0]).save(made / "photo.png")
    make_clip(made / "a.mp4", num_frames=50, audio="aac")
    for number in range(4):
        frames = [(frame * (1 - 0.1 * number)).astype(np.uint8) for frame in panned_frames(16, (200, 200))]
        make_clip(made / "videos" / f"v{number}.mp4", frames=frames, audio=None)
    for command, name in (("heads render", "heads"), ("pretrain", "pretrain"), ("train", "train")):
        (made / name).mkdir()
        assert Run(command, made, made / name).wait() == 0, f"{command} must work undisturbed"


def contents(folder: Path) -> dict[str, str]:
    """Name -> digest of every file."""
    return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(path: Path) -> str:
    """Of a tensor file that of its contents: the library puts the entries of a header in another order each time."""
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, framework="pt") as opened:
        return content_digest(opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}, "")


def is_whole(path: Path) -> bool:
    """Whether a file that has its final name can be read to its end."""
    try:
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                return all(len(archive.extractfile(member).read()) == member.size for member in archive)
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".png":
            Image.open(path).load()
        if path.suffix == ".safetensors":
            digest(path)
        if path.suffix == ".mp4":
            with av.open(str(path)) as film:
                return len(list(film.decode(video=0))) > 0
    except Exception as error:  # whatever the reader says, it is not whole
        print(f"{path.name}: {error}", file=sys.stderr)
        return False
    return True


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.tmp*")]


def compare(got: dict[str, str], wanted: dict[str, str], varying: set[str]) -> list[str]:
    """Names that differ, but for those that never repeat."""
    names = {name for name in {*got, *wanted} if not LOOSE.search(name)}
    return sorted(name for name in names if (name in got) != (name in wanted)) + sorted(
        name for name in names - varying if name in got and name in wanted and got[name] != wanted[name]
    )


def undisturbed(command: str, made: Path) -> tuple[dict[str, str], set[str], float]:
    """Contents of a whole run, the names that differ in a second one, and seconds; kept beside the inputs."""
    kept_at = made / f"undisturbed {command}.json"
    if not kept_at.is_file():
        runs, out = [], made / "out"
        for _ in range(2):
            out.mkdir()
            started = time.monotonic()
            assert Run(command, made, out).wait() == 0
            took = time.monotonic() - started
            runs.append(contents(out))
            shutil.rmtree(out)
        varying = [name for name in runs[0] if runs[0][name] != runs[1].get(name)]
        kept_at.write_text(json.dumps([runs[0], varying, took]))
    wanted, varying, took = json.loads(kept_at.read_text())
    return wanted, set(varying), took


def stopped(command: str, made: Path, out: Path, signals: tuple[int, ...], after_s: float) -> int | None:
    """The exit code of a command that got the signals after a while; None if it had ended before."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    process = Run(command, made, out)
    time.sleep(after_s)
    if process.poll() is not None:
        return None
    for signal_number in signals:
        process.send_signal(signal_number)
        time.sleep(0.02)
    return process.wait(120)


def attack(command: str, made: Path, out: Path, options: argparse.Namespace) -> dict[str, object]:
    """Kill, look, finish, compare."""
    rng, until = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    problems, codes, moments = [], {name: [] for name in STOPS}, []
    wanted, varying, took = undisturbed(command, made)
    while len(moments) < options.kills and time.monotonic() < until:
        name = list(STOPS)[(options.seed + len(moments)) % len(STOPS)]
        where = f"kill {len(moments)} ({name})"
        moment = rng.uniform(0.1, 1.0)
        if (code := stopped(command, made, out, STOPS[name], took * moment)) is None:
            continue  # a command that has ended cannot be killed: another moment
        moments.append(round(moment, 2))
        codes[name].append(code)
        final = [path for path in out.rglob("*") if path.is_file() and ".tmp" not in path.name]
        partial = [path.name for path in final if not is_whole(path)]
        if partial:
            problems.append(f"{where}: not whole: {partial}")
        if name != "-9" and code > 0 and leftovers(out):
            problems.append(f"{where}: left {leftovers(out)}")
        code = Run(command, made, out).wait(600)
        different = compare(contents(out), wanted, varying)
        if code != 0 or different or leftovers(out):
            problems.append(f"{where}: the next run ended with {code}; differs in {different[:5]} {leftovers(out)}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    both = [Run(command, made, out) for _ in range(2)]
    ended = sorted(process.wait(600) for process in both)
    different = compare(contents(out), wanted, varying)
    if ended[0] != 0 or different or leftovers(out):
        problems.append(f"two at once: ended with {ended}; differ in {different[:5]} {leftovers(out)}")
    return {
        "kills": len(moments),
        "moments": moments,
        "exit_codes": codes,
        "two_at_once": [ended],
        "problems": problems,
        "files_compared": len(wanted) - len(varying),
    }


def kept(path: Path, command: str, row: dict[str, object], seed: int) -> dict[str, object]:
    """The row with what the file holds of the same command, and the file with the sum."""
    now = facts(seed)
    rows = json.loads(path.read_text())["rows"] if path.is_file() else {}
    row["runs"] = [now]
    if old := rows.get(command):
        row["kills"] += old["kills"]
        row["exit_codes"] = {name: [*old["exit_codes"][name], *codes] for name, codes in row["exit_codes"].items()}
        for name in ("moments", "two_at_once", "problems", "runs"):
            row[name] = [*old[name], *row[name]]
    path.write_text(json.dumps(now | {"rows": rows | {command: row}}, indent=1) + "\n")
    return row


def main() -> int:
    """All commands, the table; 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new kill after as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--inputs", type=Path, help="a folder to make the inputs in, or where they are")
    parser.add_argument("--json", type=Path, help="the kills in it are kept, these are added")
    options = parser.parse_args()
    bad = 0
    print("| command | kills | not as promised | exit codes | two at once |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        made = options.inputs or Path(folder) / "made"
        if not made.is_dir():
            made.mkdir()
            make_inputs(made)
        for command in options.only:
            row = attack(command, made, Path(folder) / "out", options)
            if options.json:
                row = kept(options.json, command, row, options.seed)
            bad += len(row["problems"])
            shown = "; ".join(
                f"{name}: {', '.join(map(str, sorted(set(codes))))}" for name, codes in row["exit_codes"].items()
            )
            ends = "; ".join(f"{first} and {second}" for first, second in row["two_at_once"])
            print(f"| {command} | {row['kills']} | {len(row['problems'])} | {shown} | {ends} |", flush=True)
            print("\n".join(row["problems"]), file=sys.stderr, flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
