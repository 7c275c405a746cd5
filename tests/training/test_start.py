"""Starting weights: the model must be the same; what differs is refused and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.errors import TrainingError
from export3d.model.config import TINY
from export3d.portrait import PORTRAIT_PRESETS, build_model, save_model
from export3d.training.phases.train_inputs import start_weights

PORTRAIT = PORTRAIT_PRESETS["tiny-portrait"]


def test_a_start_of_the_same_model_keeps_every_weight(tmp_path: Path) -> None:
    model = build_model(PORTRAIT)
    save_model(tmp_path / "start.safetensors", model)
    tensors, digest = start_weights(tmp_path / "start.safetensors", PORTRAIT)
    assert len(digest) == 64
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())


def test_another_size_is_refused_and_shown(tmp_path: Path) -> None:
    save_model(tmp_path / "start.safetensors", build_model(PORTRAIT))
    other = replace(PORTRAIT, generator=replace(PORTRAIT.generator, blocks=3))
    with pytest.raises(TrainingError, match=r"generator\.blocks: 2 -> 3"):
        start_weights(tmp_path / "start.safetensors", other)


def test_the_other_model_is_refused_and_named(tmp_path: Path) -> None:
    save_model(tmp_path / "start.safetensors", build_model(PORTRAIT))
    with pytest.raises(TrainingError, match="model: PortraitConfig -> ModelConfig"):
        start_weights(tmp_path / "start.safetensors", TINY)
