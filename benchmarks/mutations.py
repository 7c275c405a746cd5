"""Breaks the code on purpose and asks whether a test notices: the named mutations, or a seeded sample of small ones.

    python benchmarks/mutations.py named
    python benchmarks/mutations.py sample --count 120 --seed 0 --minutes 20 --save
    python benchmarks/mutations.py sample --count 120 --seed 0 --minutes 20 --save --first 91    # the same sample goes on
    python benchmarks/mutations.py again --save    # the survivors once more, after tests were written

The source is copied; nothing in the working tree is touched. A mutant is killed when a test fails, an import breaks or the
tests run out of time. Each process of tests is forked from one that has PyTorch loaded.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy  # noqa: F401  loaded before the forks
import pytest
import torch

from named_mutations import NAMED, Named

ROOT = Path(__file__).parents[1]
LEFT_OUT = "not (papers_shapes or counts_are_printed or preset_can_be_built)"
"""What builds the paper's 245 million parameters takes too long."""

NEAREST = {
    "model": "tests/model tests/portrait/test_loading.py",
    "rendering": "tests/rendering tests/portrait/test_march.py tests/provenance/test_mark.py",
    "expression": "tests/expression tests/training/test_pretrain.py tests/training/test_networks.py",
    "training/losses": "tests/training/test_losses.py tests/training/test_networks.py tests/training/test_perceptual.py "
    "tests/training/test_adversary.py",
    "evaluation/metrics": "tests/evaluation/test_metrics.py tests/evaluation/test_bootstrap.py "
    "tests/evaluation/test_consistency.py tests/evaluation/test_synthetic.py tests/evaluation/test_backends.py "
    "tests/evaluation/test_picture_distance.py tests/evaluation/test_backend_accuracy.py "
    "tests/evaluation/test_scoring.py tests/evaluation/test_dlib_identity.py "
    "tests/evaluation/test_face_crops.py",
}
"""Folder of the sample -> the tests that stand nearest to it."""

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.USub: ast.UAdd},
}


@dataclass(frozen=True)
class Mutant:
    """One change: lines `first` to `last` (from 1) of a file become `text`."""

    path: str
    first: int
    last: int
    text: str
    what: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every single small change of a module's functions: operators, comparisons, numbers, conditions, left-out statements."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for statement in function.body:
                for node in _walk(statement):
                    yield from _changes(path, lines, node)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of error texts, formatted strings (whose columns are not known) and nested functions."""
    if not isinstance(node, (ast.Raise, ast.JoinedStr, ast.FunctionDef)):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def _changes(path: Path, lines: list[str], node: ast.AST) -> Iterator[Mutant]:
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.UnaryOp)) and type(node.op) in _SWAPS:
        before = type(node.op).__name__
        node.op = _SWAPS[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        before = type(node.ops[0]).__name__
        node.ops[0] = _SWAPS[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        before = repr(node.value)
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, (ast.AugAssign, ast.Expr)) and not isinstance(getattr(node, "value", None), ast.Constant):
        yield Mutant(*_place(path, lines, node, "pass"), what=f"left out: {ast.unparse(node)[:80]}")
        return
    else:
        return
    yield Mutant(*_place(path, lines, node, f"({ast.unparse(node)})"), what=f"{before} -> {ast.unparse(node)[:80]}")


def _place(path: Path, lines: list[str], node: ast.expr | ast.stmt, text: str) -> tuple[str, int, int, str]:
    """The lines that the node touches, with its own part replaced by `text`."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    head = lines[first].encode()[: node.col_offset].decode()
    tail = lines[last].encode()[node.end_col_offset :].decode()
    return str(path), first + 1, last + 1, head + text + tail


