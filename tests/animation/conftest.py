"""What the tests of animation share: the clip maker, a tiny model, a tracker without weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from clips import face_points
from export3d.animation import Animator
from export3d.portrait import PortraitModel, build_model, preset
from export3d.tracking import Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

MakeTracker = Callable[[Sequence[int], Sequence[int]], Tracker]


@pytest.fixture(scope="session")
def tiny_model() -> PortraitModel:
    """Random weights, moved off their start values, at which the expression would have no effect (zero EAdaLN)."""
    torch.manual_seed(1)
    model = build_model(preset("tiny-portrait")).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def make_tracker() -> Callable[..., Tracker]:
    """Tracker whose face opens its mouth from frame to frame; in the `lost` frames there is none."""

    def make(num_frames: int = 20, lost: Sequence[int] = ()) -> Tracker:
        entries = [
            [] if index in lost else [face_points((80.0 + index % 3, 80.0), 40.0, 0.1 + 0.01 * index)]
            for index in range(num_frames)
        ]
        return Tracker(GivenLandmarks(entries), MeasuredCoefficients(), size=32)

    return make


@pytest.fixture
def photo() -> np.ndarray:
    """A source picture in which the stand-in tracker finds its face."""
    return np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)


@pytest.fixture
def animator(tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray) -> Animator:
    """An animator that has its portrait."""
    made = Animator(tiny_model, make_tracker())
    made.portrait(photo)
    return made
