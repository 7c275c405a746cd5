"""model/face_shapes.py: expression weights read off beta as a further condition (off in the paper's preset)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.fitting.face_shapes import mirrored_name
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.model import Export3D
from export3d.model.config import PRESETS, TINY, ModelConfig
from export3d.model.face_shapes import LOWER_FACE, UPPER_FACE, FaceShapes

UPPER = replace(TINY, upper_face=True)
BOTH = replace(TINY, upper_face=True, lower_face=True)


def _model(conditioning: str = "eadaln", config: ModelConfig = BOTH) -> Export3D:
    torch.manual_seed(0)
    model = Export3D(replace(config, generator=replace(TINY.generator, conditioning=conditioning))).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # layers that start at zero would hide everything
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn_like(parameter))
    for part in model.face_shapes:
        part.set_map(torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
    return model


def test_every_shape_is_a_weight_of_the_head_model_once_and_comes_with_its_mirror_image() -> None:
    names = (*UPPER_FACE, *LOWER_FACE)
    assert len(set(names)) == len(names)
    assert set(names) <= set(EXPRESSION_NAMES)
    assert {mirrored_name(name) for name in UPPER_FACE} == set(UPPER_FACE)
    assert {mirrored_name(name) for name in LOWER_FACE} == set(LOWER_FACE)


def test_reading_is_the_linear_map_that_was_set() -> None:
    part = FaceShapes(UPPER_FACE, 4.0, 16)
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
    assert [name for name, _ in FaceShapes(LOWER_FACE, 8.0, 16).named_parameters()] == ["to_condition.weight"]


@pytest.mark.parametrize("config", [UPPER, replace(TINY, lower_face=True), BOTH], ids=["upper", "lower", "both"])
def test_a_new_part_changes_nothing(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = Export3D(config).eval()
    plain = Export3D(TINY).eval()
    parts = ("upper_face.", "lower_face.")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith(parts)})
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        ours = model.planes(model.encode(source, camera, source_beta=-beta), beta)
        assert torch.equal(ours, plain.planes(plain.encode(source, camera), beta))


@pytest.mark.parametrize("conditioning", ["eadaln", "cross_attention"])
def test_the_shapes_of_driver_and_portrait_change_the_planes(conditioning: str) -> None:
    model = _model(conditioning)
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, camera, source_beta=beta)
        other = model.encode(source, camera, source_beta=-beta)
        prime = model._expression_code(beta)
        read = model.read_shapes(beta)
        assert read is not None
        base = model.planes_from_code(code, prime, None, read)
        assert torch.equal(model.planes(code, beta), base)
        for part in (slice(0, len(UPPER_FACE)), slice(len(UPPER_FACE), None)):
            changed = read.clone()
            changed[:, part] *= -1
            assert not torch.allclose(base, model.planes_from_code(code, prime, None, changed))
        assert not torch.allclose(base, model.planes(other, beta))


def test_a_sweep_without_a_driver_keeps_the_portraits_own() -> None:
    model = _model()
    source, camera, beta = torch.rand(1, 3, 32, 32), Camera.look_at_head(), torch.randn(1, 64)
    with torch.no_grad():
        code = model.encode(source, camera, source_beta=beta)
        prime = model._expression_code(torch.randn(2, 64))
        read = model.read_shapes(beta)
        assert read is not None
        own = read.expand(2, -1)
        assert torch.equal(model.planes_from_code(code, prime), model.planes_from_code(code, prime, None, own))


def test_a_model_with_it_asks_for_the_portraits_expression() -> None:
    with pytest.raises(ValueError, match="portrait's own expression"):
        _model().encode(torch.zeros(1, 3, 32, 32), Camera.look_at_head())


def test_only_the_small_preset_has_them() -> None:
    assert [name for name, config in PRESETS.items() if config.upper_face or config.lower_face] == ["small"]
    assert Export3D(TINY).read_shapes(torch.zeros(1, 64)) is None


def test_upper_and_lower_face_are_read_side_by_side() -> None:
    model = _model()
    assert model.upper_face is not None and model.lower_face is not None
    beta = torch.randn(2, 64)
    both = torch.cat([model.upper_face.read(beta), model.lower_face.read(beta)], dim=1)
    read = model.read_shapes(beta)
    assert read is not None and torch.equal(read, both)


def test_coefficients_bring_the_shapes_of_the_nearest_expression() -> None:
    model = _model()
    beta, coefficients = torch.randn(1, 64), model.coefficients(torch.randn(1, 64))
    moved = coefficients.clone()
    moved[:, 2] += 1.0
    shapes = [model.shapes_of_coefficients(one, beta) for one in (coefficients, moved)]
    assert shapes[0] is not None and shapes[1] is not None
    assert (shapes[0] - shapes[1]).abs().max() > 0.1
    own, read = model.shapes_of_coefficients(model.coefficients(beta), beta), model.read_shapes(beta)
    assert own is not None and read is not None and torch.allclose(own, read, atol=1e-3)
    assert Export3D(TINY).shapes_of_coefficients(coefficients, beta) is None
    direct = Export3D(replace(TINY, expression=replace(TINY.expression, kind="direct")))
    with pytest.raises(ValueError, match="must be 'lebs'"):
        direct.shapes_of_coefficients(coefficients, beta)