def killed_by(tests: list[str], source: Path, limit_s: float) -> str | None:
    """The first failing test of a process forked for the purpose, `timeout`, `crash`; None if all pass."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.path.insert(0, str(source))
        os.environ["PYTHONPATH"] = str(source)
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1), os.dup2(silent, 2)
        seen = _FirstFailure()
        code = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", LEFT_OUT, *tests], plugins=[seen]
        )
        os.write(writing, (seen.name or ("" if code == 0 else f"pytest ended with {int(code)}")).encode()[:4000])
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + limit_s
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return "timeout"
        time.sleep(0.05)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read()
    return said.decode() or None


class _FirstFailure:
    """A pytest plugin that keeps the name of the first test or import that failed."""

    name: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid


def run_named(source: Path, only: str | None) -> int:
    """Make each named mutation and run its tests; the number of survivors."""
    survivors = 0
    for mutation in NAMED:
        if only is not None and only not in mutation.name:
            continue
        path = source / "export3d" / mutation.path
        before = path.read_text(encoding="utf-8")
        path.write_text(mutated(before, mutation), encoding="utf-8")
        killer = killed_by(mutation.test.split(), source, 300.0)
        path.write_text(before, encoding="utf-8")
        survivors += killer is None
        print(f"{mutation.name}: {'SURVIVED' if killer is None else f'killed by {killer}'}", flush=True)
    return survivors


def mutated(text: str, mutation: Named) -> str:
    """The module with the mutation in it."""
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: '{mutation.old}' must stand once in {mutation.path}")
    return text.replace(mutation.old, mutation.new)


def run_sample(source: Path, args: argparse.Namespace) -> dict[str, object]:
    """Seeded mutants, folder by folder in turn, from number `first` until `count` or the time is used up."""
    rng = random.Random(args.seed)
    queues = {}
    for folder in args.folders or NEAREST:
        paths = sorted(p for p in (source / "export3d" / folder).rglob("*.py"))
        found = [m for p in paths for m in mutants_of(p)]
        rng.shuffle(found)
        queues[folder] = found
    until = time.monotonic() + 60.0 * args.minutes
    limits = {folder: _limit(folder, source) for folder in queues}
    survivors, counts = [], {folder: {"mutants": 0, "killed": 0, "possible": len(q)} for folder, q in queues.items()}
    for number in range(args.count):
        folder = list(queues)[number % len(queues)]
        if time.monotonic() > until or not queues[folder]:
            break
        mutant = queues[folder].pop()
        if number < args.first:
            continue
        killer = killer_of(mutant, folder, source, limits[folder])
        counts[folder]["mutants"] += 1
        counts[folder]["killed"] += killer is not None
        if killer is None:
            survivors.append(named(mutant, source))
            print(f"survived: {survivors[-1]['place']}  {mutant.what}", flush=True)
    return {"folders": counts, "survivors": survivors}


def killer_of(mutant: Mutant, folder: str, source: Path, limit_s: float) -> str | None:
    """Make the change, run the nearest tests, take it back."""
    path = Path(mutant.path)
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    path.write_text("".join([*lines[: mutant.first - 1], mutant.text, *lines[mutant.last :]]), encoding="utf-8")
    killer = killed_by(NEAREST[folder].split(), source, limit_s)
    path.write_text(before, encoding="utf-8")
    return killer


def named(mutant: Mutant, source: Path) -> dict[str, str]:
    """How a survivor stands in the file."""
    return {"place": f"{Path(mutant.path).relative_to(source / 'export3d')}:{mutant.first}", "change": mutant.what}


def run_again(source: Path, args: argparse.Namespace) -> dict[str, object]:
    """The survivors in results/mutations.json once more; counts and list as they are now, `sample` as it was drawn."""
    earlier = json.loads((ROOT / "results" / "mutations.json").read_text(encoding="utf-8"))
    survivors, counts = list(earlier["survivors"]), earlier["folders"]
    until = time.monotonic() + 60.0 * args.minutes
    limits: dict[str, float] = {}
    for wanted in earlier["survivors"]:
        folder = next(name for name in NEAREST if wanted["place"].startswith(f"{name}/"))
        module = source / "export3d" / wanted["place"].rpartition(":")[0]
        found = [m for m in mutants_of(module) if named(m, source) == wanted] if time.monotonic() < until else []
        for mutant in found[:1]:
            limits[folder] = limits.get(folder) or _limit(folder, source)
            killer = killer_of(mutant, folder, source, limits[folder])
            print(f"{wanted['place']}  {wanted['change']}: {killer or 'SURVIVED'}", flush=True)
            if killer is not None:
                survivors.remove(wanted)
                counts[folder]["killed"] += 1
    kept = ("command", "date", "commit", "seed", "mutants", "killed")
    sample = earlier.get("sample") or {name: earlier[name] for name in kept}
    return {"folders": counts, "survivors": survivors, "sample": sample}


def _add_earlier(result: dict[str, object], args: argparse.Namespace) -> None:
    """Add what the first slices of the same sample gave."""
    earlier = json.loads((ROOT / "results" / "mutations.json").read_text(encoding="utf-8"))
    if (earlier["seed"], earlier["mutants"]) != (args.seed, args.first):
        raise SystemExit(f"results/mutations.json holds {earlier['mutants']} mutants of seed {earlier['seed']}")
    result["survivors"] = earlier["survivors"] + result["survivors"]  # type: ignore[operator]
    for folder, counts in result["folders"].items():  # type: ignore[attr-defined]
        for name in ("mutants", "killed"):
            counts[name] += earlier["folders"][folder][name]


def _limit(folder: str, source: Path) -> float:
    """Three times what the unchanged code needs, and a little; refuses to start where that does not pass."""
    start = time.monotonic()
    failed = killed_by(NEAREST[folder].split(), source, 600.0)
    if failed is not None:
        raise SystemExit(f"{folder}: {failed} fails on the unchanged code")
    print(f"{folder}: its tests take {time.monotonic() - start:.0f} s", flush=True)
    return 3.0 * (time.monotonic() - start) + 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("named", "sample", "again"))
    parser.add_argument("--only", help="named: those whose name holds this")
    parser.add_argument("--folders", nargs="*", choices=list(NEAREST))
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="so many are in results/mutations.json already")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--save", action="store_true", help="write results/mutations.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        sys.dont_write_bytecode = True
        if args.what == "named":
            return 1 if run_named(source, args.only) else 0
        result = run_again(source, args) if args.what == "again" else run_sample(source, args)
    if args.first:
        _add_earlier(result, args)
    counts = list(result["folders"].values())  # type: ignore[attr-defined]
    made, killed = (sum(c[name] for c in counts) for name in ("mutants", "killed"))
    print(f"{killed} of {made} killed ({100 * killed / max(made, 1):.0f} %)")
    if args.save:
        from material import save  # here: no part of the package may be loaded before a fork

        seed = result["sample"]["seed"] if args.what == "again" else args.seed  # type: ignore[index]
        save("mutations", {"seed": seed, "mutants": made, "killed": killed, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
