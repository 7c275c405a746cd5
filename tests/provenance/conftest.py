"""A configuration folder of each test's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder that does not exist yet; nothing is remembered from other tests."""
    folder = tmp_path / "config"
    monkeypatch.setenv("EXPORT3D_CONFIG", str(folder))
    monkeypatch.delenv("EXPORT3D_YES", raising=False)
    return folder
