"""expression/contrastive.py, Eq. 1: chance level, hand-made values, and a slow reference."""

from __future__ import annotations

import math

import pytest
import torch

from export3d.expression.contrastive import contrastive_loss, cosine_matrix, retrieval_accuracy


def test_at_chance_the_loss_is_ln_32() -> None:
    """33 frames with equal cosines: -log(e^s / (32 e^s)) = ln 32 = 3.465736."""
    codes = torch.ones(2, 33, 8)
    assert contrastive_loss(codes, codes).item() == pytest.approx(3.465736, abs=1e-5)


def test_at_chance_with_the_positive_in_the_denominator_it_is_ln_33() -> None:
    codes = torch.ones(2, 33, 8)
    assert contrastive_loss(codes, codes, include_positive=True).item() == pytest.approx(3.496508, abs=1e-5)


def test_two_frames_by_hand() -> None:
    # beta'_1 = (1, 0), beta'_2 = (0, 1); f_I(X_1) = (1, 0), f_I(X_2) = (3, 4) / 5 (length is ignored: use (3, 4)).
    # Cosines: row 1: 1, 0.6; row 2: 0, 0.8. tau = 0.5.
    # Literal Eq. 1: row 1: -(1 - 0.6) / 0.5 = -0.8; row 2: -(0.8 - 0) / 0.5 = -1.6; mean -1.2.
    # With the positive: ln(1 + e^-0.8) = 0.371101, ln(1 + e^-1.6) = 0.183901; mean 0.277501.
    expression = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    images = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    assert contrastive_loss(expression, images, temperature=0.5).item() == pytest.approx(-1.2, abs=1e-6)
    inclusive = contrastive_loss(expression, images, temperature=0.5, include_positive=True)
    assert inclusive.item() == pytest.approx(0.277501, abs=1e-5)


def test_the_lowest_possible_value_is_minus_two_over_tau_plus_ln_32() -> None:
    """Positive cosine 1, negatives -1 needs opposite images; two frames reach it: -2 / 0.07 + ln 1 = -28.571429."""
    expression = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert contrastive_loss(expression, expression).item() == pytest.approx(-2 / 0.07, abs=1e-4)


def test_it_equals_equation_1_in_a_slow_loop() -> None:
    expression, images = torch.randn(3, 5, 7).double(), torch.randn(3, 5, 7).double()
    total = 0.0
    for c in range(3):
        for k in range(5):

            def e(j: int, c: int = c, k: int = k) -> float:
                a, b = expression[c, k], images[c, j]
                return math.exp(float(a @ b / (a.norm() * b.norm())) / 0.07)

            total += -math.log(e(k) / sum(e(j) for j in range(5) if j != k))
    assert contrastive_loss(expression, images).item() == pytest.approx(total / 15, abs=1e-4)


def test_clips_never_serve_as_each_others_negatives() -> None:
    expression, images = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    apart = [contrastive_loss(expression[c : c + 1], images[c : c + 1]) for c in range(2)]
    assert contrastive_loss(expression, images).item() == pytest.approx((sum(apart) / 2).item(), abs=1e-5)


def test_the_length_of_the_codes_does_not_matter() -> None:
    expression, images = torch.randn(1, 5, 7), torch.randn(1, 5, 7)
    assert torch.allclose(
        contrastive_loss(expression * 9, images * 0.1), contrastive_loss(expression, images), atol=1e-5
    )


def test_the_symmetric_option_averages_both_directions() -> None:
    expression, images = torch.randn(1, 5, 7), torch.randn(1, 5, 7)
    both = contrastive_loss(expression, images, symmetric=True)
    mean = (contrastive_loss(expression, images) + contrastive_loss(images, expression)) / 2
    assert torch.allclose(both, mean, atol=1e-6)
    assert not torch.allclose(both, contrastive_loss(expression, images), atol=1e-4)


def test_gradients_are_finite_and_reach_both_sides() -> None:
    expression = torch.randn(2, 33, 8, requires_grad=True)
    images = torch.randn(2, 33, 8, requires_grad=True)
    contrastive_loss(expression, images).backward()
    for codes in (expression, images):
        assert codes.grad is not None and torch.isfinite(codes.grad).all() and codes.grad.abs().sum() > 0


@pytest.mark.slow
def test_a_step_along_the_gradient_brings_the_pairs_together() -> None:
    expression = torch.randn(1, 6, 8, requires_grad=True)
    images = torch.randn(1, 6, 8)
    optimiser = torch.optim.Adam([expression], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        contrastive_loss(expression, images).backward()
        optimiser.step()
    assert retrieval_accuracy(expression, images).item() == 1.0


def test_cosines_are_those_of_a_hand_made_pair() -> None:
    a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[4.0, 3.0]]])
    assert cosine_matrix(a, b).item() == pytest.approx(24 / 25, abs=1e-6)


def test_retrieval_counts_anchors_whose_nearest_image_is_their_own() -> None:
    expression = torch.eye(4)[None]
    images = torch.eye(4)[None, [0, 1, 3, 2]]  # frames 2 and 3 swapped
    assert retrieval_accuracy(expression, images).item() == 0.5


def test_different_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"image_codes must have shape \(1, 5, 7\); got \(1, 4, 7\)"):
        contrastive_loss(torch.randn(1, 5, 7), torch.randn(1, 4, 7))
