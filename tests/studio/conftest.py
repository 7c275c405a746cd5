"""What the tests of the studio share: a tiny model, a tracker without weights, a workshop, a picture file."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from clips import face_points
from export3d.portrait import PortraitModel, build_model, preset
from export3d.provenance import ProvenanceOptions
from export3d.studio.workshop import Stage, Workshop
from export3d.tracking import Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients


def picture_file(seed: int = 0, side: int = 160) -> bytes:
    """A PNG in which the stand-in tracker finds its face."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_tracker(lost: tuple[int, ...] = ()) -> Tracker:
    """A tracker whose face opens its mouth from frame to frame."""
    faces = [[] if i in lost else [face_points((80.0, 80.0), 40.0, 0.1 + 0.01 * i)] for i in range(20)]
    return Tracker(GivenLandmarks(faces), MeasuredCoefficients(), size=32)


@pytest.fixture(scope="session")
def tiny_model() -> PortraitModel:
    """Random weights, moved off their start values, at which the expression would have no effect; the maps read weights."""
    torch.manual_seed(1)
    model = build_model(preset("tiny-portrait")).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for part in model.cues.shapes:
        part.set_map(0.05 * torch.randn_like(part.weight), torch.full_like(part.bias, 0.2))
    return model


@pytest.fixture
def make_workshop(tiny_model: PortraitModel) -> Iterator[Callable[..., Workshop]]:
    """Workshops that are closed at the end."""
    made: list[Workshop] = []

    def make(**given: Any) -> Workshop:
        given.setdefault("provenance", ProvenanceOptions(no_label=True, no_mark=True, no_manifest=True))
        made.append(Workshop(tiny_model, make_tracker, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def workshop(make_workshop: Callable[..., Workshop]) -> Workshop:
    """A workshop."""
    return make_workshop()


@pytest.fixture
def stage(workshop: Workshop) -> Stage:
    """A client's stage in it."""
    return workshop.submit(workshop.stage, picture_file(), "photo.png").result()
