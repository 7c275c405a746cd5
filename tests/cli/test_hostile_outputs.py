"""Outputs that cannot take what they get: full disks, closed streams, odd names. A clear end, and never a lost film."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clips import clip_facts

pytest.importorskip("mediapipe")

EXPORT3D = [sys.executable, "-m", "export3d"]


def test_a_full_disk_under_a_sheet_is_one_error_and_leaves_nothing(out: Path) -> None:
    line = [
        *EXPORT3D,
        "heads",
        "sheet",
        "--kind",
        "random",
        "--identities",
        "1",
        "--size",
        "64",
        "-o",
        str(out / "a.png"),
    ]

    def limit_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit_size, check=False)
    assert done.returncode == 30 and "cannot be written (File too large)" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(out.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_that_cannot_be_printed_are_an_error_of_their_own() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*EXPORT3D, "info"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 30 and "Free some disk space" in done.stderr and "Traceback" not in done.stderr


def test_a_film_is_made_with_stderr_closed_ascii_output_and_a_name_of_odd_bytes(inputs: Any, out: Path) -> None:
    """Brackets are no markup; the byte 255 is no UTF-8; the terminal knows ASCII alone."""
    name = os.fsencode(out) + b"/[red]\xc3\xa4 \xff.mp4"
    files = ["--source", inputs.photo, "--driving", inputs.photo, "--model", inputs.model, "--no-manifest", "-o", name]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    line = [os.fsencode(str(word)) if not isinstance(word, bytes) else word for word in [*EXPORT3D, "animate", *files]]
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2), check=False)
    assert done.returncode == 0
    assert b"[red]" in done.stdout and done.stdout.isascii() and b"frames" in done.stdout
    assert [os.fsencode(path.name) for path in out.iterdir()] == [b"[red]\xc3\xa4 \xff.mp4"]


def test_brackets_in_a_name_are_shown_as_they_are(inputs: Any, run: Callable[..., Any], out: Path) -> None:
    done = run("animate", "--source", out / "[bold]me[/bold].png", "--driving", inputs.clip, "-o", out / "a.mp4")
    assert done.code == 20 and "[bold]me[/bold].png: no such image file" in done.err


def test_a_linked_name_is_followed_and_a_name_of_255_bytes_is_written(
    inputs: Any, run: Callable[..., Any], out: Path
) -> None:
    real, link, long = out / "real.mp4", out / "link.mp4", out / ("n" * 251 + ".mp4")
    real.write_bytes(b"old")
    link.symlink_to(real)
    for target in (link, long):
        files = ["--source", inputs.photo, "--driving", inputs.photo, "--model", inputs.model]
        assert run("animate", *files, "--no-manifest", "-o", target).code == 0
    assert link.is_symlink() and real.stat().st_size > 1000 and long.stat().st_size > 1000
    assert {path.name for path in out.iterdir()} == {"real.mp4", "link.mp4", long.name}


def test_two_films_at_once_into_one_name_are_both_right(inputs: Any, out: Path) -> None:
    files = ["--source", inputs.photo, "--driving", inputs.photo, "--model", inputs.model, "--no-manifest"]
    line = [*EXPORT3D, "animate", *map(str, files), "-o", str(out / "a.mp4")]
    both = [subprocess.Popen(line, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 2
    assert len(clip_facts(out / "a.mp4").times) == 50 and [path.name for path in out.iterdir()] == ["a.mp4"]


def test_the_advice_names_the_option_that_helps(inputs: Any, run: Callable[..., Any], out: Path) -> None:
    """Two faces in the driver are chosen from with --driving-face, two in the photo with --face."""
    photo = np.asarray(Image.open(inputs.photo))
    pair = out.parent / "pair.png"
    Image.fromarray(np.concatenate([photo, photo[:, ::-1]], axis=1)).save(pair)
    for files, option in (((inputs.photo, pair), "--driving-face"), ((pair, inputs.photo), "--face")):
        done = run("animate", "--source", files[0], "--driving", files[1], "--model", inputs.model, "-o", out / "a.mp4")
        assert done.code == 11 and f"Pass {option} largest, {option} left" in done.err


def test_an_animated_webp_says_what_to_convert_it_to(inputs: Any, run: Callable[..., Any], out: Path) -> None:
    moving, pages = out.parent / "a.webp", [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pages[0].save(moving, save_all=True, append_images=pages[1:])
    done = run("animate", "--source", inputs.photo, "--driving", moving, "--model", inputs.model, "-o", out / "a.mp4")
    assert done.code == 21 and "animated WebP" in done.err and "Convert it to mp4 or GIF" in done.err
