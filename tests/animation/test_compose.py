"""Panels and depth pictures."""

from __future__ import annotations

import numpy as np

from export3d.animation.compose import (
    DEPTH_COLOURS,
    EMPTY_COLOUR,
    depth_picture,
    depth_range,
    fit_height,
    resize,
    side_by_side,
)


def test_panels_take_the_height_of_the_last_one_and_keep_their_proportions() -> None:
    red, blue = np.zeros((40, 80, 3), dtype=np.uint8), np.zeros((20, 20, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    joined = side_by_side([red, blue])
    assert joined.shape == (20, 40 + 20, 3)
    assert (joined[:, :40, 0] == 255).all() and (joined[:, 40:, 2] == 255).all()


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    assert resize(image, 16, 16) is image


def test_widths_come_out_even() -> None:
    assert fit_height(np.zeros((100, 33, 3), dtype=np.uint8), 50).shape == (50, 16, 3)  # 16.5 -> 2 * round(8.25)


def test_near_is_light_far_is_dark_and_empty_is_nearly_black() -> None:
    depth = np.array([[2.0, 3.0, 2.5, 2.5]])
    picture = depth_picture(depth, np.array([[1.0, 1.0, 1.0, 0.0]]), 2.0, 3.0)
    assert np.array_equal(picture[0, 0], DEPTH_COLOURS[0]) and np.array_equal(picture[0, 1], DEPTH_COLOURS[-1])
    assert np.array_equal(picture[0, 2], DEPTH_COLOURS[3])  # the middle of seven stops
    assert np.array_equal(picture[0, 3], EMPTY_COLOUR)


def test_the_depth_colours_get_darker_all_the_way() -> None:
    lightness = DEPTH_COLOURS @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) < -15).all()


def test_the_depth_range_ignores_what_was_not_hit() -> None:
    depth = np.concatenate([np.linspace(2.0, 3.0, 101), np.full(50, 9.0)])
    opacity = np.concatenate([np.ones(101), np.zeros(50)])
    near, far = depth_range(depth, opacity)
    assert (round(near, 6), round(far, 6)) == (2.02, 2.98)  # 2 % and 98 % of 101 even steps


def test_the_depth_range_of_nothing_is_still_a_range() -> None:
    near, far = depth_range(np.full((4, 4), 2.5), np.zeros((4, 4)))
    assert far > near
