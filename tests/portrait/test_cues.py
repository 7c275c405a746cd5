"""portrait/cues.py: what of the faces joins beta', and what stands in for what is unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait.cues import ExpressionCues, gaze_pair
from export3d.portrait.shapes import LOWER_FACE, UPPER_FACE, arkit_column

DIM = 16
States = Callable[..., FaceState]


def _cues() -> ExpressionCues:
    torch.manual_seed(1)
    cues = ExpressionCues(DIM)
    for parameter in cues.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for part in cues.shapes:
        part.set_map(torch.randn(64, len(part.names)), torch.randn(len(part.names)))
    return cues


@torch.no_grad()
def _condition(cues: ExpressionCues, driving: FaceState, source: FaceState) -> Tensor:
    return cues(torch.zeros(len(driving), DIM), torch.zeros(1, DIM), driving, source)


def _given(**weights: float) -> Tensor:
    """Weights of which only these are known."""
    row = torch.full((1, 52), torch.nan)
    for name, value in weights.items():
        row[0, ARKIT_NAMES.index(name)] = value
    return row


def test_single_weights_and_the_turn_start_without_a_say(make_state: States) -> None:
    cues, beta = ExpressionCues(DIM), torch.randn(1, 64)
    for part in cues.shapes:
        part.set_map(torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
    bare = FaceState(beta=beta)
    for part in ("weights", "turn"):
        full = FaceState(beta=beta, **{part: getattr(make_state(1), part)})
        assert torch.equal(_condition(cues, full, full), _condition(cues, bare, bare))


def test_beta_primes_are_added_the_portraits_own_through_its_layer() -> None:
    cues, state = _cues(), FaceState(beta=torch.randn(1, 64))
    a, b = torch.randn(1, DIM), torch.randn(1, DIM)
    with torch.no_grad():
        moved = cues(a, b, state, state) - cues(torch.zeros(1, DIM), torch.zeros(1, DIM), state, state)
    assert torch.allclose(moved, a + b @ cues.own_expression.weight.T, atol=1e-5)


@pytest.mark.parametrize("field", ["beta", "weights", "gaze", "turn"])
def test_every_field_of_driver_and_portrait_changes_the_condition(make_state: States, field: str) -> None:
    cues, driving, source = _cues(), make_state(1), make_state(2)
    if field == "beta":  # weights that are given would cover it
        driving, source = replace(driving, weights=None), replace(source, weights=None)
    base = _condition(cues, driving, source)
    changed = {field: -getattr(driving, field)}
    assert not torch.allclose(_condition(cues, replace(driving, **changed), source), base, atol=1e-3)
    changed = {field: -getattr(source, field)}
    assert not torch.allclose(_condition(cues, driving, replace(source, **changed)), base, atol=1e-3)


def test_single_weights_that_are_given_override_what_beta_says_and_unknown_ones_do_not() -> None:
    cues, beta = _cues(), torch.randn(1, 64)
    bare = FaceState(beta=beta)
    base = _condition(cues, bare, bare)
    assert torch.equal(_condition(cues, replace(bare, weights=_given()), bare), base)  # all unknown
    same = cues.weights(beta)  # just what beta says, where the two inner brows are one
    said = {name: float(same[0, ARKIT_NAMES.index(name)]) for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight")}
    assert torch.allclose(_condition(cues, replace(bare, weights=_given(**said)), bare), base, atol=1e-5)
    for name, value in said.items():
        other = replace(bare, weights=_given(**{name: value + 1.0}))
        assert not torch.allclose(_condition(cues, other, bare), base, atol=1e-3)


def test_a_wink_stays_on_its_own_side() -> None:
    """Only the columns of the one eyelid see it, of the way in of brows and lids."""
    cues, state = _cues(), FaceState(beta=torch.zeros(1, 64))
    for side, name in (("L", "eyeBlinkLeft"), ("R", "eyeBlinkRight")):
        shut, open_ = (replace(state, weights=_given(**{name: value})) for value in (1.0, 0.0))
        moved = _condition(cues, shut, state) - _condition(cues, open_, state)
        column = cues.upper.to_condition.weight[:, UPPER_FACE.index(f"eyeBlink_{side}")]
        assert torch.allclose(moved[0], 4.0 * column, atol=1e-4)


def test_what_is_read_off_beta_lies_at_the_arkit_names_and_the_rest_is_unknown() -> None:
    cues, beta = _cues(), torch.randn(2, 64)
    found = cues.weights(beta)
    read = cues.lower.read(beta)
    for name, arkit in (("jawOpen", "jawOpen"), ("mouthSmile_L", "mouthSmileLeft"), ("noseSneer_R", "noseSneerRight")):
        assert torch.equal(found[:, ARKIT_NAMES.index(arkit)], read[:, LOWER_FACE.index(name)])
    unknown = {name for name, isnan in zip(ARKIT_NAMES, found.isnan().all(dim=0).tolist(), strict=True) if isnan}
    assert {"tongueOut", "cheekPuff", "eyeLookUpLeft"} <= unknown and not unknown & {"jawOpen", "browInnerUp"}
    assert len(unknown) == 52 - (len(UPPER_FACE) - 1) - len(LOWER_FACE)


def test_an_unknown_gaze_of_the_driver_is_the_portraits_and_one_of_the_portrait_is_none() -> None:
    like, own = torch.zeros(2, DIM), torch.tensor([[0.1, 0.2]])
    driving = torch.tensor([[-0.3, 0.0], [torch.nan, 0.5]])
    both = gaze_pair(driving, own, like)
    expected = torch.tensor([[-0.3, 0.0, 0.1, 0.2, 1.0], [0.1, 0.2, 0.1, 0.2, 1.0]])
    assert torch.allclose(both, expected)
    assert torch.equal(gaze_pair(None, own, like), gaze_pair(own.expand(2, -1), own, like))
    for unknown in (None, torch.full((1, 2), torch.nan)):
        assert torch.equal(gaze_pair(driving, unknown, like), torch.zeros(2, 5))


def test_an_unknown_turn_of_the_driver_is_the_portraits_and_one_of_the_portrait_is_none() -> None:
    cues, beta, turn = _cues(), torch.zeros(1, 64), torch.tensor([[0.1, 0.4, -0.2]])
    bare, turned, straight = FaceState(beta=beta), FaceState(beta=beta, turn=turn), FaceState(beta=beta, turn=0 * turn)
    assert torch.equal(_condition(cues, bare, turned), _condition(cues, turned, turned))
    assert torch.equal(_condition(cues, turned, bare), _condition(cues, turned, straight))
    assert not torch.allclose(_condition(cues, turned, bare), _condition(cues, turned, turned), atol=1e-3)


def test_one_portrait_serves_many_drivers(make_state: States) -> None:
    cues, driving, source = _cues(), make_state(1, 3), make_state(2)
    each = torch.cat([_condition(cues, driving[k : k + 1], source) for k in range(3)])
    assert torch.allclose(_condition(cues, driving, source), each, atol=1e-5)


def test_beta_is_moved_until_the_maps_read_the_weights_and_no_farther() -> None:
    cues = _cues()
    beta = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    before = cues.weights(beta)
    asked = torch.full_like(before, torch.nan)
    blink = arkit_column("eyeBlink_L")
    asked[:, blink] = before[:, blink] + 0.5
    moved = cues.maps().adjusted(beta, asked)
    after = cues.weights(moved)
    others = ~before[0].isnan()
    others[blink] = False
    assert (after - before)[:, blink].tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert float((after - before)[:, others].abs().max()) < 0.02
    assert torch.equal(cues.maps().adjusted(beta, torch.full_like(before, torch.nan)), beta)
    assert float((cues.maps().adjusted(beta, before) - beta).abs().max()) < 1e-4
