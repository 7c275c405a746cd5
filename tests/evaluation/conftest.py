"""What the tests of evaluation share: clips of two procedural heads with exact truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, three frames each, 32 pixels, split test; tests do not write into it."""
    folder = tmp_path_factory.mktemp("heads") / "clips"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
        render_clips(folder, ClipsConfig(identities=2, frames=3, size=32, supersample=1, quality="fast", split="test"))
    return folder
