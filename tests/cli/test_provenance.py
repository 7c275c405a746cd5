"""Provenance at the command line: restricted sources, consent, certificates, `export3d verify`."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export3d.provenance import ProvenanceOptions
from pictures import a_picture, a_video, encode

pytest.importorskip("mediapipe")
pytest.importorskip("c2pa")

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("EXPORT3D_CONFIG", str(folder))
    monkeypatch.delenv("EXPORT3D_YES", raising=False)
    return folder


@pytest.fixture
def still(inputs: Any, run: Run, out: Path) -> Callable[..., Any]:
    """Make a still with more options; returns the outcome and the picture's path."""

    def make(*extra: object, command: str = "animate") -> Any:
        files = ["--source", inputs.photo, "--model", inputs.model, "-o", out / "out.png", "--size", "256"]
        if command == "animate":
            files += ["--driving", inputs.photo]
        return run(command, *files, *extra)

    return make


@pytest.mark.parametrize("command", ["animate", "orbit"])
def test_a_portrait_that_is_not_in_the_list_is_refused(still: Run, out: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "allowed").mkdir()
    Image.fromarray(a_picture()).save(tmp_path / "allowed" / "somebody.png")
    done = still("--allow", tmp_path / "allowed", command=command)
    assert done.code == 51 and "this portrait is not among the allowed ones" in done.err
    assert list(out.iterdir()) == []


def test_a_resized_copy_of_an_allowed_portrait_passes(still: Run, inputs: Any, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    with Image.open(inputs.photo) as photo:
        small = photo.convert("RGB").resize((photo.width // 2, photo.height // 2))
        small.save(tmp_path / "allowed" / "copy.jpg", quality=70)
    assert still("--allow", tmp_path / "allowed").code == 0


def test_a_list_that_is_not_there_is_refused(still: Run, tmp_path: Path) -> None:
    done = still("--allow", tmp_path / "gone.txt")
    assert done.code == 51 and "gone.txt: neither a folder nor a readable text file" in done.err


def test_consent_is_signed_into_the_video(still: Run, run: Run, out: Path) -> None:
    assert still("--consent", "It is me, and I agree.").code == 0
    said = json.loads(run("verify", out / "out.png", "--json").out)[0]
    assert said["code"] == 0 and said["manifest"]["facts"]["consent"] == "It is me, and I agree."
    assert {"source_sha256", "driver_sha256", "model_sha256"} <= set(said["manifest"]["facts"])


def test_a_program_is_never_asked_for_consent(still: Run, config_folder: Path) -> None:
    assert still().code == 0 and not (config_folder / "consent.txt").exists()


def test_a_person_is_asked_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    from export3d.cli.provenance import find_consent

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "stdin", Terminal("My sister agreed.\n"))
    assert find_consent(ProvenanceOptions(yes=True)) is None and shown.getvalue() == ""
    assert find_consent(ProvenanceOptions()) == "My sister agreed." and "did they agree?" in shown.getvalue()
    assert find_consent(ProvenanceOptions()) == "My sister agreed."
    assert find_consent(ProvenanceOptions(consent="I agree.")) == "I agree."


def test_a_wrong_key_is_refused_before_any_work(still: Run, out: Path, tmp_path: Path) -> None:
    for name in ("own.pem", "own.key"):
        (tmp_path / name).write_text("hello")
    done = still("--certificate", tmp_path / "own.pem", "--key", tmp_path / "own.key")
    assert done.code == 50 and "own.pem: not a certificate in PEM form" in done.err and list(out.iterdir()) == []
    alone = still("--key", tmp_path / "own.key")
    assert alone.code == 2 and "belong together" in alone.err


def test_a_configuration_folder_that_cannot_be_used_gives_a_warning_and_the_picture(
    still: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXPORT3D_CONFIG", str(tmp_path / "file" / "config"))
    done = still()
    assert done.code == 0 and "warning: no signed manifest" in done.err
    assert [path.name for path in out.iterdir()] == ["out.png"]


def test_a_label_is_drawn_on_request_alone(still: Run, out: Path) -> None:
    pictures = []
    for extra in (["--no-mark"], ["--no-mark", "--label", "AI"], ["--no-mark", "--label", "AI", "--no-label"]):
        assert still(*extra).code == 0
        with Image.open(out / "out.png") as picture:
            pictures.append(np.asarray(picture))
    assert (pictures[0] == pictures[2]).all() and (pictures[0][220:] != pictures[1][220:]).any()


def test_verify_says_what_it_finds_and_the_highest_code_counts(still: Run, run: Run, out: Path, tmp_path: Path) -> None:
    assert still().code == 0
    other = encode(tmp_path / "other.mp4", a_video(num_frames=2, size=64))
    both = run("verify", out / "out.png", other, "--time-limit", "20")
    assert both.code == 62 and "manifest: valid. Made with Export3D" in both.out
    assert "invisible mark: found" in both.out and "invisible mark: not found in 2 frames" in both.out
    assert run("verify", out / "out.png").code == 0


def test_verify_and_files_that_are_neither_video_nor_picture(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "empty.png").touch()
    assert run("verify", tmp_path / "notes.txt").code == 21
    assert run("verify", tmp_path / "empty.png").code == 20
    gone = run("verify", tmp_path / "gone.mp4")
    assert gone.code == 20 and "gone.mp4: no such file" in gone.err
    assert run("verify").code == 2 and run("verify", tmp_path / "notes.txt", "--time-limit", "0").code == 2


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_yes_keeps_a_terminal_from_being_asked(inputs: Any, out: Path) -> None:
    """Through the real process at a real terminal that nobody types at."""
    controller, terminal = pty.openpty()
    files = ["--source", inputs.photo, "--driving", inputs.photo, "--model", inputs.model, "-o", out / "out.png"]
    line = [sys.executable, "-m", "export3d", "animate", *map(str, files), "--yes"]
    done = subprocess.run(line, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, timeout=120, check=False)
    os.close(terminal)
    os.close(controller)
    assert done.returncode == 0
