"""portrait/background.py: the filled background and the matte."""

from __future__ import annotations

import pytest
import torch

from export3d.portrait.background import (
    BackgroundConfig,
    SourceMatte,
    background_window,
    fill_background,
    grown,
    without_rim,
)


def test_without_a_head_the_background_is_the_portrait() -> None:
    source = torch.rand(1, 3, 32, 32)
    assert torch.allclose(fill_background(source, torch.zeros(1, 1, 32, 32)), source, atol=1e-6)


def test_a_hole_in_a_constant_picture_is_filled_with_that_constant() -> None:
    source = torch.full((1, 3, 32, 32), 0.25)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1.0
    source[..., 8:24, 8:24] = -1.0  # the head's own colour must not show
    assert torch.allclose(fill_background(source, mask), torch.full((1, 3, 32, 32), 0.25), atol=1e-5)


def test_the_background_away_from_the_head_is_left_alone() -> None:
    source = torch.rand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 12:20, 12:20] = 1.0
    filled = fill_background(source, mask)
    assert torch.equal(filled[..., :8, :], source[..., :8, :])


def test_the_fill_stays_between_the_colours_around_it() -> None:
    source = torch.rand(2, 3, 64, 64)
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 16:64, 16:48] = 1.0
    filled = fill_background(source, mask)
    assert torch.isfinite(filled).all() and filled.min() >= -1e-5 and filled.max() <= 1 + 1e-5


def test_a_head_that_covers_everything_gives_finite_colours() -> None:
    assert torch.isfinite(fill_background(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))).all()


def test_the_matte_has_half_the_resolution() -> None:
    assert SourceMatte(BackgroundConfig(width=4))(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 16, 16)


def test_a_window_of_the_background_is_its_crop_at_the_asked_size() -> None:
    background = torch.rand(2, 3, 32, 32)
    top, left = torch.tensor([0, 3]), torch.tensor([4, 2])
    whole = background_window(background, 8, None)
    assert torch.allclose(whole, torch.nn.functional.avg_pool2d(background, 4), atol=1e-6)
    window = background_window(background, 8, (top, left, 4))
    assert torch.equal(window[0], whole[0, :, 0:4, 4:8]) and torch.equal(window[1], whole[1, :, 3:7, 2:6])


def test_the_hole_is_grown_by_two_pixels_so_that_the_heads_rim_does_not_bleed() -> None:
    source = torch.full((1, 3, 32, 32), 0.25)
    source[..., 8:24, 8:24] = -1.0  # the head is two pixels larger on each side than the mask says
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 10:22] = 1.0
    assert torch.allclose(fill_background(source, mask), torch.full((1, 3, 32, 32), 0.25), atol=1e-5)


def test_the_rim_of_a_hole_is_blurred_and_what_is_far_from_it_stays() -> None:
    foreground = torch.zeros(1, 1, 64, 64)
    foreground[..., 24:40, 24:40] = 1.0
    filled = torch.rand(1, 3, 64, 64)
    soft = without_rim(filled, foreground, 2)
    assert torch.equal(soft[..., :10, :], filled[..., :10, :])
    step = (filled[..., 22, 24:40] - filled[..., 21, 24:40]).abs().mean()
    assert (soft[..., 22, 24:40] - soft[..., 21, 24:40]).abs().mean() < 0.4 * step


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 40])
def test_a_mask_is_grown_to_the_largest_value_of_a_square(pixels: int) -> None:
    mask = torch.rand(1, 17, 30).square()
    wanted = torch.nn.functional.max_pool2d(mask, 2 * pixels + 1, 1, pixels)
    assert torch.equal(grown(mask, pixels), wanted)
