"""What is put behind a person is made of the background's own pieces, and joins it without an edge."""

from __future__ import annotations

import numpy as np
import torch

from export3d.animation.fill import behind_person
from export3d.animation.person import spread


def stripes() -> np.ndarray:
    """A wall of vertical stripes that grows lighter downwards."""
    y, x = np.mgrid[:120, :160]
    grey = 80 + 60 * ((x // 8) % 2) + y // 3
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def a_hole(top: int = 20, bottom: int = 80) -> torch.Tensor:
    hole = torch.zeros(1, 120, 160)
    hole[:, top:bottom, 60:104] = 1.0
    return hole


def test_a_pattern_goes_on_behind_the_person_where_a_smooth_filling_is_grey() -> None:
    wall, hole = stripes(), a_hole()
    photo = wall.copy()
    photo[hole[0].bool().numpy()] = (250, 0, 0)
    inside = hole[0].bool().numpy()
    pieces, smooth = (
        np.abs(made.permute(1, 2, 0).numpy() - wall)[inside].mean()
        for made in (behind_person(photo, hole, hole, blur=2.0), spread(photo, hole, blur=2.0))
    )
    assert smooth > 25.0 and pieces < 0.4 * smooth


def test_nothing_changes_outside_the_hole_and_the_same_is_made_again() -> None:
    photo, hole = stripes(), a_hole()
    made = behind_person(photo, hole, hole, blur=2.0)
    outside = ~hole[0].bool().numpy()
    np.testing.assert_array_equal(made.permute(1, 2, 0).numpy()[outside], photo[outside])
    assert torch.equal(made, behind_person(photo, hole, hole, blur=2.0))


def test_the_tone_of_the_filling_meets_the_border() -> None:
    y, x = np.mgrid[:120, :160]
    photo = np.repeat((40 + x + 0 * y)[..., None], 3, axis=-1).astype(np.uint8)  # lighter from left to right
    hole = a_hole()
    made = behind_person(photo, hole, hole, blur=2.0)[0]
    steps = (made[30:70, 60] - made[30:70, 59], made[30:70, 104] - made[30:70, 103])
    assert max(float(step.abs().mean()) for step in steps) < 6.0


def test_the_person_is_no_piece_of_the_background() -> None:
    photo = stripes()
    hole, person = a_hole(20, 60), a_hole(20, 120)
    photo[person[0].bool().numpy()] = (250, 0, 0)
    made = behind_person(photo, hole, person, blur=2.0)[:, hole[0].bool()]
    assert float((made[0] - made[1]).abs().mean()) < 5.0  # grey, not red


def test_with_hardly_any_background_the_filling_is_smooth() -> None:
    photo, hole = stripes(), torch.ones(1, 120, 160)
    hole[:, :4] = 0.0
    made = behind_person(photo, hole, hole, blur=2.0)
    assert torch.equal(made, spread(photo, hole, blur=2.0))
