"""PyTorch as commands import it: the same to calculate with, and what was left out comes when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import export3d
from export3d.cli.pytorch import SHAPES, import_pytorch

PROGRAM = f"""
import sys
from export3d.cli.pytorch import import_pytorch
import_pytorch()
import torch
assert "{SHAPES}" not in sys.modules and not hasattr(torch, "_meta_registrations")
values = torch.arange(12.0).reshape(3, 4)
def median(of):
    return torch.nanmedian(of, 0)[0]
assert median(values).tolist() == [4.0, 5.0, 6.0, 7.0]
try:
    median(values.to("meta"))
    raise SystemExit("its shape is told already: the test could not fail")
except NotImplementedError:
    pass
import {SHAPES}
assert median(values.to("meta")).shape == (4,)
"""


def test_what_is_left_out_comes_with_its_import() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)


def test_where_pytorch_is_imported_already_nothing_changes() -> None:
    import torch

    before = sys.modules.get(SHAPES)
    import_pytorch()
    assert sys.modules.get(SHAPES) is before and hasattr(torch, "_meta_registrations")


def test_a_picture_is_made_without_it(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    source = Path(export3d.__file__).parent / "assets" / "samples" / "portrait_1.png"
    program = f'import sys\nfrom export3d.cli import main\nsys.exit(main(sys.argv[1:]) or "{SHAPES}" in sys.modules)'
    command = ["orbit", "--source", str(source), "--no-manifest", "-o", str(tmp_path / "picture.png")]
    subprocess.run([sys.executable, "-c", program, *command], check=True, timeout=120)
    assert Image.open(tmp_path / "picture.png").size == (128, 128)
