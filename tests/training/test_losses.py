"""Eqs. 13 and 14 and every optional term against hand-computed values and slow references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.rendering.rays import rays_through
from export3d.training.losses.terms import (
    LossWeights,
    PortraitPrediction,
    PortraitTarget,
    Prediction,
    Target,
    discriminator_adversarial_loss,
    generator_adversarial_loss,
    masked_l1,
    multi_scale_gradient_l1,
    portrait_terms,
    r1_penalty,
    reconstruction_terms,
    seen_points,
    surface_loss,
    total_loss,
    weighted_mean,
    weighted_sum,
)

NONE = LossWeights(mse_raw=0, mse=0, perceptual_raw=0, perceptual=0)


def halves(prediction_raw: float, prediction: float) -> tuple[Prediction, Target]:
    """Constant images against black targets (value 0)."""
    given = Prediction(raw=torch.full((2, 3, 2, 2), prediction_raw), image=torch.full((2, 3, 4, 4), prediction))
    return given, Target(raw=torch.zeros(2, 3, 2, 2), image=torch.zeros(2, 3, 4, 4))


def mean_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A stand-in perceptual distance whose value can be computed by hand: |mean(a) - mean(b)| per sample."""
    return (a.mean(dim=(1, 2, 3)) - b.mean(dim=(1, 2, 3))).abs()


def test_equation_13_is_the_sum_of_two_squared_errors_and_two_perceptual_distances() -> None:
    given, wanted = halves(0.5, 0.2)
    weights = LossWeights()
    terms = reconstruction_terms(given, wanted, weights, mean_difference)
    # mse_raw 0.5^2 = 0.25, mse 0.2^2 = 0.04, perceptual_raw 0.5, perceptual 0.2: together 0.99.
    assert sorted(terms) == ["mse", "mse_raw", "perceptual", "perceptual_raw"]
    assert weighted_sum(terms, weights).item() == pytest.approx(0.25 + 0.04 + 0.5 + 0.2, abs=1e-6)


def test_equation_13_weights_scale_each_term() -> None:
    given, wanted = halves(0.5, 0.2)
    weights = replace(NONE, mse_raw=2.0, l1=3.0)
    terms = reconstruction_terms(given, wanted, weights, None)
    # 2 * 0.25 + 3 * 0.2 = 1.1
    assert weighted_sum(terms, weights).item() == pytest.approx(1.1, abs=1e-6)


def test_pixels_are_compared_by_their_difference() -> None:
    given, wanted = halves(0.5, 0.25)
    wanted = replace(wanted, raw=wanted.raw + 0.4, image=wanted.image - 0.25)
    names = ("mse", "mse_raw", "l1", "l1_raw")
    terms = reconstruction_terms(given, wanted, replace(NONE, **dict.fromkeys(names, 1.0)), None)
    assert [terms[name].item() for name in names] == pytest.approx([0.25, 0.01, 0.5, 0.1], abs=1e-6)


def test_equation_14_adds_a_hundredth_of_the_adversarial_loss() -> None:
    # 1 * 0.99 + 0.01 * 0.7 = 0.997
    assert total_loss(torch.tensor(0.99), torch.tensor(0.7)).item() == pytest.approx(0.997, abs=1e-6)


def test_adversarial_losses_are_binary_cross_entropy_on_logits() -> None:
    fake, real = torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0])

    def sigmoid(x: float) -> float:
        return 1.0 / (1.0 + math.exp(-x))

    # Generator, target 1: mean of -log sigmoid(0) = log 2 and -log sigmoid(2).
    wanted = (math.log(2.0) - math.log(sigmoid(2.0))) / 2
    assert generator_adversarial_loss(fake).item() == pytest.approx(wanted, abs=1e-6)
    real_part = -(math.log(sigmoid(1.0)) + math.log(sigmoid(-1.0))) / 2
    fake_part = -(math.log(1 - sigmoid(0.0)) + math.log(1 - sigmoid(2.0))) / 2
    assert discriminator_adversarial_loss(real, fake).item() == pytest.approx(real_part + fake_part, abs=1e-6)


