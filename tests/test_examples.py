"""The examples run as they stand, and leave what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

from export3d.video import VideoReader

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_example_makes_a_video_and_five_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "portrait_to_views.py"))
    with Image.open(tmp_path / "out" / "example" / "views.png") as views:
        assert views.width == 5 * views.height
    with VideoReader(tmp_path / "out" / "example" / "talking.mp4") as video:
        assert video.width == 3 * video.height
