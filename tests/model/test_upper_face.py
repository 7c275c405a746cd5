"""model/upper_face.py: brows and lids read off beta as a further condition (off in the paper's preset)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.model import Export3D
from export3d.model.config import PRESETS, TINY
from export3d.model.upper_face import UPPER_FACE, UpperFace

WITH_UPPER_FACE = replace(TINY, upper_face=True)


def _model(conditioning: str = "eadaln") -> Export3D:
    torch.manual_seed(0)
    model = Export3D(
        replace(WITH_UPPER_FACE, generator=replace(TINY.generator, conditioning=conditioning)),
    ).eval()
    assert model.upper_face is not None
    with torch.no_grad():
        for parameter in model.parameters():  # layers that start at zero would hide everything
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn_like(parameter))
    model.upper_face.set_map(torch.randn(64, len(UPPER_FACE)), torch.zeros(len(UPPER_FACE)))
    return model


def test_the_shapes_come_in_pairs_of_left_and_right() -> None:
    assert [name[-2:] for name in UPPER_FACE] == ["_L", "_R"] * 5
    assert [name[:-2] for name in UPPER_FACE[::2]] == [name[:-2] for name in UPPER_FACE[1::2]]


def test_reading_is_the_linear_map_that_was_set() -> None:
    part = UpperFace(16)
    assert not part.is_fitted
    weight = torch.zeros(64, 10)
    weight[3, 6] = 2.0
    part.set_map(weight, torch.full((10,), 0.25))
    assert part.is_fitted
    beta = torch.zeros(2, 64)
    beta[1, 3] = 0.5
    read = part.read(beta)
    assert read[0].tolist() == [0.25] * 10
    assert read[1, 6].item() == pytest.approx(1.25)


def test_only_the_way_into_the_condition_is_trained() -> None:
    assert [name for name, _ in UpperFace(16).named_parameters()] == ["to_condition.weight"]


def test_a_new_part_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Export3D(WITH_UPPER_FACE).eval()
    plain = Export3D(TINY).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("upper_face.")})
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        ours = model.planes(model.encode(source, camera, source_beta=-beta), beta)
        assert torch.equal(ours, plain.planes(plain.encode(source, camera), beta))


@pytest.mark.parametrize("conditioning", ["eadaln", "cross_attention"])
def test_brows_and_lids_of_driver_and_portrait_change_the_planes(conditioning: str) -> None:
    model = _model(conditioning)
    assert model.upper_face is not None
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, camera, source_beta=beta)
        other = model.encode(source, camera, source_beta=-beta)
        prime = model._expression_code(beta)
        read = model.upper_face.read(beta)
        base = model.planes_from_code(code, prime, None, read)
        assert torch.equal(model.planes(code, beta), base)
        assert not torch.allclose(base, model.planes_from_code(code, prime, None, -read))
        assert not torch.allclose(base, model.planes(other, beta))


def test_a_sweep_without_a_driver_keeps_the_portraits_own() -> None:
    model = _model()
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, camera, source_beta=beta)
        prime = model._expression_code(torch.randn(2, 64))
        assert model.upper_face is not None
        own = model.upper_face.read(beta).expand(2, -1)
        assert torch.equal(model.planes_from_code(code, prime), model.planes_from_code(code, prime, None, own))


def test_a_model_with_it_asks_for_the_portraits_expression() -> None:
    with pytest.raises(ValueError, match="portrait's own expression"):
        _model().encode(torch.zeros(1, 3, 32, 32), Camera.look_at_head())


def test_only_the_small_preset_has_it() -> None:
    assert [name for name, config in PRESETS.items() if config.upper_face] == ["small"]
