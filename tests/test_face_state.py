"""face_state.py: shapes, one change for all fields, joining, comparing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export3d.face_state import ARKIT_NAMES, FaceState


def _state(batch: int = 2) -> FaceState:
    return FaceState(
        beta=torch.randn(batch, 64),
        weights=torch.rand(batch, 52),
        gaze=torch.randn(batch, 2),
        turn=torch.randn(batch, 3),
    )


def test_the_names_are_apples_52_in_alphabetical_order() -> None:
    assert len(set(ARKIT_NAMES)) == 52 and list(ARKIT_NAMES) == sorted(ARKIT_NAMES)


def test_every_left_has_its_right() -> None:
    lefts = {name for name in ARKIT_NAMES if name.endswith("Left")}
    assert {name.removesuffix("Left") + "Right" for name in lefts} == {n for n in ARKIT_NAMES if n.endswith("Right")}


@pytest.mark.parametrize(("name", "width"), [("weights", 52), ("gaze", 2), ("turn", 3)])
def test_a_field_of_another_width_or_batch_is_named(name: str, width: int) -> None:
    for shape in ((2, width + 1), (1, width)):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(2, {width}\); got \({shape[0]}, {shape[1]}\)"):
            FaceState(beta=torch.zeros(2, 64), **{name: torch.zeros(shape)})  # type: ignore[arg-type]


def test_a_beta_without_a_batch_is_named() -> None:
    with pytest.raises(ValueError, match=r"beta must have shape \(\*, \*\); got \(64,\)"):
        FaceState(beta=torch.zeros(64))


def test_one_face_of_arrays_gets_a_batch_axis_and_float32() -> None:
    state = FaceState.of(beta=np.arange(64), gaze=np.array([0.1, np.nan]), turn=None)
    assert len(state) == 1 and state.beta.dtype == torch.float32 and state.beta[0, 5] == 5.0
    assert state.gaze is not None and state.gaze.shape == (1, 2) and state.gaze.isnan().tolist() == [[False, True]]
    assert state.turn is None and state.weights is None


def test_one_face_of_arrays_is_a_copy() -> None:
    beta = np.zeros(64, dtype=np.float32)
    state = FaceState.of(beta=beta)
    beta[0] = 1.0
    assert not state.beta.any()


def test_a_change_reaches_every_known_field_and_leaves_the_unknown_ones_unknown() -> None:
    state = _state()
    doubled = state.map(lambda x: 2 * x)
    for name in ("beta", "weights", "gaze", "turn"):
        assert torch.equal(getattr(doubled, name), 2 * getattr(state, name))
    bare = FaceState(beta=torch.ones(1, 64)).map(lambda x: 2 * x)
    assert bare.weights is None and bare.gaze is None and bare.turn is None and (bare.beta == 2).all()


def test_rows_of_a_batch_and_the_batch_joined_again() -> None:
    state = _state(3)
    assert len(state[1:]) == 2 and torch.equal(state[1:2].beta, state.beta[1:2])
    assert FaceState.cat([state[:1], state[1:]]).same_as(state)


def test_joined_with_one_that_lacks_a_field_all_lack_it() -> None:
    joined = FaceState.cat([_state(2), FaceState(beta=torch.zeros(1, 64), gaze=torch.zeros(1, 2))])
    assert len(joined) == 3 and joined.gaze is not None and joined.weights is None and joined.turn is None


def test_two_unknown_numbers_are_equal_and_an_unknown_and_a_known_one_are_not() -> None:
    known, unknown = torch.zeros(1, 2), torch.full((1, 2), torch.nan)
    beta = torch.zeros(1, 64)
    state = FaceState(beta=beta, gaze=unknown)
    assert state.same_as(FaceState(beta=beta.clone(), gaze=unknown.clone()))
    assert not state.same_as(FaceState(beta=beta, gaze=known)) and not state.same_as(FaceState(beta=beta))
    assert not FaceState(beta=beta).same_as(state)
    assert not state.same_as(FaceState(beta=beta + 1, gaze=unknown))
    assert not state.same_as(FaceState(beta=beta.expand(2, -1), gaze=unknown.expand(2, -1)))


def test_a_state_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        _state().beta = torch.zeros(2, 64)  # type: ignore[misc]
