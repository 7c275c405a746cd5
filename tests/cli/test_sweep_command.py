"""`export3d sweep` from end to end with a tiny model, and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("mediapipe")


def test_a_photo_gives_a_sheet_with_a_row_per_vector(inputs: Any, run: Any, out: Path) -> None:
    sheet = out / "sheet.png"
    done = run("sweep", "--source", inputs.photo, "--model", inputs.model, "--vectors", 1, 2, "--steps", 3, "-o", sheet)
    assert done.code == 0, done.err
    assert done.out.strip() == f"{sheet}: 2 basis vectors, 3 pictures each"
    width, height = Image.open(sheet).size
    assert width % 3 == 0 and height == 2 * (width // 3 + 20)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--steps", 1), "--steps must be at least 2"),
        (("--vectors", 99), "--vectors 99"),
    ],
)
def test_wrong_options_are_explained(inputs: Any, run: Any, out: Path, extra: tuple[object, ...], message: str) -> None:
    done = run("sweep", "--source", inputs.photo, "--model", inputs.model, *extra, "-o", out / "sheet.png")
    assert done.code == 2 and message in done.err
    assert not list(out.iterdir())


def test_a_sheet_must_be_a_picture(inputs: Any, run: Any, out: Path) -> None:
    done = run("sweep", "--source", inputs.photo, "--model", inputs.model, "-o", out / "sheet.mp4")
    assert done.code == 2 and "must end in .png or .jpg" in done.err
