"""What a film does outside its output: no other process, no connection, no file but the user's own key."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from export3d.downloads import FACE_LANDMARKER, require

pytest.importorskip("mediapipe")

WATCHED = """
import json, os, sys
seen = []
def watch(event, details):
    if event == "open" and isinstance(details[0], (str, bytes)) and (details[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        seen.append([event, os.fsdecode(details[0])])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink"):
        seen.append([event, os.fsdecode(details[0 if event == "os.mkdir" else 1])])
    elif event in ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system", "socket.connect"):
        seen.append([event, repr(details)])
sys.addaudithook(watch)
from export3d.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "seen": seen, "modules": sorted(sys.modules)}, file)
"""


@pytest.fixture(scope="module")
def film(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A film made in a process that is watched, with an empty home; a local proxy stands for the whole network."""
    folder = tmp_path_factory.mktemp("watched")
    for name in ("home", "out", "temp"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(1)
        address = f"http://localhost:{proxy.getsockname()[1]}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "EXPORT3D_"))}
        environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temp"), "https_proxy": address}
        environment |= {"EXPORT3D_FACE_LANDMARKER": str(require(FACE_LANDMARKER)), "PYTHONDONTWRITEBYTECODE": "1"}
        files = [
            "--source",
            inputs.photo,
            "--driving",
            inputs.clip,
            "--model",
            inputs.model,
            "-o",
            folder / "out" / "a.mp4",
        ]
        line = [sys.executable, "-c", WATCHED, folder / "seen.json", "animate", *files]
        done = subprocess.run(list(map(str, line)), env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        try:
            connected = proxy.accept()[0].recv(200)
        except TimeoutError:
            connected = b""
    record = json.loads((folder / "seen.json").read_text())
    assert record["code"] == 0
    return record | {"folder": folder, "connected": connected}


def test_nothing_is_reported_over_the_network(film: dict[str, Any]) -> None:
    assert film["connected"] == b"", "MediaPipe's report"
    assert [event for event in film["seen"] if event[0] == "socket.connect"] == []


def test_no_other_program_is_started(film: dict[str, Any]) -> None:
    assert [event for event in film["seen"] if event[0] not in ("open", "os.mkdir", "os.rename")] == []
    assert not {"matplotlib", "sounddevice"} & set(film["modules"])


def test_nothing_is_written_but_the_film_and_the_local_key(film: dict[str, Any]) -> None:
    folder = film["folder"]
    allowed = (*(str(folder / name) for name in ("out", "home/.config", "seen.json")), os.devnull)
    assert [event for event in film["seen"] if not event[1].startswith(allowed)] == []
    left = {str(path.relative_to(film["folder"])) for path in film["folder"].rglob("*") if path.is_file()}
    assert left - {"home/.config/export3d/signing.pem"} == {"out/a.mp4", "seen.json"}
    assert list((film["folder"] / "temp").iterdir()) == []
