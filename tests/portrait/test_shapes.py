"""portrait/shapes.py: expression weights read off beta, or given."""

from __future__ import annotations

import pytest
import torch

from export3d.face_state import ARKIT_NAMES, FaceState, arkit_column, mirrored_name
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.portrait.shapes import LOWER_FACE, UPPER_FACE, FaceShapes


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


def test_names_of_one_side_are_found_at_apples_names_of_that_side() -> None:
    for name, arkit in (
        ("eyeBlink_L", "eyeBlinkLeft"),
        ("eyeBlink_R", "eyeBlinkRight"),
        ("mouthSmile_R", "mouthSmileRight"),
        ("jawOpen", "jawOpen"),
        ("jawLeft", "jawLeft"),
        ("browInnerUp_L", "browInnerUp"),  # Apple has one for both sides
        ("browInnerUp_R", "browInnerUp"),
    ):
        assert ARKIT_NAMES[arkit_column(name)] == arkit


def test_every_shape_has_a_place_and_only_the_inner_brows_share_theirs() -> None:
    columns = [arkit_column(name) for name in (*UPPER_FACE, *LOWER_FACE)]
    shared = {ARKIT_NAMES[c] for c in columns if columns.count(c) > 1}
    assert shared == {"browInnerUp"}


def _part() -> FaceShapes:
    part = FaceShapes(UPPER_FACE, 4.0, 16)
    part.set_map(torch.randn(64, len(UPPER_FACE)), torch.randn(len(UPPER_FACE)))
    return part


def test_a_weight_that_is_given_overrides_what_beta_says_and_an_unknown_one_does_not() -> None:
    part, beta = _part(), torch.randn(2, 64)
    weights = torch.full((2, 52), torch.nan)
    weights[0, ARKIT_NAMES.index("eyeBlinkLeft")] = 0.75
    read, got = part.read(beta), part.of(FaceState(beta=beta, weights=weights))
    left = UPPER_FACE.index("eyeBlink_L")
    assert got[0, left] == 0.75
    same = torch.ones_like(read, dtype=torch.bool)
    same[0, left] = False
    assert torch.equal(got[same], read[same])
    assert torch.equal(part.of(FaceState(beta=beta)), read)


def test_what_both_sides_share_is_given_to_both_and_filled_in_as_their_mean() -> None:
    part, weights = _part(), torch.full((1, 52), torch.nan)
    weights[0, ARKIT_NAMES.index("browInnerUp")] = 0.4
    got = part.of(FaceState(beta=torch.randn(1, 64), weights=weights))
    sides = [UPPER_FACE.index(f"browInnerUp_{side}") for side in "LR"]
    assert torch.allclose(got[0, sides], torch.tensor([0.4, 0.4]))
    got[0, sides] = torch.tensor([0.1, 0.5])
    filled = part.fill(got, weights)
    assert filled[0, ARKIT_NAMES.index("browInnerUp")].item() == pytest.approx(0.3)
    assert weights[0, ARKIT_NAMES.index("browInnerUp")].item() == pytest.approx(0.4)  # the given ones stay as they are
    assert filled[0, ARKIT_NAMES.index("jawOpen")].isnan()  # not one of these shapes


def test_the_weights_enter_the_condition_with_their_gain_and_in_the_order_driver_portrait() -> None:
    part = _part()
    torch.nn.init.normal_(part.to_condition.weight)
    driving, source = torch.rand(2, 10), torch.rand(2, 10)
    expected = 4.0 * (driving @ part.to_condition.weight[:, :10].T + source @ part.to_condition.weight[:, 10:].T)
    assert torch.allclose(part(driving, source), expected, atol=1e-5)
