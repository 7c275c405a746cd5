"""What the tests of the commands share: a photo, a clip and a tiny model with random weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

from clips import make_clip
from export3d.cli import main
from export3d.portrait import build_model, preset, save_model


@dataclass(frozen=True)
class Inputs:
    """Good files, shared by all tests and never written to."""

    photo: Path
    clip: Path
    model: Path


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    photo = folder / "astronaut.png"
    Image.fromarray(data.astronaut()[:320, 60:380]).save(photo)
    clip = make_clip(folder / "clip.mp4", num_frames=8, size=(192, 192))
    torch.manual_seed(0)
    model = folder / "tiny.safetensors"
    save_model(model, build_model(preset("tiny-portrait")))
    return Inputs(photo, clip, model)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Call `export3d` in this process and catch its exit code and both streams."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, " ".join(err.split()))

    return call


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def picture(path: Path, image: np.ndarray) -> Path:
    """Save a uint8 image."""
    Image.fromarray(image).save(path)
    return path
