"""`export3d batch`: many portraits or drivers in one run, from a table with one `animate` a row."""

from __future__ import annotations

import csv
import difflib
import io
import os
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import get_type_hints

import tyro

from export3d.cli.animate import AnimateOptions, run
from export3d.cli.common import Events, complain, entry, parse, say
from export3d.errors import Export3DError, UsageError
from export3d.reading import reading

REQUIRED = ("source", "driving", "output")
YES, NO = ("yes", "true", "1"), ("", "no", "false", "0")


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Run `animate` for each row of a table (CSV, UTF-8) whose first row names the columns.

    The columns source, driving and output are needed; any other option of `animate` can be one, without its dashes. A row whose
    output is newer than the files that it names is left out, so that a run that was stopped goes on where it was. A row that
    fails is named with its line and its exit code, and the others go on; the highest of these codes ends the run.
    """

    jobs: tyro.conf.Positional[Path]
    """The table. An empty cell leaves an option out; yes and no switch one that has no value; | stands between several
    drivers. Paths start where the command is called."""


@dataclass(frozen=True)
class Job:
    """One row: the line of the table on which it ends, and column -> cell."""

    line: int
    cells: dict[str, str]

    def argv(self) -> list[str]:
        """The arguments of `export3d animate`.

        Raises:
            UsageError: More cells than columns, or a cell that switches an option and is neither yes nor no.
        """
        words = []
        for name, cell in self.cells.items():
            if name not in switches():
                raise UsageError("more cells than columns; a cell with a comma stands in quotes.")
            if switches()[name] and cell.lower() not in YES + NO:
                raise UsageError(f"{name}: expected yes or no; got '{cell}'.")
            if switches()[name]:
                words += [f"--{name}"] if cell.lower() in YES else []
            elif cell:  # in one word with its option a value may begin with a dash; only several files cannot be
                words += [f"--{name}", *cell.split("|")] if name == "driving" else [f"--{name}={cell}"]
        return words

    def is_done(self) -> bool:
        """Whether the output is there, and newer than every file that the row names."""
        output = self.cells["output"]
        named = [part for name, cell in self.cells.items() if name != "output" for part in cell.split("|")]
        newest = max((os.path.getmtime(part) for part in named if os.path.isfile(part)), default=0.0)
        return os.path.isfile(output) and os.path.getmtime(output) > newest


@lru_cache
def switches(options: type = AnimateOptions) -> dict[str, bool]:
    """Name of each option of `animate`, as a column -> whether it is a switch without a value."""
    found: dict[str, bool] = {}
    kinds = get_type_hints(options)
    for field in fields(options):
        kind = kinds[field.name]
        if is_dataclass(kind):
            found |= switches(kind)
        else:
            name = field.name.strip("_").replace("_", "-")
            found[f"no-{name}" if kind is bool and field.default is True else name] = kind is bool
    return found


def read_jobs(path: Path) -> list[Job]:
    """The rows of a table; cells without the spaces around them.

    Raises:
        UsageError: No table, no row, or columns that `animate` does not have, that are missing, or are there twice.
    """
    with reading(
        path, "cannot be read as a table", UsageError, "Give a CSV file in UTF-8, its columns named in line 1."
    ):
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("zero bytes inside")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = [cell.strip() for cell in next(rows, [])]
        found = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(map(str.strip, row))]
    if unknown := [name for name in columns if name not in switches()]:
        near = difflib.get_close_matches(unknown[0], switches(), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{path}: the column '{unknown[0]}' is no option of `export3d animate`.{hint}")
    if wrong := [name for name in {*REQUIRED, *columns} if columns.count(name) != 1]:
        raise UsageError(f"{path}: expected one column '{sorted(wrong)[0]}'; got {columns.count(sorted(wrong)[0])}.")
    if not found:
        raise UsageError(f"{path}: no row below the names of the columns; expected one for each job.")
    # What is over in a row that is too long keeps a name, so that the row is refused when it is its turn.
    return [Job(line, dict(zip_longest(columns, row, fillvalue=""))) for line, row in found]


def run_jobs(options: BatchOptions) -> int:
    """Run the rows, one after the other; the highest exit code of those that failed."""
    table, jobs = options.jobs, read_jobs(options.jobs)
    from export3d.portrait import load_model

    load = lru_cache(maxsize=1)(load_model)  # rows with the same model, one after the other, share it
    outputs: dict[str, int] = {}
    skipped, codes = 0, []
    for number, job in enumerate(jobs):
        Events.tell("progress", stage="jobs", done=number, total=len(jobs))
        try:
            job_options = parse(AnimateOptions, job.argv(), command="animate", raising=True)
            _refuse(job_options, outputs.setdefault(os.path.realpath(job_options.output), job.line), job.line)
            if job.is_done():
                skipped += 1
                say(f"{job_options.output}: left as it is, newer than the files that it is made of", line=job.line)
            else:
                say(run(job_options, load=load, label=f"job {number + 1} of {len(jobs)}"), line=job.line)
        except Export3DError as error:
            codes.append(error.exit_code)
            complain(f"{table}, line {job.line}, exit code {error.exit_code}: {error}", error.exit_code, line=job.line)
    Events.tell("progress", stage="jobs", done=len(jobs), total=len(jobs))
    counts = {"made": len(jobs) - skipped - len(codes), "skipped": skipped, "failed": len(codes)}
    say(f"{table}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), **counts)
    return max(codes, default=0)


batch_main = entry("batch", BatchOptions, run_jobs)


def _refuse(options: AnimateOptions, first: int, line: int) -> None:
    """A row whose output another row makes, or that would never end.

    Raises:
        UsageError: Always for such a row.
    """
    if first != line:
        raise UsageError(f"{options.output}: line {first} makes this file already. Choose another output.")
    if any(str(path).startswith("vmc:") for path in options.driving):
        raise UsageError("a live sender has no end; call `export3d animate` for it.")
