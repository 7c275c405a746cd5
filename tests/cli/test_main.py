"""The dispatcher: help, unknown commands, exit codes, light imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from export3d import errors
from export3d.cli import COMMANDS, help_text, main


def test_help_names_every_command_and_first_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS) and "export3d demo" in text
    assert max(len(line) for line in help_text().splitlines()) <= 100


def test_no_command_prints_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: export3d COMMAND" in capsys.readouterr().out


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "export3d 0.2.0\n"


def test_an_unknown_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anmate", "--source", "x"]) == 2
    err = capsys.readouterr().err
    assert "'anmate' is not a command. Did you mean 'animate'?" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "given", "wanted"),
    [("animate", None, "PASSIVE"), ("animate", "ACTIVE", "ACTIVE"), ("train", None, None)],
)
def test_threads_of_commands_that_use_a_model_sleep_while_they_wait_unless_told_otherwise(
    command: str, given: str | None, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"PATH": ""} | ({} if given is None else {"OMP_WAIT_POLICY": given}))
    assert main([command, "--no-such-option"]) == 2
    assert os.environ.get("OMP_WAIT_POLICY") == wanted


def test_an_unknown_option_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animate", "--source", "a", "--driving", "b", "-o", "c.mp4", "--sid-by-side"]) == 2
    assert "--side-by-side" in capsys.readouterr().err


def test_a_missing_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animate", "--source", "a", "-o", "c.mp4"]) == 2
    assert "--driving" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["animate", "orbit", "demo", "info", "verify"])
def test_every_option_of_a_command_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: export3d {name}" in text
    boxed = " ".join(line.strip("│ ") for line in text.splitlines())
    for option in boxed.split(" --")[2:]:  # after --help
        if option.startswith("-"):  # the line under the heading of a group
            continue
        words = option.split("(default")[0].split("(required")[0].split()
        assert len(words) >= 4, f"--{option} has no explanation"


def test_every_listed_command_can_be_imported_or_lies_in_a_missing_extra() -> None:
    import importlib

    for name, command in COMMANDS.items():
        module = importlib.import_module(f"export3d.cli.{command.module}")
        assert callable(getattr(module, f"{name.replace('-', '_')}_main"))


def test_every_error_has_its_own_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes) and 0 not in codes and 130 not in codes


def test_importing_the_package_and_the_command_line_stays_light() -> None:
    code = (
        "import sys, export3d, export3d.cli; export3d.__version__; "
        "print([name for name in ('torch', 'mediapipe', 'torchvision', 'tyro', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_of_animate_does_not_wait_for_pytorch() -> None:
    code = "import sys, export3d.cli.animate; print([name for name in ('torch', 'mediapipe', 'av') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_the_public_names_bring_no_face_tracker_and_no_web_framework() -> None:
    code = (
        "import sys, export3d; [getattr(export3d, name) for name in export3d.__all__]; "
        "heavy = ('mediapipe', 'torchvision', 'fastapi', 'flask', 'starlette', 'gradio', 'aiohttp', 'tornado'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import export3d

    with pytest.raises(AttributeError, match="has no attribute 'Animotor'"):
        export3d.Animotor  # noqa: B018


def test_output_into_a_closed_pipe_ends_quietly() -> None:
    line = f"{sys.executable} -m export3d --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