def test_generator_adversarial_loss_does_not_saturate_when_the_discriminator_is_sure() -> None:
    logits = torch.tensor([-20.0], requires_grad=True)
    generator_adversarial_loss(logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1.0, abs=1e-6)


def test_r1_penalty_of_a_linear_discriminator_is_its_squared_weight() -> None:
    image = torch.randn(3, 2, requires_grad=True)
    raw = torch.randn(3, 1, requires_grad=True)
    logits = image @ torch.tensor([3.0, 4.0]) + 2.0 * raw[:, 0]
    # |(3, 4)|^2 + |2|^2 = 29 for each sample.
    assert r1_penalty(logits, (image, raw)).item() == pytest.approx(29.0, abs=1e-5)


def test_multi_scale_gradient_matches_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 3, 8, 8)), rng.normal(size=(2, 3, 8, 8))
    wanted = 0.0
    x, y = a, b
    for level in range(3):
        if level:
            x, y = (z.reshape(2, 3, z.shape[2] // 2, 2, z.shape[3] // 2, 2).mean(axis=(3, 5)) for z in (x, y))
        wanted += np.abs(np.diff(x, axis=3) - np.diff(y, axis=3)).mean()
        wanted += np.abs(np.diff(x, axis=2) - np.diff(y, axis=2)).mean()
    given = multi_scale_gradient_l1(torch.from_numpy(a), torch.from_numpy(b))
    assert given.item() == pytest.approx(wanted, abs=1e-12)


def test_multi_scale_gradient_of_a_tiny_image_stops_at_its_last_level() -> None:
    # Side 4 has levels 4 and 2; a third would have nothing to difference.
    given = torch.rand(1, 3, 4, 4)
    value = multi_scale_gradient_l1(given, torch.zeros_like(given), levels=3)
    assert value.item() == pytest.approx(multi_scale_gradient_l1(given, torch.zeros_like(given), levels=2).item())


def test_multi_scale_gradient_ignores_a_constant_shift() -> None:
    image = torch.randn(1, 3, 8, 8)
    assert multi_scale_gradient_l1(image, image + 0.7).item() == pytest.approx(0.0, abs=1e-6)


def test_masked_depth_error_counts_only_known_pixels_and_each_sample_alike() -> None:
    given = torch.tensor([[[[1.0, 9.0]]], [[[2.0, 2.0]]]])
    wanted = torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]])
    inside = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    # Sample 1: |1 - 0| = 1; sample 2: (2 + 1) / 2 = 1.5; mean 1.25.
    assert masked_l1(given, wanted, inside).item() == pytest.approx(1.25)


def test_pixel_weights_move_the_error_but_not_the_scale() -> None:
    error = torch.tensor([[[[1.0, 0.0]]]])
    weight = torch.tensor([[[[3.0, 1.0]]]])
    # Weights scaled to mean 1 are 1.5 and 0.5: (1.5 * 1 + 0.5 * 0) / 2 = 0.75.
    assert weighted_mean(error, weight).item() == pytest.approx(0.75)
    assert weighted_mean(torch.ones(1, 1, 1, 2), weight).item() == pytest.approx(1.0)


def test_depth_opacity_and_matte_terms_have_hand_computed_values() -> None:
    weights = replace(NONE, depth=1.0, opacity=1.0, matte=1.0, source_depth=1.0)
    given, wanted = halves(0.0, 0.0)
    one = torch.ones(2, 1, 2, 2)
    given = replace(given, depth=2.5 * one, opacity=0.5 * one, portrait=PortraitPrediction(0.0 * one, 0.2 * one))
    left = one.clone()
    left[..., 1] = 0.0  # the right column's depth is unknown
    portrait = PortraitTarget(matte=one, depth=0.3 * left, inside=left)
    wanted = replace(wanted, depth=2.0 * one, inside=one, opacity=one, portrait=portrait)
    terms = reconstruction_terms(given, wanted, weights, None)
    assert terms["depth"].item() == pytest.approx(0.5)
    assert terms["opacity"].item() == pytest.approx(0.25)
    both = reconstruction_terms(
        replace(given, image_opacity=0.2 * one), replace(wanted, image_opacity=one), weights, None
    )
    assert both["opacity"].item() == pytest.approx(0.25 + 0.64)
    assert terms["matte"].item() == pytest.approx(math.log(2.0))
    assert terms["source_depth"].item() == pytest.approx(0.1)
    assert portrait_terms(given.portrait, PortraitTarget(), weights) == {}


