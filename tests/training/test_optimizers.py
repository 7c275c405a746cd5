"""Making an optimiser leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, torch
from export3d.training.loop.optimizers import make_adam
layer = torch.nn.Linear(2, 2)
optimizer = make_adam([{"params": list(layer.parameters())}], 0.1, (0.9, 0.99), torch.device("cpu"))
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
"""


@pytest.mark.slow
def test_no_folder_is_left_among_the_temporary_files(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}
    line = [sys.executable, "-c", CODE]
    done = subprocess.run(
        line, env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
