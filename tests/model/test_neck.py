"""model/neck.py: the torso stands apart from the head, and the model is told by how much (off in the paper's preset)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.heads.look.render import neck_weight, torso_lag
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE
from export3d.model.background import BackgroundConfig
from export3d.model.code import SourceCode
from export3d.model.config import PRESETS, TINY
from export3d.model.export3d import Export3D
from export3d.model.neck import Neck, NeckConfig, turn_matrix
from export3d.model.source_depth import SourceDepthConfig
from export3d.model.source_lookup import SourceLookupConfig
from export3d.rendering.fast import FastConfig
from export3d.rendering.renderer import RendererConfig

NECK = NeckConfig(enabled=True)
CONFIG = replace(
    TINY,
    source_lookup=SourceLookupConfig(enabled=True, channels=2, width=4),
    source_depth=SourceDepthConfig(enabled=True, channels=2, widths=(4, 4, 6, 8)),
    background=BackgroundConfig(mode="apart"),
    renderer=RendererConfig(raw_size=16, num_coarse=8, num_fine=8),
    superres=replace(TINY.superres, start_size=None),
    generator=replace(TINY.generator, motion_basis=3),
    neck=NECK,
)
NOTHING_LEFT_OUT = FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=0.0)
TURN = torch.tensor([[0.05, 0.4, -0.1]])
OWN = torch.tensor([[-0.1, -0.2, 0.0]])


def _model(*, trained: bool = True) -> Export3D:
    torch.manual_seed(2)
    model = Export3D(CONFIG).eval()
    if trained:  # every weight random, also those that start at zero
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _code(model: Export3D, turn: torch.Tensor | None) -> SourceCode:
    torch.manual_seed(4)
    return model.encode(torch.rand(1, 3, 32, 32) * 2 - 1, Camera.look_at_head(0.2, 0.1), source_turn=turn)


@torch.inference_mode()
def _picture(
    model: Export3D, code: SourceCode, turn: torch.Tensor | None, *, fast: FastConfig | None = None
) -> torch.Tensor:
    planes = model.planes(code, torch.full((1, 64), 0.1), turn=turn)
    image = model.render(planes, Camera.look_at_head(-0.3), code, turn=turn, fast=fast).image
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
    neck = Neck(NECK, 4)
    torch.manual_seed(0)
    points = (torch.rand(1, 500, 3) - 0.5) * torch.tensor([0.5, 0.7, 0.5])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = neck.posed(TURN)(points)
    assert torch.equal(rounded, neck.posed(TURN)(points))


def test_the_head_stays_the_torso_turns_back_by_the_lag_and_the_neck_lies_between() -> None:
    neck = Neck(replace(NECK, lag=0.5, pivot=(0.0, 0.0, 0.0), top=-0.2, bottom=-0.3), 4)
    points = torch.tensor([[[0.1, 0.3, 0.2], [0.0, -0.2, 0.2], [0.0, -0.35, 0.2], [0.0, -0.25, 0.2]]])
    quarter = torch.tensor([[0.0, math.pi / 2, 0.0]])
    posed = neck.posed(quarter)(points)[0]
    assert torch.equal(posed[:2], points[0, :2])
    half = math.sqrt(0.5)  # an eighth of a turn back to the left
    assert torch.allclose(posed[2], torch.tensor([-0.2 * half, -0.35, 0.2 * half]), atol=1e-6)
    assert torch.allclose(posed[3], torch.tensor([-0.1 * half, -0.25, 0.1 + 0.1 * half]), atol=1e-6)


def test_unposed_undoes_posed_but_for_the_height_within_the_neck() -> None:
    neck = Neck(NECK, 4)
    torch.manual_seed(0)
    points = (torch.rand(1, 500, 3) - 0.5) * torch.tensor([0.5, 0.7, 0.5])
    again = neck.unposed(TURN)(neck.posed(TURN)(points))
    moved = (neck.posed(TURN)(points) - points).norm(dim=-1)
    assert moved.max() > 0.05  # or the test could not fail
    assert (again - points).norm(dim=-1).mean() < 0.03 * moved.max()


def test_leaving_out_what_stays_changes_nothing() -> None:
    neck = Neck(NECK, 4)
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
    posed = Neck(NECK, 4).posed(camera.head_turn())((centimetres - origin) * WORLD_SCALE) / WORLD_SCALE + origin
    assert (lagged - centimetres).norm(dim=-1).max() > 2.0
    assert (posed - lagged).norm(dim=-1).max() < 0.1  # cm; the renderer turns by a share of the angle


def test_a_new_neck_leaves_a_portrait_alone_that_is_seen_as_it_stands() -> None:
    model = _model(trained=False)
    plain = Export3D(replace(CONFIG, neck=NeckConfig()))
    plain.load_state_dict({name: t for name, t in model.state_dict().items() if not name.startswith("neck.")})
    assert torch.equal(_picture(model, _code(model, None), None), _picture(plain.eval(), _code(plain, None), None))
    still = torch.zeros(1, 3)
    assert torch.allclose(
        _picture(model, _code(model, still), still), _picture(model, _code(model, None), None), atol=1e-5
    )


def test_an_unknown_turn_of_the_driver_is_that_of_the_portrait() -> None:
    model = _model()
    code = _code(model, OWN)
    assert torch.equal(_picture(model, code, None), _picture(model, code, OWN))
    assert not torch.allclose(_picture(model, code, None), _picture(model, code, TURN), atol=1e-3)
    assert not torch.allclose(_picture(model, code, TURN), _picture(model, _code(model, None), TURN), atol=1e-3)


def test_the_fast_path_turns_the_torso_as_the_exact_one() -> None:
    model = _model()
    code = _code(model, OWN)
    exact, fast = _picture(model, code, TURN), _picture(model, code, TURN, fast=NOTHING_LEFT_OUT)
    assert torch.allclose(exact, fast, atol=1e-3) and (exact - fast).square().mean().sqrt() < 1e-4


def test_points_for_the_losses_are_asked_in_the_frame_and_found_in_the_portrait() -> None:
    model = _model()
    neck = model.neck
    assert neck is not None
    code, rigid = _code(model, OWN), _code(model, None)
    unturned = (torch.rand(1, 50, 3) - 0.5) * 0.4
    unturned[:, 25:, 1] = -0.36  # the torso
    with torch.inference_mode():
        planes = model.planes(rigid, torch.zeros(1, 64), turn=TURN)
        expected, places = model.sigma(planes, rigid, unturned), model.guide(planes, rigid, unturned)[0]
        seen = neck.posed(TURN)(unturned)
        assert (seen - unturned)[:, 25:].norm(dim=-1).mean() > 0.02
        assert torch.allclose(model.sigma(planes, rigid, seen, TURN), expected, atol=1e-3)
        assert torch.allclose(model.guide(planes, rigid, seen, TURN)[0], places, atol=1e-3)
        # What the portrait's own turn changes beside the pose are the clues of its depth map.
        plain = replace(code, depth=None)
        found = model.guide(planes, plain, seen, TURN)[0]
        assert torch.allclose(
            found, neck.posed(OWN)(model.guide(planes, replace(plain, turn=None), unturned)[0]), atol=1e-3
        )


def test_a_neck_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neck\.bottom must lie below neck\.top; got 0\.1 and 0\.0"):
        NeckConfig(top=0.0, bottom=0.1)


def test_only_small_has_a_neck() -> None:
    assert [name for name, config in PRESETS.items() if config.neck.enabled] == ["small"]
