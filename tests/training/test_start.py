"""Starting weights: equal configurations, and the ways in which a start may be smaller than the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.errors import TrainingError
from export3d.model import Export3D, save_model
from export3d.model.config import TINY, ModelConfig
from export3d.model.neck import NeckConfig
from export3d.model.source_depth import SourceDepthConfig
from export3d.model.source_lookup import SourceLookupConfig
from export3d.rendering.renderer import RendererConfig
from export3d.training.phases.train_inputs import start_weights

SMALLER = replace(
    TINY,
    source_lookup=SourceLookupConfig(enabled=True, channels=2, width=4),
    renderer=RendererConfig(raw_size=16, num_coarse=8, num_fine=8),
    superres=replace(TINY.superres, start_size=None),
)
GROWN = replace(SMALLER, generator=replace(SMALLER.generator, motion_basis=2))
WITH_DEPTH = SourceDepthConfig(enabled=True, channels=2, widths=(4, 4, 6, 8))


@pytest.mark.parametrize(
    "bigger",
    [
        GROWN,
        replace(SMALLER, source_depth=WITH_DEPTH),
        replace(SMALLER, upper_face=True),
        replace(SMALLER, upper_face=True, lower_face=True),
        replace(SMALLER, neck=NeckConfig(enabled=True)),
        replace(GROWN, source_depth=WITH_DEPTH, upper_face=True, lower_face=True, neck=NeckConfig(enabled=True)),
    ],
    ids=["motion_basis", "source_depth", "upper_face", "both_faces", "neck", "all"],
)
def test_a_smaller_start_is_grown_and_keeps_its_weights(tmp_path: Path, bigger: ModelConfig) -> None:
    model = Export3D(SMALLER)
    save_model(tmp_path / "start.safetensors", model)
    tensors, _ = start_weights(tmp_path / "start.safetensors", bigger)
    again, _ = start_weights(tmp_path / "start.safetensors", bigger)
    grown = Export3D(bigger)
    grown.load_state_dict(tensors)
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_any_other_difference_is_refused_and_shown(tmp_path: Path) -> None:
    save_model(tmp_path / "start.safetensors", Export3D(SMALLER))
    other = replace(GROWN, generator=replace(GROWN.generator, blocks=3))
    with pytest.raises(TrainingError, match="blocks"):
        start_weights(tmp_path / "start.safetensors", other)
