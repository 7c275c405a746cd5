"""`export3d batch`: rows become `animate` options, what is done is skipped, a bad row is named and the others go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export3d.cli import batch
from export3d.cli.animate import AnimateOptions
from export3d.errors import NoFaceError, OutputError
from export3d.stopping import raise_stopped

Run = Callable[..., Any]
HEAD = "source,driving,output"
OPTIONS = Path(__file__).parents[1] / "assets" / "options.txt"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write `jobs.csv` into the current folder, where ann.jpg and clip.mp4 lie too."""
    monkeypatch.chdir(tmp_path)
    for name in ("ann.jpg", "clip.mp4"):
        Path(name).write_bytes(b"-")
        os.utime(name, (1000, 1000))

    def write(text: str) -> Path:
        Path("jobs.csv").write_text(text, encoding="utf-8")
        return Path("jobs.csv")

    return write


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[AnimateOptions]:
    """Stands in for `animate`: notes the options and writes the output; a source `no*` has no face,
    `disk*` fills the disk, and at `stop*`, if it is the second call, SIGTERM comes."""
    calls: list[AnimateOptions] = []

    def animate(options: AnimateOptions, **_: Any) -> str:
        calls.append(options)
        if options.source.name.startswith("no"):
            raise NoFaceError("no face here")
        if options.source.name.startswith("disk"):
            raise OutputError("disk full")
        if options.source.name.startswith("stop") and len(calls) == 2:
            raise_stopped(signal.SIGTERM)
        options.output.write_bytes(b"-")
        return f"{options.output}: made"

    monkeypatch.setattr(batch, "run", animate)
    return calls


def test_a_row_becomes_the_options_that_the_command_line_would_give(table: Run, made: list[Any], run: Run) -> None:
    columns = "regions,relative,no-gaze,from,size,no-mark,label,side-by-side,coefficients"
    row = 'ann.jpg,a.mp4|b.mp4,o.mp4,"lips,jaw", Yes ,1,sound,64,TRUE,-- made by a machine,no,arkit52'
    assert run("batch", table(f"{HEAD},{columns}\n{row}\n")).code == 0
    files = {"source": Path("ann.jpg"), "driving": (Path("a.mp4"), Path("b.mp4")), "output": Path("o.mp4")}
    wanted = AnimateOptions(**files, regions="lips,jaw", relative=True, gaze=False, from_="sound", size=64)
    provenance = replace(wanted.provenance, no_mark=True, label="-- made by a machine")
    reads = replace(wanted.reads, coefficients="arkit52")
    assert made == [replace(wanted, provenance=provenance, reads=reads)]


def test_every_option_of_animate_can_be_a_column() -> None:
    lines = OPTIONS.read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("animate --") for line in lines if line.startswith("animate --")} <= set(batch.switches())


def test_what_is_newer_than_its_files_is_left_and_a_changed_file_makes_it_again(
    table: Run, made: list[Any], run: Run
) -> None:
    jobs = table(f"{HEAD},pose-from\nann.jpg,clip.mp4,a.mp4,\nann.jpg,clip.mp4|clip.mp4,b.mp4,turn.mp4\n")
    Path("turn.mp4").write_bytes(b"-")
    os.utime("turn.mp4", (1000, 1000))
    first, second = run("batch", jobs), run("batch", jobs)
    assert first.code == second.code == 0 and len(made) == 2
    assert "a.mp4: left as it is" in second.out and second.out.endswith("jobs.csv: 0 made, 2 skipped, 0 failed\n")
    os.utime("turn.mp4", (1e10, 1e10))
    assert run("batch", jobs).out.endswith("1 made, 1 skipped, 0 failed\n")
    assert [str(options.output) for options in made] == ["a.mp4", "b.mp4", "b.mp4"]
    Path("a.mp4").unlink()
    assert run("batch", jobs).out.startswith("a.mp4: made")


def test_a_stopped_run_goes_on_where_it_was(table: Run, made: list[Any], run: Run) -> None:
    jobs = table(f"{HEAD}\n" + "".join(f"{name},clip.mp4,{name}.mp4\n" for name in ("ann.jpg", "stop.jpg", "bob.jpg")))
    assert run("batch", jobs).code == 143 and len(made) == 2
    done = run("batch", jobs)
    assert done.code == 0 and done.out.endswith("2 made, 1 skipped, 0 failed\n")
    assert [options.source.stem for options in made] == ["ann", "stop", "stop", "bob"]


