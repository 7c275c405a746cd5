"""What the commands share: option parsing, progress bars, the tracker, the one result line."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from functools import reduce
from itertools import takewhile
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from export3d.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from export3d.animation import VideoReport
    from export3d.animation.video_output import Progress
    from export3d.training.loop.run import Progress as LoopProgress

Options = TypeVar("Options")
Entry = Callable[[Sequence[str]], int]


def entry(command: str, options: type[Options], run: Callable[..., str | int | None], *, typed: bool = False) -> Entry:
    """What the `export3d` command calls with a command's words: options are read, `run` gets them.

    Args:
        run: gives the result line, an exit code other than 0, or None.
        typed: `run` also gets the command as it was typed, for the files that say how they were made.
    """

    def main(argv: Sequence[str]) -> int:
        chosen = parse(options, argv, command=command)
        return _finished(run(chosen, _typed(command, argv)) if typed else run(chosen))

    return main


def entry_of_parts(
    command: str,
    parts: dict[str, tuple[type, Callable[..., str | int | None]]],
    *,
    typed: Sequence[str] = (),
    pairs: bool = False,
) -> Entry:
    """The same for a command with subcommands: name -> its options and what runs it.

    Args:
        typed: subcommands that also get the command as it was typed.
        pairs: see `parse`.
    """
    import tyro

    kinds: Any = reduce(or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in parts.items()))

    def main(argv: Sequence[str]) -> int:
        options = parse(kinds, argv, command=command, pairs=pairs)
        name, run = next((name, run) for name, (kind, run) in parts.items() if isinstance(options, kind))
        return _finished(run(options, *([_typed(command, argv)] if name in typed else [])))

    return main


def _typed(command: str, argv: Sequence[str]) -> str:
    return shlex.join(["export3d", command, *argv])


def _finished(result: str | int | None) -> int:
    if isinstance(result, str):
        say(result)
        return 0
    return result or 0


def parse(
    options: type[Options], argv: Sequence[str], *, command: str, raising: bool = False, pairs: bool = False
) -> Options:
    """Read a command's options; a wrong one is explained on stderr with the nearest name, exit code 2.

    Args:
        pairs: switches have a `--no-` form too.

    Raises:
        UsageError: A wrong option, with `raising` or `--json`: nothing is printed then.
    """
    import tyro

    said = io.StringIO()
    try:
        with redirect_stderr(said) if raising or Events.on else nullcontext():
            return tyro.cli(
                options,
                args=list(argv),
                prog=f"export3d {command}",
                config=(tyro.conf.OmitArgPrefixes, *(() if pairs else (tyro.conf.FlagCreatePairsOff,))),
            )
    except SystemExit as stop:
        # The words of the box that the parser drew, up to the line above its help.
        words = [line.strip("│ ") for line in said.getvalue().splitlines() if line.startswith("│")]
        if not stop.code or not words:
            raise
        raise UsageError(" ".join(takewhile(lambda line: not line.startswith("─"), words))) from None


class Events:
    """With `--json` all that a command tells goes to stdout, one JSON object a line."""

    on = False

    @classmethod
    def tell(cls, event: str, **facts: Any) -> bool:
        """Print one event; false where people are talked to instead."""
        if cls.on:
            print(json.dumps({"event": event, **facts}, ensure_ascii=False), file=sys.stdout, flush=True)
        return cls.on


def _bar(console: Console, **how: Any) -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=console, **how)


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Progress]:
    """A progress bar on stderr; where stderr is not a terminal nothing is drawn."""
    if Events.on:
        yield lambda done: (Events.tell("progress", stage=label, done=done, total=total), None)[1]
        return
    from rich.console import Console

    # A copy of the descriptor: the face tracker silences descriptor 2 itself for moments, and the bar with it.
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as stream:
        console = Console(file=stream)
        with _bar(console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done, total=max(done, total) if total else None)


@contextmanager
def stage_bars(console: Console, *, transient: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each stage, told its name, how much is done, and how much there is."""
    with _bar(console, transient=transient, disable=transient and not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if Events.tell("progress", stage=stage, done=done, total=total):
                return
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell


@contextmanager
def training_display(console: Console, is_main: bool) -> Iterator[Callable[[LoopProgress], None]]:
    """A bar, messages and logged numbers of a training run in the main process, nothing in the others."""
    bar = _bar(console, disable=not is_main)
    task = bar.add_task("training", total=1)
    shown: dict[str, float] = {}

    def show(progress: LoopProgress) -> None:
        nonlocal shown
        if not is_main:
            return
        if Events.on:
            Events.tell("progress", stage="training", done=progress.step, total=progress.total_steps)
            return
        if progress.message is not None:
            console.print(progress.message, markup=False, highlight=False)
        rate = f"{progress.samples_per_s:.1f} samples/s"
        bar.update(task, completed=progress.step, total=progress.total_steps, description=rate)
        if progress.metrics and progress.metrics is not shown:
            shown = progress.metrics
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in sorted(progress.metrics.items()))
            console.print(f"step {progress.step}: {numbers}", markup=False, highlight=False, soft_wrap=True)

    with bar:
        yield show