def test_a_perceptual_weight_without_a_network_is_refused() -> None:
    given, wanted = halves(0.5, 0.2)
    with pytest.raises(ValueError, match="need a perceptual distance"):
        reconstruction_terms(given, wanted, LossWeights(), None)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="loss weight mse must not be negative; got -1"):
        LossWeights(mse=-1)


def test_the_surface_term_is_the_distance_in_hundredths_plus_the_gates_cross_entropy() -> None:
    wanted = torch.zeros(1, 2, 3)
    places = torch.tensor([[[0.03, 0.04, 0.0], [0.0, 0.0, 0.01]]])  # 5 and 1 hundredths away
    logits, gates = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # ln 2 each
    value = surface_loss(places, logits, wanted, gates)
    soft = (math.sqrt(25.09) - 0.3 + math.sqrt(1.09) - 0.3) / 2
    assert float(value) == pytest.approx(soft + math.log(2.0), abs=1e-4)


def test_a_point_is_seen_unless_something_stands_before_it_or_it_is_outside_the_frame() -> None:
    camera = Camera.look_at_head(torch.zeros(1))  # at (0, 0, 2.7), looking at the origin
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.1], [0.0, 0.0, -0.1], [2.0, 0.0, 0.0]]])
    depth = torch.full((1, 8, 8), 2.7)
    assert seen_points(points, camera, depth).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert seen_points(points, camera, torch.zeros(1, 8, 8)).sum() == 0  # nothing of the head there
    assert seen_points(points, camera, depth, tolerance=0.2).tolist() == [[1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(("x", "y"), [(0.5, 4.5), (4.5, 0.5), (7.5, 4.5), (4.5, 7.5), (-0.5, 4.5), (4.5, 8.5)])
def test_the_outermost_pixels_belong_to_the_frame_and_those_beside_it_do_not(x: float, y: float) -> None:
    camera = Camera.look_at_head(torch.zeros(1))
    _, direction = rays_through(camera, torch.tensor([[x / 8]]), torch.tensor([[y / 8]]))
    point = camera.cam_to_world[:, None, :3, 3] + 2.7 * direction
    inside = 0 < x < 8 and 0 < y < 8
    depth = torch.ones(1, 8, 8)  # everything else stands before it
    depth[0, min(max(int(y), 0), 7), min(max(int(x), 0), 7)] = 2.7
    assert seen_points(point, camera, depth).tolist() == [[float(inside)]]


@pytest.mark.parametrize(
    "name", ["depth", "opacity", "occupancy", "mse", "mse_raw", "l1", "gradient", "perceptual", "perceptual_raw"]
)
def test_a_term_is_there_from_the_smallest_weight_on_and_not_without_one(name: str) -> None:
    one = torch.ones(2, 1, 2, 2)
    given, wanted = halves(0.5, 0.25)
    given = replace(given, depth=one, opacity=one, sigma=torch.ones(2, 3))
    wanted = replace(wanted, depth=one, inside=one, opacity=one, solid=torch.ones(2, 3))
    assert name not in reconstruction_terms(given, wanted, NONE, mean_difference)
    assert name in reconstruction_terms(given, wanted, replace(NONE, **{name: 1e-3}), mean_difference)


def test_the_surface_term_needs_places_on_both_sides() -> None:
    places, logits = torch.zeros(2, 3, 3), torch.zeros(2, 3, 2)
    given, wanted = halves(0.5, 0.25)
    given = replace(given, places=places, gate_logits=logits)
    weights = replace(NONE, surface=1.0)
    assert "surface" not in reconstruction_terms(given, wanted, weights, None)
    wanted = replace(wanted, places=places + 0.05, gates=torch.ones(2, 3, 2))
    found = reconstruction_terms(given, wanted, weights, None)["surface"]
    assert wanted.places is not None and wanted.gates is not None
    assert float(found) == pytest.approx(float(surface_loss(places, logits, wanted.places, wanted.gates)))
