"""`python tests/fuzz/attack.py --files N --seed S`: damaged files through every reader; the table of docs/reliability.md.

Each kind runs in a process of its own, limited to 4 GB. A file is a failure if it gives anything but a typed error or a
value, takes over 20 s of the processor (or 120 s in all, on a machine that is busy), or lets the process grow over 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from damage import flipped
from facts import facts

LIMIT_BYTES, LIMIT_S, LIMIT_RESIDENT_KB = 4 << 30, 20, 1_500_000
LIMIT_ASLEEP_S = 120


class TooSlow(BaseException):
    """The alarm rang."""


def attempt(kind: str, good: Path, work: Path, content: bytes) -> tuple[str, str]:
    """What a damaged file does: `read`, `refused`, `hang` or `traceback`, and its text."""
    from readers import READERS

    from export3d.errors import Export3DError

    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good.parent, work)
    path = work / good.name
    path.write_bytes(content)
    try:
        READERS[kind].read(path)
    except Export3DError:
        return "refused", ""
    except TooSlow:
        return "hang", ""
    except BaseException:
        return "traceback", traceback.format_exc()
    return "read", ""


def attack(kind: str, files: int, seed: int, flips: int) -> dict[str, object]:
    """All files of one kind; counts, the slowest, the largest process, and examples of what failed."""
    from readers import READERS

    from export3d.errors import Export3DError

    def ring(*_: object) -> None:
        raise TooSlow

    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, ring)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "good").mkdir()
        good = READERS[kind].make(Path(folder) / "good")
        READERS[kind].read(good)
        content, work = good.read_bytes(), Path(folder) / "work"
        for number in range(files):
            signal.alarm(LIMIT_ASLEEP_S)
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            started = time.process_time()
            outcome, text = attempt(kind, good, work, READERS[kind].damage(content, seed + number))
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - started)
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                failures.append(f"seed {seed + number}: {outcome} {text}")
        for number in range(flips if READERS[kind].sealed else 0):
            outcome, text = attempt(kind, good, work, flipped(content, seed + number))
            counts[f"flip {outcome}"] += 1
            if outcome != "refused":
                failures.append(f"flip {seed + number}: {outcome} {text}")
    assert issubclass(Export3DError, Exception)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"counts": dict(counts), "slowest_s": round(slowest, 2), "resident_kb": resident, "failures": failures}


def _limited(pipe, *arguments) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    pipe.send(attack(*arguments))


def main() -> int:
    """Attack, print the table; 1 if anything failed."""
    from readers import READERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000, help="damaged files over all kinds")
    parser.add_argument("--flips", type=int, default=200, help="single-bit flips of each sealed kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(READERS))
    parser.add_argument("--json", type=Path, help="its rows of other kinds are kept")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    each = -(-options.files // len(options.kinds))
    rows, bad = {}, 0
    print("| kind | files | read | refused | traceback | hang | flips refused | slowest | largest process |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_limited, args=(theirs, kind, each, options.seed, options.flips))
        process.start()
        theirs.close()
        try:
            row = ours.recv()
        except EOFError:
            row = {
                "counts": {},
                "slowest_s": 0,
                "resident_kb": 0,
                "failures": [f"the process died, {process.exitcode}"],
            }
        process.join()
        rows[kind], counts = row, row["counts"]
        too_large = row["resident_kb"] > LIMIT_RESIDENT_KB
        bad += len(row["failures"]) + too_large
        flips = sum(n for name, n in counts.items() if name.startswith("flip"))
        shown = f"{counts.get('flip refused', 0)} of {flips}" if flips else "-"
        numbers = [counts.get(name, 0) for name in ("read", "refused", "traceback", "hang")]
        cells = [kind, each, *numbers, shown, f"{row['slowest_s']} s", f"{row['resident_kb'] // 1000} MB"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        for failure in row["failures"][:3]:
            print(failure, file=sys.stderr)
    if options.json:
        now = facts(options.seed)
        before = json.loads(options.json.read_text()) if options.json.is_file() else now | {"rows": {}}
        rows = {kind: row | {"run": now} for kind, row in rows.items()}
        options.json.write_text(json.dumps(before | {"rows": before["rows"] | rows}, indent=1) + "\n")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
