"""What is put behind a person goes smoothly from one border of the hole to the other."""

from __future__ import annotations

import numpy as np
import torch

from cutouts import a_person
from export3d.animation.fill import behind_person, without_person

ROWS, COLUMNS = slice(20, 80), slice(60, 104)


def a_slope() -> np.ndarray:
    """Lighter from left to right and downwards."""
    y, x = np.mgrid[:120, :160]
    return np.repeat((40 + x + y // 3)[..., None], 3, axis=-1).astype(np.uint8)


def a_hole(bottom: int = 80) -> torch.Tensor:
    hole = torch.zeros(1, 120, 160)
    hole[:, 20:bottom, COLUMNS] = 1.0
    return hole


def test_a_slope_goes_on_behind_the_person() -> None:
    wall, hole = a_slope(), a_hole()
    photo = wall.copy()
    photo[hole[0].bool().numpy()] = (250, 0, 0)
    made = behind_person(photo, hole, hole).permute(1, 2, 0).numpy()
    assert np.abs(made - wall)[ROWS, COLUMNS].max() < 4.0


def test_nothing_changes_outside_the_hole_and_there_is_no_edge_at_its_border() -> None:
    photo, hole = np.random.default_rng(0).integers(90, 110, (120, 160, 3), dtype=np.uint8), a_hole()
    photo[:, :80] += 80
    made = behind_person(photo, hole, hole).permute(1, 2, 0).numpy()
    outside = ~hole[0].bool().numpy()
    np.testing.assert_array_equal(made[outside], photo[outside])
    assert abs(made[30:70, 61].mean() - 180.0) < 8.0 and abs(made[30:70, 102].mean() - 100.0) < 8.0
    assert np.abs(np.diff(made[50, COLUMNS], axis=0)).max() < 6.0


def test_the_person_gives_no_colour_to_what_is_behind() -> None:
    photo, hole, person = a_slope(), a_hole(60), a_hole(120)
    photo[person[0].bool().numpy()] = (250, 0, 0)
    made = behind_person(photo, hole, person)[:, hole[0].bool()]
    assert float((made[0] - made[1]).abs().max()) < 1.0  # grey, not red


def test_without_any_background_the_photograph_stays() -> None:
    photo, whole = a_slope(), torch.ones(1, 120, 160)
    assert torch.equal(behind_person(photo, whole, whole), torch.from_numpy(photo).permute(2, 0, 1).float())


def test_the_driven_person_leaves_with_a_rim_and_bystanders_neither_leave_nor_show_through() -> None:
    wall = a_slope()
    photo, own, other = wall.copy(), *(np.zeros((120, 160), dtype=np.float32) for _ in range(2))
    own[ROWS, COLUMNS], other[ROWS, 106:130] = 1.0, 1.0
    photo[ROWS, 104:106] = (250, 0, 0)  # hair beyond what was taken for the person
    photo[own > 0.0], photo[other > 0.0] = (250, 0, 0), (0, 0, 255)
    made = without_person(photo, a_person(np.maximum(own, other), own))  # their crop has 80 pixels: a rim of two
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made[other > 0.0], photo[other > 0.0])
    assert np.abs(made[ROWS, 58:106].astype(int) - wall[ROWS, 58:106]).max() < 12