def result_line(report: VideoReport) -> str:
    """The one line on stdout that says what was made."""
    if report.frames == 1:
        made = "1 picture"
    else:
        made = f"{report.frames} frames, {float(report.fps):.6g} fps"
    lost = f", face lost in {report.lost} frames" if report.lost else ""
    return f"{report.path}: {made}, {report.width}x{report.height}{lost}, {report.ms_per_frame:.0f} ms per frame"


def warn_of_gaps(report: VideoReport, on_lost: str) -> None:
    """Say on stderr in which frames the face was lost, what was done about it, and where another shot begins."""
    if report.cuts:
        shown = _some([str(index) for index in report.cuts])
        warn(f"warning: another shot begins with frame {shown} of the driving clip")
    if not report.gaps:
        return
    shown = _some([str(first) if first == last else f"{first}-{last}" for first, last in report.gaps])
    done = "were left out" if on_lost == "skip" else "show the last expression before them"
    other = f" ({report.others} of them have another face, which is not followed)" if report.others else ""
    warn(f"warning: no face in {report.lost} frames{other}, which {done}: {shown}")


def _some(words: list[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def warn_of_damage(path: Path, problems: Sequence[str]) -> None:
    """Say on stderr what of a clip was damaged, and that the frame before it stays in its place."""
    if problems:
        warn(f"warning: {path}: {'; '.join(problems)}. The frame before a damaged one stays longer.")


def check_targets(*targets: tuple[Any, ...]) -> None:
    """Fail before the work, not after it: each file's name must end in one of its suffixes, and be a place to write to.

    Raises:
        UsageError: Another suffix.
        OutputError: No such folder, a folder in its place, or it cannot be written.
    """
    from export3d.video.target import check_writable

    for path, *suffixes in targets:
        if path is not None and suffixes and path.suffix.lower() not in suffixes:
            raise UsageError(f"{path}: the file's name must end in {' or '.join(suffixes)}.")
        if path is not None:
            check_writable(path)


def refuse_overwriting_inputs(output: Path, *inputs: Path) -> None:
    """Raise a `UsageError` where the output is one of the files that are read."""
    for given in inputs:
        if given.exists() and output.exists() and given.samefile(output):
            raise UsageError(f"{output}: the output would overwrite the input {given}. Choose another -o name.")


def check_threads(threads: int) -> None:
    """Raise a `UsageError` where no number of threads can be meant."""
    if threads < 0:
        raise UsageError(f"--threads must be 0 (automatic) or more; got {threads}.")


def set_threads(threads: int) -> None:
    """Let PyTorch use so many threads; 0 leaves its own choice."""
    check_threads(threads)
    if threads:
        import torch

        torch.set_num_threads(threads)


def pick_device(name: str) -> str:
    """`auto` becomes `cuda` where there is a GPU, else `cpu`."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no CUDA GPU here. Use --device cpu, or leave it out.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def warn(line: str) -> None:
    """Print on stderr, if it takes anything: a warning must not cost what was made."""
    if Events.tell("warning", message=line.removeprefix("warning: ")):
        return
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def say(line: str, /, **facts: Any) -> None:
    """Print a result on stdout at once; the facts are for programs alone."""
    if not Events.tell("result", message=line, **facts):
        print(line, file=sys.stdout, flush=True)


def complain(message: str, code: int = OutputError.exit_code, /, **facts: Any) -> None:
    """Print an error on stderr; the facts are for programs alone."""
    from rich.console import Console

    with suppress(OSError):  # with stderr closed or full the exit code has to say it alone
        if Events.tell("error", message=message, code=code, **facts):
            return
        console = Console(stderr=True, soft_wrap=True)
        console.print("[bold red]error:[/bold red] ", end="")
        console.print(message, markup=False, highlight=False)
