"""portrait/neck.py: the torso stands apart from the head, and the model is told by how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.heads.look.torso import neck_weight, torso_lag
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE
from export3d.portrait.config import PortraitConfig
from export3d.portrait.model import PortraitModel
from export3d.portrait.neck import Neck, NeckConfig, turn_matrix
from export3d.portrait.state import PortraitCode
from export3d.rendering.fast import FastConfig

Make = Callable[..., PortraitModel]
TURN = torch.tensor([[0.05, 0.4, -0.1]])
OWN = torch.tensor([[-0.1, -0.2, 0.0]])
BETA = torch.full((1, 64), 0.1)


def _code(model: PortraitModel, turn: Tensor | None) -> PortraitCode:
    torch.manual_seed(4)
    source = torch.rand(1, 3, 32, 32) * 2 - 1
    return model.encode(source, Camera.look_at_head(0.2, 0.1), FaceState(beta=-BETA, turn=turn))


@torch.inference_mode()
def _picture(
    model: PortraitModel, code: PortraitCode, turn: Tensor | None, *, fast: FastConfig | None = None
) -> Tensor:
    driven = model.drive(code, FaceState(beta=BETA, turn=turn))
    image = model.render(driven, Camera.look_at_head(-0.3), fast=fast).image
    assert image is not None
    return image


def test_a_turn_is_a_rotation_around_its_own_direction_by_its_length() -> None:
    quarter = turn_matrix(torch.tensor([[0.0, math.pi / 2, 0.0]]))[0]
    assert torch.allclose(quarter @ torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)
    matrix = turn_matrix(TURN)[0]
    assert torch.allclose(matrix @ matrix.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(matrix @ TURN[0], TURN[0], atol=1e-6)
    assert torch.equal(turn_matrix(torch.zeros(1, 3))[0], torch.eye(3))


def test_rodrigues_formula_is_the_matrix_exponential_of_the_cross_product() -> None:
    torch.manual_seed(0)
    for size in (1e-4, 0.3, 3.0):
        turn = size * torch.randn(20, 3, dtype=torch.float64)
        x, y, z = turn.unbind(1)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
        assert torch.allclose(turn_matrix(turn), torch.linalg.matrix_exp(cross), atol=1e-12)


def test_the_joint_is_not_rounded_under_bf16_autocast() -> None:
    neck = Neck(NeckConfig())
    torch.manual_seed(0)
    points = (torch.rand(1, 500, 3) - 0.5) * torch.tensor([0.5, 0.7, 0.5])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = neck.posed(TURN)(points)
    assert torch.equal(rounded, neck.posed(TURN)(points))


def test_the_head_stays_the_torso_turns_back_by_the_lag_and_the_neck_lies_between() -> None:
    neck = Neck(NeckConfig(lag=0.5, pivot=(0.0, 0.0, 0.0), top=-0.2, bottom=-0.3))
    points = torch.tensor([[[0.1, 0.3, 0.2], [0.0, -0.2, 0.2], [0.0, -0.35, 0.2], [0.0, -0.25, 0.2]]])
    quarter = torch.tensor([[0.0, math.pi / 2, 0.0]])
    posed = neck.posed(quarter)(points)[0]
    assert torch.equal(posed[:2], points[0, :2])
    half = math.sqrt(0.5)  # an eighth of a turn back to the left
    assert torch.allclose(posed[2], torch.tensor([-0.2 * half, -0.35, 0.2 * half]), atol=1e-6)
    assert torch.allclose(posed[3], torch.tensor([-0.1 * half, -0.25, 0.1 + 0.1 * half]), atol=1e-6)


def test_unposed_undoes_posed_but_for_the_height_within_the_neck() -> None:
    neck = Neck(NeckConfig())
    torch.manual_seed(0)
    points = (torch.rand(1, 500, 3) - 0.5) * torch.tensor([0.5, 0.7, 0.5])
    again = neck.unposed(TURN)(neck.posed(TURN)(points))
    moved = (neck.posed(TURN)(points) - points).norm(dim=-1)
    assert moved.max() > 0.05  # or the test could not fail
    assert (again - points).norm(dim=-1).mean() < 0.03 * moved.max()


def test_leaving_out_what_stays_changes_nothing() -> None:
    neck = Neck(NeckConfig())
    torch.manual_seed(0)
    points = (torch.rand(1, 500, 3) - 0.5) * torch.tensor([0.5, 0.7, 0.5])
    whole = neck.posed(TURN)(points)
    with torch.no_grad():
        for some in (points, points[:, points[0, :, 1] > -0.2], points[:, points[0, :, 1] < -0.3]):
            alike = torch.isin(points[0, :, 1], some[0, :, 1])
            assert torch.allclose(neck.posed(TURN)(some), whole[:, alike], atol=1e-6)


def test_the_joint_is_that_of_the_synthetic_heads() -> None:
    camera = Camera.look_at_head(
        torch.tensor([0.3, -0.4, 0.1]), torch.tensor([0.1, 0.0, -0.2]), torch.tensor([0.0, 0.1, 0.05])
    )
    torch.manual_seed(0)
    centimetres = torch.rand(1, 2000, 3) * torch.tensor([24.0, 20.0, 16.0]) - torch.tensor([12.0, 18.0, 10.0])
    centimetres = centimetres.expand(3, -1, -1)
    head = turn_matrix(camera.head_turn())
    lagged = torso_lag(centimetres, neck_weight(centimetres[0, :, 1]), head)
    origin = torch.tensor(WORLD_ORIGIN_CM)
    posed = Neck(NeckConfig()).posed(camera.head_turn())((centimetres - origin) * WORLD_SCALE) / WORLD_SCALE + origin
    assert (lagged - centimetres).norm(dim=-1).max() > 2.0
    assert (posed - lagged).norm(dim=-1).max() < 0.1  # cm; the renderer turns by a share of the angle


def test_points_without_a_turn_stay() -> None:
    points = torch.randn(2, 9, 3)
    for joint in (Neck(NeckConfig()).posed(None), Neck(NeckConfig()).unposed(None)):
        assert torch.equal(joint(points), points)


def test_a_head_that_is_not_turned_is_one_whose_turn_nobody_knows(config: PortraitConfig) -> None:
    torch.manual_seed(2)
    model, still = PortraitModel(config).eval(), torch.zeros(1, 3)
    unknown = _picture(model, _code(model, None), None)
    assert torch.allclose(_picture(model, _code(model, still), still), unknown, atol=1e-5)


def test_an_unknown_turn_of_the_driver_is_that_of_the_portrait(make_model: Make) -> None:
    model = make_model()
    code = _code(model, OWN)
    assert torch.equal(_picture(model, code, None), _picture(model, code, OWN))
    assert not torch.allclose(_picture(model, code, None), _picture(model, code, TURN), atol=1e-3)
    assert not torch.allclose(_picture(model, code, TURN), _picture(model, _code(model, None), TURN), atol=1e-3)


def test_the_renderer_takes_the_turn_from_what_was_driven_and_from_nothing_else(make_model: Make) -> None:
    model = make_model()
    with torch.inference_mode():
        turned = model.drive(_code(model, OWN), FaceState(beta=BETA, turn=TURN))
        assert turned.turn is not None and torch.equal(turned.turn, TURN)
        assert model.drive(_code(model, OWN), FaceState(beta=BETA)).turn is None  # the portrait's own
        camera = Camera.look_at_head(-0.3)
        with_turn, without = (model.render(x, camera).raw for x in (turned, replace(turned, turn=None)))
        own = model.render(replace(turned, turn=OWN), camera).raw
    assert not torch.allclose(with_turn, without, atol=1e-4)  # the planes are the same: the joint alone differs
    assert torch.equal(without, own)


def test_the_fast_path_turns_the_torso_as_the_exact_one(make_model: Make, nothing_left_out: FastConfig) -> None:
    model = make_model()
    code = _code(model, OWN)
    exact, fast = _picture(model, code, TURN), _picture(model, code, TURN, fast=nothing_left_out)
    assert torch.allclose(exact, fast, atol=1e-3) and (exact - fast).square().mean().sqrt() < 1e-4


def test_points_for_the_losses_are_asked_in_the_frame_and_found_in_the_portrait(make_model: Make) -> None:
    model = make_model()
    neck, rigid = model.neck, _code(model, None)
    unturned = (torch.rand(1, 50, 3) - 0.5) * 0.4
    unturned[:, 25:, 1] = -0.36  # the torso
    with torch.inference_mode():
        turned = model.drive(rigid, FaceState(beta=torch.zeros(1, 64), turn=TURN))
        straight = replace(turned, turn=None)
        expected, places = model.sigma(straight, unturned), model.guide(straight, unturned)[0]
        seen = neck.posed(TURN)(unturned)
        assert (seen - unturned)[:, 25:].norm(dim=-1).mean() > 0.02
        assert torch.allclose(model.sigma(turned, seen), expected, atol=1e-3)
        assert torch.allclose(model.guide(turned, seen)[0], places, atol=1e-3)
        # What the portrait's own turn changes beside the pose are the clues of its depth map.
        torch.nn.init.zeros_(model.reader.depth.to_hidden.weight)
        own = replace(turned, code=replace(rigid, state=replace(rigid.state, turn=OWN)))
        assert torch.allclose(model.guide(own, seen)[0], neck.posed(OWN)(model.guide(straight, unturned)[0]), atol=1e-3)


def test_a_neck_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neck\.bottom must lie below neck\.top; got 0\.1 and 0\.0"):
        NeckConfig(top=0.0, bottom=0.1)
