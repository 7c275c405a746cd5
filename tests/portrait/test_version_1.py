"""portrait/loading.py: files of version 1, when both models were one class with optional parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export3d import checkpoint
from export3d.camera import Camera
from export3d.checkpoint import write_checkpoint
from export3d.configs import config_to_dict
from export3d.errors import CheckpointError
from export3d.face_state import FaceState
from export3d.model import Export3D
from export3d.model.config import TINY
from export3d.portrait import PortraitModel, load_model, save_model
from export3d.tensor_files import arrays_digest

OLD_NAMES = {
    "cues.own_expression": "source_expression",
    "cues.gaze": "gaze",
    "cues.upper": "upper_face",
    "cues.lower": "lower_face",
    "cues.turn": "neck.to_condition",
    "reader.matte": "matte",
    "reader.depth": "source_depth",
    "lookup": "source_lookup",
}

PARTS_OFF: dict[str, Any] = {
    "pixel_aligned": {
        "enabled": False,
        "channels": 13,
        "width": 32,
        "offset": True,
        "gate": True,
        "offset_scale": 0.05,
    },
    "source_lookup": {"enabled": False, "channels": 12, "width": 32, "offset_scale": 0.08, "sharpen": 0.0},
    "source_depth": {"enabled": False, "channels": 6, "widths": [24, 40, 64, 96]},
    "background": {"mode": "triplane", "width": 16},
    "neck": {"enabled": False, "lag": 0.55, "pivot": [0.0, -0.157, -0.117], "top": -0.211, "bottom": -0.328},
    "source_beta": False,
    "gaze": False,
    "upper_face": False,
    "lower_face": False,
}


def _old_name(name: str) -> str:
    for new, old in OLD_NAMES.items():
        if name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    return name


def _old_config(model: PortraitModel | Export3D) -> dict[str, Any]:
    """The configuration as version 1 wrote it."""
    config = config_to_dict(model.config)
    if isinstance(model, Export3D):
        config["generator"] |= {"highres_channels": [], "motion_basis": 0}
        return config | {k: dict(v) if isinstance(v, dict) else v for k, v in PARTS_OFF.items()}
    for name in ("source_lookup", "source_depth", "neck"):
        config[name]["enabled"] = True
    config["background"]["mode"] = "apart"
    on = dict.fromkeys(("source_beta", "gaze", "upper_face", "lower_face"), True)
    return config | on | {"pixel_aligned": PARTS_OFF["pixel_aligned"]}


@pytest.fixture
def write_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`write(model, config)` a file of version 1."""

    def write(model: PortraitModel | Export3D, config: dict[str, Any]) -> Path:
        tensors: dict[str, Tensor] = {_old_name(name): t for name, t in model.state_dict().items()}
        path = tmp_path / "old.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "VERSION", 1)
            patch.setattr(checkpoint, "content_digest", lambda header, tensors: arrays_digest(tensors))
            write_checkpoint(path, tensors, kind="export3d", config=config)
        return path

    return write


def _paper() -> Export3D:
    model = Export3D(TINY).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def test_a_portrait_model_of_version_1_gives_the_same_pixels(
    write_old: Callable[..., Path], make_model: Callable[..., PortraitModel], make_state: Callable[..., FaceState]
) -> None:
    model = make_model()
    loaded = load_model(write_old(model, _old_config(model)))
    assert isinstance(loaded, PortraitModel) and loaded.config == model.config
    camera, other = Camera.look_at_head(0.1), Camera.look_at_head(-0.3)
    inputs = torch.rand(1, 3, 32, 32) * 2 - 1, camera, make_state(1), make_state(2), other
    with torch.no_grad():
        assert torch.equal(loaded(*inputs).image, model(*inputs).image)


def test_a_file_of_the_papers_parts_alone_is_the_papers_model(write_old: Callable[..., Path]) -> None:
    model = _paper()
    loaded = load_model(write_old(model, _old_config(model)))
    assert isinstance(loaded, Export3D) and loaded.config == model.config
    inputs = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 64), Camera.look_at_head(0.2)
    with torch.no_grad():
        assert torch.equal(loaded(*inputs).image, model(*inputs).image)


def test_what_was_loaded_is_saved_as_todays_version(
    write_old: Callable[..., Path], make_model: Callable[..., PortraitModel], tmp_path: Path
) -> None:
    model = make_model()
    loaded = load_model(write_old(model, _old_config(model)))
    save_model(tmp_path / "new.safetensors", loaded)
    again = load_model(tmp_path / "new.safetensors")
    assert again.config == loaded.config
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())


SWITCHES = {
    "source_beta": ("source_beta",),
    "gaze": ("gaze",),
    "upper_face": ("upper_face",),
    "lower_face": ("lower_face",),
    "source_lookup": ("source_lookup", "enabled"),
    "source_depth": ("source_depth", "enabled"),
    "neck": ("neck", "enabled"),
    "background apart": ("background", "mode"),
    "motion_basis": ("generator", "motion_basis"),
    "highres_channels": ("generator", "highres_channels"),
}


@pytest.mark.parametrize("part", list(SWITCHES))
@pytest.mark.parametrize("kind", ["paper", "portrait"])
def test_parts_that_no_model_mixes_are_refused_and_named(
    write_old: Callable[..., Path], make_model: Callable[..., PortraitModel], kind: str, part: str
) -> None:
    model = _paper() if kind == "paper" else make_model()
    config = _old_config(model)
    off: dict[str, Any] = {"background apart": "triplane", "motion_basis": 0, "highres_channels": []}
    on: dict[str, Any] = {"background apart": "apart", "motion_basis": 3, "highres_channels": [8]}
    *place, last = SWITCHES[part]
    (config[place[0]] if place else config)[last] = on.get(part, True) if kind == "paper" else off.get(part, False)
    with pytest.raises(CheckpointError) as error:
        load_model(write_old(model, config))
    text = str(error.value)
    assert "old.safetensors: a model file of version 1 with parts that no model has any more" in text
    there, others = ("yes", "no") if kind == "paper" else ("no", "yes")
    assert f"{part} {there}" in text and text.count(f" {others}") >= len(SWITCHES) - 1
    assert text.endswith("Train it again.")


@pytest.mark.parametrize("kind", ["paper", "portrait"])
def test_pixel_aligned_features_are_refused(
    write_old: Callable[..., Path], make_model: Callable[..., PortraitModel], kind: str
) -> None:
    model = _paper() if kind == "paper" else make_model()
    config = _old_config(model)
    config["pixel_aligned"] = {**config["pixel_aligned"], "enabled": True}
    with pytest.raises(CheckpointError, match="neither has pixel_aligned"):
        load_model(write_old(model, config))


def test_an_unknown_option_of_an_old_file_is_named(write_old: Callable[..., Path]) -> None:
    model = _paper()
    config = _old_config(model)
    config["renderer"]["num_corse"] = 8
    with pytest.raises(CheckpointError, match=r"unknown option 'renderer\.num_corse'\. Did you mean 'num_coarse'\?"):
        load_model(write_old(model, config))


def test_an_old_file_without_a_generator_is_refused(write_old: Callable[..., Path]) -> None:
    model = _paper()
    config = _old_config(model)
    del config["generator"]
    with pytest.raises(CheckpointError, match=r"old\.safetensors: .*generator"):
        load_model(write_old(model, config))
