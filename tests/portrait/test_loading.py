"""portrait/loading.py: whole models of both kinds to files and back, strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.camera import Camera
from export3d.checkpoint import read_checkpoint, write_checkpoint
from export3d.configs import config_to_dict
from export3d.errors import CheckpointError, UsageError
from export3d.expression.lebs import LeBS
from export3d.face_state import FaceState
from export3d.model import ABLATIONS, PRESETS, Export3D, ModelConfig, ablation
from export3d.model.config import TINY
from export3d.portrait import (
    PORTRAIT_PRESETS,
    Model,
    PortraitModel,
    build_model,
    drivable,
    load_model,
    preset,
    save_model,
)
from export3d.portrait.loading import checkpoint_path


def _model(config: ModelConfig = TINY) -> Model:
    model = build_model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.mean_planes.mean.normal_()
    return model


VARIANTS = {name: ablation(TINY, name) for name in ABLATIONS} | {"portrait": PORTRAIT_PRESETS["tiny-portrait"]}


@pytest.mark.parametrize("variant", ["full", "e2e-lebs-n5", "direct-3dmm", "cross-attention", "portrait"])
def test_a_saved_model_renders_the_same_picture_bit_for_bit(tmp_path: Path, variant: str) -> None:
    model = _model(VARIANTS[variant])
    save_model(tmp_path / "m.safetensors", model, extra={"seed": 3})
    loaded = load_model(tmp_path / "m.safetensors")
    assert type(loaded) is type(model) and loaded.config == model.config
    source, state, camera = torch.rand(1, 3, 32, 32), FaceState(beta=torch.randn(1, 64)), Camera.look_at_head(0.2)
    with torch.no_grad():
        images = []
        for one in (drivable(loaded), drivable(model)):
            images.append(one.render(one.drive(one.encode(source, camera, state), state), camera).image)
    assert images[0] is not None and images[1] is not None and torch.equal(images[0], images[1])


def test_a_preset_says_which_model_is_built() -> None:
    assert isinstance(build_model(preset("tiny")), Export3D) and isinstance(
        build_model(preset("tiny-portrait")), PortraitModel
    )
    assert not {*PRESETS} & {*PORTRAIT_PRESETS}


def test_names_of_version_0_1_are_still_known() -> None:
    assert preset("small") is preset("portrait") and preset("small-literal") is preset("paper-small")
    assert checkpoint_path("small") == checkpoint_path("portrait") == checkpoint_path()


def test_an_unknown_preset_suggests_the_nearest_of_either_model() -> None:
    with pytest.raises(UsageError, match=r"model preset: 'papre' is not known\. Did you mean 'paper'\?"):
        preset("papre")
    with pytest.raises(UsageError, match=r"model preset: 'portrat' is not known\. Did you mean 'portrait'\?"):
        preset("portrat")


def test_a_loaded_model_is_ready_for_use(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", _model())
    loaded = load_model(tmp_path / "m.safetensors")
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_half_file_is_smaller_and_keeps_the_basis_orthonormal(tmp_path: Path) -> None:
    model = _model()
    save_model(tmp_path / "whole.safetensors", model)
    save_model(tmp_path / "half.safetensors", model, half=True)
    whole, half = ((tmp_path / name).stat().st_size for name in ("whole.safetensors", "half.safetensors"))
    assert half < 0.65 * whole
    loaded = load_model(tmp_path / "half.safetensors")
    assert isinstance(loaded.expression, LeBS)
    basis = loaded.expression.basis
    assert torch.allclose(basis.T @ basis, torch.eye(10), atol=1e-5)
    assert all(t.dtype == torch.float32 for t in loaded.state_dict().values())
    for name, value in loaded.generator.named_parameters():
        assert torch.allclose(value, model.generator.get_parameter(name), rtol=1e-3, atol=1e-6)


def test_the_extra_facts_are_kept(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", _model(), extra={"steps": 12})
    assert read_checkpoint(tmp_path / "m.safetensors", kind="export3d").extra == {"steps": 12}


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    other = replace(TINY, decoder=replace(TINY.decoder, hidden=24))
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, _model().state_dict(), kind="export3d", config={"model": "paper", **config_to_dict(other)})
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: .*decoder\.first\.weight.*\(16, 8\), expected \(24, 8\)"
    ):
        load_model(path)


@pytest.mark.parametrize("name", ["tiny", "tiny-portrait"])
def test_an_unknown_option_in_a_file_suggests_the_nearest(tmp_path: Path, name: str) -> None:
    model, path = _model(preset(name)), tmp_path / "m.safetensors"
    config = {"model": "paper" if name == "tiny" else "portrait", **config_to_dict(model.config)}
    config["generator"]["heds"] = config["generator"].pop("heads")
    write_checkpoint(path, model.state_dict(), kind="export3d", config=config)
    with pytest.raises(
        CheckpointError, match=r"m\.safetensors: .* unknown option 'generator\.heds'\. Did you mean 'heads'\?"
    ):
        load_model(path)


def test_options_of_the_portrait_model_in_a_file_of_the_papers_model_are_refused(tmp_path: Path) -> None:
    model, path = _model(preset("tiny-portrait")), tmp_path / "m.safetensors"
    write_checkpoint(
        path, model.state_dict(), kind="export3d", config={"model": "paper", **config_to_dict(model.config)}
    )
    with pytest.raises(CheckpointError, match=r"does not fit the model 'paper': .*unknown option"):
        load_model(path)


@pytest.mark.parametrize("name", ["portraits", None, 3])
def test_a_file_that_names_no_known_model_is_refused(tmp_path: Path, name: object) -> None:
    path, config = tmp_path / "m.safetensors", config_to_dict(TINY)
    write_checkpoint(path, _model().state_dict(), kind="export3d", config={"model": name, **config})
    with pytest.raises(
        CheckpointError, match=rf"m\.safetensors: holds the model '{name}'; expected one of: paper, portrait\."
    ):
        load_model(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, kind="lebs", config={})
    with pytest.raises(CheckpointError, match=r"holds a 'lebs' model; expected 'export3d'"):
        load_model(tmp_path / "m.safetensors")


def test_a_misspelt_bundled_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"model: 'portrat' is not known\. Did you mean 'portrait'\?"):
        load_model("portrat")


def test_a_path_is_taken_as_it_is() -> None:
    assert checkpoint_path("runs/a/model.safetensors") == Path("runs/a/model.safetensors")
    with pytest.raises(CheckpointError, match=r"runs/none/model\.safetensors: no such checkpoint file"):
        load_model("runs/none/model.safetensors")
