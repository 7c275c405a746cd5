"""model/loading.py: whole models to files and back, strictly."""

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
from export3d.model.config import TINY, ModelConfig, ablation
from export3d.model.count import count_parameters
from export3d.model.export3d import Export3D
from export3d.model.loading import checkpoint_path, load_model, save_model


def _model(config: ModelConfig = TINY) -> Export3D:
    model = Export3D(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.mean_planes.mean.normal_()
    return model


@pytest.mark.parametrize("variant", ["full", "e2e-lebs-n5", "direct-3dmm", "cross-attention"])
def test_a_saved_model_renders_the_same_picture_bit_for_bit(tmp_path: Path, variant: str) -> None:
    model = _model(ablation(TINY, variant))
    save_model(tmp_path / "m.safetensors", model, extra={"seed": 3})
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    source, beta, camera = torch.rand(1, 3, 32, 32), torch.randn(1, 64), Camera.look_at_head(0.2)
    with torch.no_grad():
        assert torch.equal(loaded(source, camera, beta, camera).image, model(source, camera, beta, camera).image)


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
    write_checkpoint(path, _model().state_dict(), kind="export3d", config=config_to_dict(other))
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: .*decoder\.first\.weight.*\(16, 8\), expected \(24, 8\)"
    ):
        load_model(path)


def test_an_unknown_option_in_a_file_suggests_the_nearest(tmp_path: Path) -> None:
    config = config_to_dict(TINY)
    config["generator"]["heds"] = config["generator"].pop("heads")
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, _model().state_dict(), kind="export3d", config=config)
    with pytest.raises(UsageError, match=r"unknown option 'generator\.heds'\. Did you mean 'heads'\?"):
        load_model(path)


def test_a_misspelt_bundled_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"model: 'smal' is not known\. Did you mean 'small'\?"):
        load_model("smal")


def test_a_path_is_taken_as_it_is() -> None:
    assert checkpoint_path("runs/a/model.safetensors") == Path("runs/a/model.safetensors")
    with pytest.raises(CheckpointError, match=r"runs/none/model\.safetensors: no such checkpoint file"):
        load_model("runs/none/model.safetensors")


def test_the_parts_add_up_to_the_total() -> None:
    counts = count_parameters(Export3D(TINY))
    inner = sum(v for k, v in counts.items() if k.startswith("generator."))
    assert inner == counts["generator"]
    assert sum(v for k, v in counts.items() if "." not in k and k != "total") == counts["total"]
    assert counts["total"] == sum(p.numel() for p in Export3D(TINY).parameters())