def test_bad_rows_are_named_with_line_and_code_and_the_highest_code_ends_the_run(
    table: Run, made: list[Any], run: Run
) -> None:
    rows = ["nobody.jpg,clip.mp4,a.mp4,", "disk.jpg,clip.mp4,b.mp4,", "ann.jpg,clip.mp4,c.mp4,large"]
    rows += [
        "ann.jpg,,d.mp4,",
        "",
        "ann.jpg,clip.mp4,./b.mp4,",
        "ann.jpg,vmc:39539,e.mp4,",
        "ann.jpg,clip.mp4,f.mp4,,7",
    ]
    done = run("batch", table("\n".join([f"{HEAD},size", *rows, "ann.jpg,clip.mp4,good.mp4,"])))
    assert done.code == 30 and done.out == "good.mp4: made\njobs.csv: 1 made, 0 skipped, 7 failed\n"
    assert "error: jobs.csv, line 2, exit code 10: no face here error:" in done.err
    assert "line 3, exit code 30: disk full" in done.err
    assert "line 4, exit code 2: Error parsing --size" in done.err and "'large'" in done.err
    assert "line 5, exit code 2: Missing from export3d animate: --driving" in done.err
    assert "line 7, exit code 2: b.mp4: line 3 makes this file already" in done.err
    assert "line 8, exit code 2: a live sender has no end" in done.err
    assert "line 9, exit code 2: more cells than columns" in done.err
    assert "╭" not in done.err


def test_a_switch_that_is_neither_yes_nor_no_is_refused(table: Run, made: list[Any], run: Run) -> None:
    done = run("batch", table(f"{HEAD},relative\nann.jpg,clip.mp4,a.mp4,perhaps\n"))
    assert (
        done.code == 2 and "line 2, exit code 2: relative: expected yes or no; got 'perhaps'" in done.err and not made
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "jobs.csv: expected one column 'driving'; got 0."),
        ("source,driving\na,b\n", "jobs.csv: expected one column 'output'; got 0."),
        (f"{HEAD},size,size\na,b,c,1,1\n", "jobs.csv: expected one column 'size'; got 2."),
        (
            f"{HEAD},strenght\na,b,c,1\n",
            "the column 'strenght' is no option of `export3d animate`. Did you mean 'strength'?",
        ),
        (f"{HEAD}\n,,\n", "jobs.csv: no row below the names of the columns"),
        (f'{HEAD}\na,"b"c,d\n', "jobs.csv: cannot be read as a table (',' expected after '\"')"),
        (f"{HEAD}\na,\0,d\n", "jobs.csv: cannot be read as a table (zero bytes inside)"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_any_work(
    table: Run, made: list[Any], run: Run, text: str, message: str
) -> None:
    done = run("batch", table(text))
    assert done.code == 2 and message in done.err and not made and done.out == ""


def test_a_missing_table_and_one_that_is_no_text_are_refused(table: Run, run: Run, tmp_path: Path) -> None:
    assert "gone.csv: cannot be read as a table (No such file or directory)" in run("batch", "gone.csv").err
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    done = run("batch", "a.csv")
    assert done.code == 2 and "Give a CSV file in UTF-8" in done.err


def test_portraits_are_animated_with_one_load_of_the_model_and_told_in_events(
    inputs: Any, run: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mediapipe")
    from export3d import portrait

    loads: list[Any] = []
    real = portrait.load_model
    monkeypatch.setattr(portrait, "load_model", lambda *a, **k: (loads.append(a), real(*a, **k))[1])
    rows = [f"{inputs.photo},{inputs.photo},{out / name},{inputs.model},face" for name in ("a.png", "b.mp4")]
    rows.insert(1, f"{tmp_path / 'gone.png'},{inputs.photo},{out / 'c.png'},{inputs.model},face")
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("\n".join([f"{HEAD},model,framing", *rows]), encoding="utf-8")
    done = run("batch", jobs, "--json")
    assert done.code == 20 and done.err == "" and len(loads) == 1
    events = [json.loads(line) for line in done.out.splitlines()]
    told = [(event["event"], event.get("line")) for event in events if event["event"] != "progress"]
    assert told == [("result", 2), ("error", 3), ("result", 4), ("result", None)]
    assert [event["done"] for event in events if event.get("stage") == "jobs"] == [0, 1, 2, 3]
    assert [event["code"] for event in events if event["event"] == "error"] == [20]
    assert {name: events[-1][name] for name in ("made", "skipped", "failed")} == {"made": 2, "skipped": 0, "failed": 1}
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.mp4"]
    assert {event["stage"] for event in events if event["event"] == "progress"} == {"jobs", "job 3 of 3"}
