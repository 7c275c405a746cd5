"""Clips and runs that several tests of training share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from export3d.fitting import detections

_SPEC = importlib.util.spec_from_file_location("training_clips", Path(__file__).with_name("clips.py"))
assert _SPEC is not None and _SPEC.loader is not None
clips = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clips)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny clips with masks, depths and backgrounds; two are for validation."""
    folder = tmp_path_factory.mktemp("clips")
    return clips.write_clips(folder / "data", clips=6, splits=("train", "train", "val"))


@pytest.fixture(scope="session")
def small_clip_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Side in pixels -> two clips of that size; the tiny presets have 32."""
    folder = tmp_path_factory.mktemp("sizes")
    return {size: clips.write_clips(folder / str(size), clips=2, size=size) for size in (24, 50)}


@pytest.fixture(scope="session")
def plain_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny clips without masks, as from real videos."""
    folder = tmp_path_factory.mktemp("plain")
    return clips.write_clips(folder / "data", clips=3, truth=False)


@pytest.fixture
def named() -> SimpleNamespace:
    """A face tracker that has a name and sees nothing."""
    return SimpleNamespace(info=SimpleNamespace(name="given"))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, detections.Detections]:
    """Detections by the name of the folder, in place of clips and face tracker."""
    given: dict[str, detections.Detections] = {}
    monkeypatch.setattr(detections, "ClipDataset", lambda path: path)
    monkeypatch.setattr(detections, "detect_or_load", lambda path, *_: given[path.name])
    return given
