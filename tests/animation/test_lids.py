"""Lids that are drawn down in the photograph: where they stand, what they show, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator
from export3d.animation.lids import Lid
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.landmarks import BLINKS
from export3d.portrait import PortraitModel
from export3d.tracking import Tracker

SIDE = 200
EYE = np.array([[0.4, 0.5], [0.46, 0.45], [0.54, 0.45], [0.6, 0.5], [0.54, 0.52], [0.46, 0.52]])
BROW = np.array([[0.4, 0.36], [0.45, 0.34], [0.5, 0.33], [0.55, 0.34], [0.6, 0.36]])
SKIN, WHITE, BELOW = 0.2, 1.0, 0.4


def a_face() -> tuple[torch.Tensor, np.ndarray]:
    """A picture ``(1, 1, S, S)`` of skin, another skin below the eye, and a white eye; and where that eye is."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    s = (x - 0.4) / 0.2
    up, down = (k * s * (1.0 - s) * 0.2 / (0.3 * 0.7) for k in (0.25, 0.1))  # through the landmarks
    white = (s > 0) & (s < 1) & (y > 0.5 - up) & (y < 0.5 + down)
    picture = np.where(y > 0.5 + np.where((s > 0) & (s < 1), down, 0.0), BELOW, SKIN)
    return torch.from_numpy(np.where(white, WHITE, picture)).float()[None, None], white


def drawn(share: float, brow: np.ndarray = BROW) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture before and after, and where the eye is."""
    picture, white = a_face()
    lid = Lid.of(EYE, brow, SIDE)
    assert lid is not None
    after = picture.clone()
    after[..., lid.box[0], lid.box[1]] = lid.drawn(picture, share)
    return picture[0, 0].numpy(), after[0, 0].numpy(), white


def test_an_open_lid_changes_nothing() -> None:
    before, after, _ = drawn(0.0)
    assert np.abs(after - before).max() < 1e-5


def test_a_shut_lid_hides_the_eye() -> None:
    _, after, white = drawn(1.0)
    rows = np.flatnonzero(white.any(axis=1))
    core = white.copy()
    core[: rows[0] + 2] = core[rows[-1] - 1 :] = False  # but for its rims
    core[:, [*range(88), *range(112, SIDE)]] = False
    assert core.sum() > 100 and np.abs(after[core] - SKIN).max() < 0.15


def test_a_half_shut_lid_hides_the_upper_half_and_leaves_the_lower_one_as_it_was() -> None:
    before, after, _ = drawn(0.5)
    middle = SIDE // 2  # there the eye reaches from about row 90 to row 104
    assert np.abs(after[92:94, middle] - SKIN).max() < 0.15
    assert np.allclose(after[99:103, middle], before[99:103, middle])


def test_nothing_changes_beside_below_and_at_the_brow() -> None:
    before, after, _ = drawn(1.0)
    changed = np.abs(after - before) > 1e-4
    assert not changed[:, :79].any() and not changed[:, 121:].any()
    assert not changed[107:].any() and not changed[:70].any() and changed.any()


def test_under_a_low_brow_the_lid_is_of_the_skin_below_the_eye() -> None:
    low = BROW + np.array([0.0, 0.08])
    _, after, _ = drawn(1.0, low)
    assert np.abs(after[94:98, SIDE // 2] - BELOW).max() < 0.05


def test_an_eye_of_three_pixels_has_no_lid() -> None:
    assert Lid.of(EYE, BROW, 15) is None and Lid.of(EYE, BROW, 30) is not None


@pytest.fixture
def sharp(tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray) -> Animator:
    """An animator whose pictures have the photograph's own detail."""
    made = Animator(tiny_model, make_tracker(), detail=160)
    made.portrait(photo)
    return made


def shutting(animator: Animator, *names: str) -> FaceState:
    """The portrait's own face with these weights at 1."""
    assert animator.subject is not None and animator.subject.state.weights is not None
    state, weights = animator.subject.state, animator.subject.state.weights.clone()
    weights[0, [ARKIT_NAMES.index(name) for name in names]] = 1.0
    return replace(state, weights=weights)


def test_each_eye_goes_with_its_own_weight(sharp: Animator) -> None:
    assert sharp.subject is not None and sharp.subject.lids is not None
    for at, name in enumerate(BLINKS):
        shut = sharp.subject.lids.shut(shutting(sharp, name))
        assert [share > 0.9 for share in shut] == [at == 0, at == 1]
    assert sharp.subject.lids.shut(sharp.subject.state) == (0.0, 0.0)
    assert sharp.subject.lids.shut(replace(sharp.subject.state, weights=None)) == (0.0, 0.0)


def test_a_blink_changes_the_photograph_that_is_read(sharp: Animator) -> None:
    subject = sharp.subject
    assert subject is not None and subject.lids is not None
    sharp.frame(subject.state, subject.camera)
    driven = sharp._driven
    photo = subject.code.maps.photo.picture.clone()
    both = subject.lids.drawn(driven, (1.0, 1.0)).code.maps
    assert (both.photo.picture != photo).any()
    assert subject.lids.small == (None, None) and torch.equal(both.picture, subject.code.maps.picture)  # 32 pixels
    assert torch.equal(subject.code.maps.photo.picture, photo)
    assert subject.lids.drawn(driven, (0.0, 0.0)) is driven


def test_frames_with_and_without_a_blink_are_not_taken_for_each_other(sharp: Animator) -> None:
    subject = sharp.subject
    assert subject is not None
    face = shutting(sharp, *BLINKS)
    shut, still, again = (sharp.render(state, subject.camera) for state in (face, subject.state, face))
    assert shut is not still and again is not still
    assert torch.equal(shut.image, again.image)  # type: ignore[arg-type]
    assert sharp.render(face, subject.camera) is again


def test_without_the_photographs_detail_the_model_shuts_the_eyes(animator: Animator) -> None:
    assert animator.subject is not None and animator.subject.lids is None
