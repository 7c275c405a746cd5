"""The Dockerfile, which cannot be built in a test: what it copies, installs, calls and serves is what the project has."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from export3d.cli.common import parse
from export3d.cli.models import GetCommand
from export3d.cli.studio import StudioOptions
from export3d.downloads import CATALOGUE, FACE_LANDMARKER
from export3d.provenance.consent import YES_VARIABLE

ROOT = Path(__file__).parents[1]
LINES = [
    tuple(line.split(maxsplit=1))
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
PROJECT = (ROOT / "pyproject.toml").read_text()


def given(instruction: str) -> list[str]:
    """What stands behind an instruction, each time it is there."""
    return [rest for name, rest in LINES if name == instruction]


def commands() -> list[list[str]]:
    """The words of every command that is run while it is built."""
    return [shlex.split(part) for rest in given("RUN") for part in rest.split("&&")]


def test_what_is_copied_is_there_and_is_all_that_an_install_reads() -> None:
    copied = {name for rest in given("COPY") for name in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    readme = re.findall(r'^readme = "(.*)"', PROJECT, re.MULTILINE)
    assert {"pyproject.toml", "setup.py", "src", *readme} <= copied
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == copied


def test_what_is_installed_is_what_the_project_names() -> None:
    installs = [words for words in commands() if words[:2] == ["pip", "install"]]
    torch = next(word for words in installs for word in words if word.startswith("torch=="))
    assert torch in (ROOT / "constraints.txt").read_text().splitlines()
    (own,) = [word for words in installs for word in words if word.startswith(".[")]
    extras = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert all(re.search(rf"^{extra} = ", extras, re.MULTILINE) for extra in own[2:-1].split(","))
    python = re.match(r"python:(\d+)\.(\d+)-slim", given("FROM")[0])
    assert python is not None and (3, 10) <= tuple(map(int, python.groups())) < (3, 13)


def test_the_face_landmarker_is_fetched_by_the_user_who_serves() -> None:
    names = [name for name, _ in LINES]
    assert given("USER") != ["root"]
    fetched = next(i for i, (name, rest) in enumerate(LINES) if name == "RUN" and "models get" in rest)
    assert names.index("USER") < fetched
    (words,) = [words for words in commands() if words[:2] == ["export3d", "models"]]
    assert words[2] == "get"
    wanted = parse(GetCommand, words[3:], command="models get")
    assert CATALOGUE[wanted.name] is FACE_LANDMARKER


def test_what_is_started_is_the_studio_at_the_port_that_is_exposed() -> None:
    program, command, *words = json.loads(given("CMD")[0])
    assert (program, command) == ("export3d", "studio")
    options = parse(StudioOptions, words, command="studio")
    assert (options.host, str(options.port), options.browser) == ("0.0.0.0", given("EXPOSE")[0], False)
    assert given("ENV") == [f"{YES_VARIABLE}=1"]


@pytest.mark.parametrize("serving", [True, False])
def test_health_is_whether_the_port_answers(serving: bool) -> None:
    command = json.loads(given("HEALTHCHECK")[0].partition("CMD")[2])
    assert command[0] == "python" and given("EXPOSE")[0] in command[2]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        if not serving:
            listener.close()
        run = subprocess.run([sys.executable, "-c", command[2].replace(given("EXPOSE")[0], port)], capture_output=True)
    assert (run.returncode == 0) == serving
