"""`--json`: all that a command tells is one JSON object a line on stdout, and stderr stays empty."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clips import make_clip
from export3d import stopping
from export3d.cli import common

Run = Callable[..., Any]


def events_of(done: Any) -> list[dict[str, Any]]:
    """Each line of stdout; anything that is no JSON object fails."""
    events = [json.loads(line) for line in done.out.splitlines()]
    assert all(isinstance(event, dict) and "event" in event for event in events)
    return events


@pytest.fixture
def animate(inputs: Any, run: Run, out: Path) -> Run:
    """`animate --json` on good files, except for those given."""
    pytest.importorskip("mediapipe")

    def call(*extra: object, **changed: Path) -> Any:
        files = {
            "source": inputs.photo,
            "driving": inputs.clip,
            "model": inputs.model,
            "output": out / "o.mp4",
        } | changed
        return run("animate", *(word for name, path in files.items() for word in (f"--{name}", path)), *extra, "--json")

    return call


def test_progress_counts_the_frames_and_the_result_comes_last(animate: Run, out: Path) -> None:
    done = animate("--framing", "face")
    events = events_of(done)
    assert done.code == 0 and done.err == ""
    assert [event["event"] for event in events] == ["progress"] * (len(events) - 1) + ["result"]
    assert all(event["stage"] == "animating" and event["total"] == 8 for event in events[:-1])
    counts = [event["done"] for event in events[:-1]]
    assert counts == sorted(counts) and counts[-1] == 8
    assert events[-1]["message"].startswith(f"{out / 'o.mp4'}: 8 frames, 25 fps, 180x180")


def test_a_lost_face_is_a_warning_before_the_result(animate: Run, tmp_path: Path) -> None:
    done = animate(driving=make_clip(tmp_path / "blank.mp4", num_frames=8, size=(192, 192), blank=(3, 4)))
    events = events_of(done)
    lost = {"event": "warning", "message": "no face in 2 frames, which show the last expression before them: 3-4"}
    assert (done.code, done.err) == (0, "") and lost in events and events[-1]["event"] == "result"


def test_a_missing_manifest_is_a_warning(animate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    done = animate("--framing", "face")
    (warning,) = (event for event in events_of(done) if event["event"] == "warning")
    assert "manifest" in warning["message"] and "c2pa" in warning["message"] and (done.code, done.err) == (0, "")


def test_an_error_is_the_only_event_and_has_the_exit_code(animate: Run, tmp_path: Path, out: Path) -> None:
    done = animate(source=tmp_path / "nobody.jpg")
    (error,) = events_of(done)
    assert (error["event"], error["code"], done.code, done.err) == ("error", 20, 20, "")
    assert error["message"] == f"{tmp_path / 'nobody.jpg'}: no such image file." and list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["animate", "--source", "a", "--driving", "b", "-o", "c.mp4", "--size", "tall"], "Error parsing --size"),
        (["animate", "--source", "a", "--driving", "b"], "Missing from export3d animate: -o PATH, --output"),
        (["orbit", "--source", "a", "-o", "c.mp4", "--siez", "3"], "Unrecognized options: --siez"),
        (["anmate"], "'anmate' is not a command. Did you mean 'animate'?"),
        (["train", "--preset", "tinny"], "'tinny' is not known"),
        (["train", "--no-such-option"], "The options cannot be used"),
    ],
)
def test_wrong_options_are_an_error_with_code_2(run: Run, words: list[str], message: str) -> None:
    done = run(*words, "--json")
    (error,) = events_of(done)
    assert (error["event"], error["code"], done.code) == ("error", 2, 2) and message in error["message"]


def test_a_stop_is_an_error_with_the_code_of_the_signal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from export3d.cli import info

    monkeypatch.setattr(info, "collect", lambda _: stopping.raise_stopped(signal.SIGTERM))
    monkeypatch.setattr("export3d.cli.JSON_OF_THEIR_OWN", ())
    done = run("info", "--json")
    (error,) = events_of(done)
    assert (error["event"], error["code"], done.code) == ("error", 143, 143)


def test_other_commands_tell_events_alone(inputs: Any, run: Run, out: Path) -> None:
    pytest.importorskip("mediapipe")
    small = ["--identities", "1", "--size", "32"]
    for words, stages in (
        (["orbit", "--source", inputs.photo, "-o", out / "o.png", "--model", inputs.model], set()),
        (["track", inputs.clip, "-o", out / "m.safetensors"], None),
        (["heads", "sheet", "--kind", "random", *small, "-o", out / "s.png"], set()),
        (["heads", "render", *small, "--frames", "1", "--workers", "1", "-o", out / "heads"], None),
        (["models", "list"], set()),
    ):
        done = run(*words, "--json")
        events = events_of(done)
        assert done.code == 0 and events[-1]["event"] == "result" and "{" not in done.err, words
        found = {event["stage"] for event in events if event["event"] == "progress"}
        assert found if stages is None else found == stages, words


def test_people_get_no_json_and_letters_beyond_ascii_stay(capsys: pytest.CaptureFixture[str]) -> None:
    common.Events.on = False
    common.say("plain", line=3)
    assert capsys.readouterr().out == "plain\n"
    common.Events.on = True
    try:
        common.say("schön\nhere", line=3)
    finally:
        common.Events.on = False
    assert capsys.readouterr().out == '{"event": "result", "message": "schön\\nhere", "line": 3}\n'
