"""expression/lebs.py, Eqs. 2-3: the basis stays orthonormal, beta' lies in its span, ablations are configurations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.errors import UsageError
from export3d.expression.lebs import DirectExpression, LeBS, LeBSConfig, build_expression, orthonormal_basis

TRAINED = LeBSConfig(pretrained=False, dim=32, num_basis=6, hidden=16)


def _is_orthonormal(basis: torch.Tensor) -> bool:
    return torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5)


def test_the_basis_is_orthonormal_before_and_after_optimiser_steps() -> None:
    lebs = LeBS(TRAINED)
    optimiser = torch.optim.Adam(lebs.parameters(), lr=0.05)
    before = lebs.basis.detach().clone()
    assert _is_orthonormal(before)
    for _ in range(20):
        optimiser.zero_grad()
        (lebs(torch.randn(8, 64)) - 1.0).square().mean().backward()
        optimiser.step()
    after = lebs.basis.detach()
    assert _is_orthonormal(after)
    assert not torch.allclose(before, after, atol=1e-2)


def test_every_column_sign_is_fixed_by_a_positive_diagonal() -> None:
    for seed in range(20):
        matrix = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))
        q = orthonormal_basis(matrix)
        r = q.T @ matrix  # upper triangular
        assert (r.diagonal() > 0).all()
        assert torch.allclose(r.tril(-1), torch.zeros(5, 5), atol=1e-5)
        assert torch.allclose(q @ r, matrix, atol=1e-5)


def test_the_basis_equals_gram_schmidt_worked_by_hand() -> None:
    # Columns (3, 4, 0) and (1, 0, 2). v1 = (0.6, 0.8, 0). <v1, a2> = 0.6; rest (0.64, -0.48, 2), length
    # sqrt(0.4096 + 0.2304 + 4) = 2.154066; v2 = (0.297113, -0.222835, 0.928477).
    q = orthonormal_basis(torch.tensor([[3.0, 1.0], [4.0, 0.0], [0.0, 2.0]]))
    expected = torch.tensor([[0.6, 0.297113], [0.8, -0.222835], [0.0, 0.928477]])
    assert torch.allclose(q, expected, atol=1e-5)


def test_the_basis_changes_smoothly_where_a_raw_qr_may_flip_signs() -> None:
    matrix = torch.randn(10, 4)
    for _ in range(50):
        step = 1e-3 * torch.randn_like(matrix)
        assert (orthonormal_basis(matrix + step) - orthonormal_basis(matrix)).abs().max() < 0.05
        matrix = matrix + step


def test_gradient_of_the_basis_is_that_of_finite_differences() -> None:
    matrix = torch.randn(6, 3)
    probe = torch.randn(6, 3)
    matrix.requires_grad_(True)
    (orthonormal_basis(matrix) * probe).sum().backward()
    assert matrix.grad is not None

    def value(m: torch.Tensor) -> float:
        q, r = torch.linalg.qr(m.double())
        return float((q * r.diagonal().sign() * probe).sum())

    numeric = torch.zeros(6, 3)
    for i in range(6):
        for j in range(3):
            step = torch.zeros(6, 3, dtype=torch.float64)
            step[i, j] = 1e-5
            numeric[i, j] = (value(matrix.detach() + step) - value(matrix.detach() - step)) / 2e-5
    assert torch.allclose(matrix.grad, numeric, atol=1e-3)


def test_the_basis_is_float32_even_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        basis = LeBS(TRAINED).basis
    assert basis.dtype == torch.float32 and _is_orthonormal(basis.detach())


def test_beta_prime_is_the_sum_of_scaled_basis_vectors() -> None:
    lebs, beta = LeBS(TRAINED), torch.randn(3, 64)
    coefficients = lebs.coefficients(beta)
    for b in range(3):
        expected = sum(coefficients[b, i] * lebs.basis[:, i] for i in range(6))
        assert torch.allclose(lebs(beta)[b], expected, atol=1e-5)
    assert torch.allclose(lebs.scaled_basis(beta).sum(dim=1), lebs(beta), atol=1e-5)


def test_beta_prime_is_as_long_as_its_coefficients_and_gives_them_back() -> None:
    lebs, beta = LeBS(TRAINED), torch.randn(3, 64)
    coefficients, beta_prime = lebs.coefficients(beta), lebs(beta)
    assert torch.allclose(beta_prime.norm(dim=-1), coefficients.norm(dim=-1), atol=1e-5)
    assert torch.allclose(beta_prime @ lebs.basis, coefficients, atol=1e-5)


def test_the_default_is_the_papers_size_and_frozen() -> None:
    lebs = LeBS(LeBSConfig())
    assert lebs.basis.shape == (256, 10) and _is_orthonormal(lebs.basis)
    assert lebs(torch.randn(2, 64)).shape == (2, 256)
    assert [name for name, p in lebs.named_parameters() if p.requires_grad] == []


def test_freezing_stores_q_and_changes_no_output() -> None:
    lebs, beta = LeBS(TRAINED), torch.randn(4, 64)
    frozen = lebs.frozen()
    assert torch.allclose(frozen(beta), lebs(beta), atol=1e-6)
    assert "free_basis" not in frozen.state_dict() and "stored_basis" in frozen.state_dict()
    assert not any(p.requires_grad for p in frozen.parameters())


def test_freezing_can_rescale_all_coefficients_once() -> None:
    lebs, beta = LeBS(TRAINED), torch.randn(4, 64)
    frozen = lebs.frozen(coeff_scale=2.5)
    assert torch.allclose(frozen(beta), 2.5 * lebs(beta), atol=1e-5)
    assert torch.allclose(frozen.frozen(coeff_scale=2.0)(beta), 5.0 * lebs(beta), atol=1e-4)


def test_a_frozen_copy_does_not_follow_later_training() -> None:
    lebs, beta = LeBS(TRAINED), torch.randn(4, 64)
    frozen = lebs.frozen()
    before = frozen(beta).clone()
    with torch.no_grad():
        for parameter in lebs.parameters():
            parameter.add_(1.0)
    assert torch.equal(frozen(beta), before)


def test_a_frozen_copy_survives_a_state_dict_round_trip_bit_for_bit() -> None:
    frozen, beta = LeBS(TRAINED).frozen(3.0), torch.randn(4, 64)
    other = LeBS(replace(TRAINED, pretrained=True))
    other.load_state_dict(frozen.state_dict())
    assert torch.equal(other(beta), frozen(beta))


@pytest.mark.parametrize("n", [25, 10, 5])
def test_end_to_end_lebs_of_table_3_trains_all_its_weights(n: int) -> None:
    lebs = build_expression(LeBSConfig(pretrained=False, num_basis=n))
    beta_prime = lebs(torch.randn(2, 64))
    assert beta_prime.shape == (2, 256)
    (beta_prime * torch.randn_like(beta_prime)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lebs.parameters())


def test_direct_3dmm_of_table_3_is_two_fully_connected_layers() -> None:
    direct = build_expression(LeBSConfig(kind="direct", pretrained=False))
    assert isinstance(direct, DirectExpression)
    # 64 * 256 + 256 + 256 * 256 + 256 = 82,432.
    assert sum(p.numel() for p in direct.parameters() if p.requires_grad) == 82_432
    assert direct(torch.randn(2, 64)).shape == (2, 256)


def test_without_activation_the_encoder_is_affine() -> None:
    lebs = LeBS(replace(TRAINED, activation="none"))
    a, b = torch.randn(2, 64), torch.randn(2, 64)
    assert torch.allclose(lebs((a + b) / 2), (lebs(a) + lebs(b)) / 2, atol=1e-5)
    bent = LeBS(TRAINED)
    assert not torch.allclose(bent((a + b) / 2), (bent(a) + bent(b)) / 2, atol=1e-3)


@pytest.mark.parametrize("kind", ["lebs", "direct"])
def test_a_wrong_number_of_coefficients_is_named(kind: str) -> None:
    encoder = build_expression(replace(TRAINED, kind=kind))
    with pytest.raises(ValueError, match=r"beta must have shape \(\*, 64\); got \(2, 68\)"):
        encoder(torch.zeros(2, 68))


def test_bad_settings_name_the_option() -> None:
    with pytest.raises(UsageError, match=r"expression\.kind: 'lebz' is not known\. Did you mean 'lebs'\?"):
        LeBSConfig(kind="lebz")
    with pytest.raises(UsageError, match=r"expression\.space: 'bfm' is not known\. Did you mean 'bfm64'\?"):
        LeBSConfig(space="bfm")
    with pytest.raises(ValueError, match=r"expression\.num_basis must be between 1 and dim = 4; got 5"):
        LeBSConfig(dim=4, num_basis=5)
    with pytest.raises(ValueError, match="LeBS needs kind='lebs'"):
        LeBS(LeBSConfig(kind="direct"))


def test_the_nearest_beta_of_a_linear_encoder_is_that_of_the_pseudo_inverse() -> None:
    torch.manual_seed(0)
    encoder = LeBS(LeBSConfig(dim=32, hidden=16, activation="none")).eval()
    encoder.coeff_scale.fill_(3.0)
    beta, wanted = torch.randn(4, 64), torch.randn(4, 10)
    weight = 3.0 * encoder.layers[2].weight @ encoder.layers[0].weight
    expected = beta + (wanted - encoder.coefficients(beta)) @ torch.linalg.pinv(weight).T
    found = encoder.nearest_beta(wanted, beta)
    assert torch.allclose(encoder.coefficients(found), wanted, atol=0.02)
    assert torch.allclose(found, expected, atol=0.05)


def test_the_nearest_beta_has_the_wanted_coefficients_and_stays_where_they_are_met() -> None:
    torch.manual_seed(0)
    encoder = LeBS(LeBSConfig(dim=32, hidden=128)).eval()
    beta = torch.randn(8, 64)
    own = encoder.coefficients(beta)
    assert torch.allclose(encoder.nearest_beta(own, beta), beta, atol=1e-4)
    spread = encoder.coefficients(torch.randn(2000, 64)).std(dim=0)
    wanted = own.clone()
    wanted[:, 3] += 2.0 * spread[3]
    found = encoder.nearest_beta(wanted, beta)
    assert ((encoder.coefficients(found) - wanted).abs() / spread).mean() < 0.1
    assert ((own - wanted).abs() / spread)[:, 3].mean() > 1.9  # what there was to do
    assert (found - beta).norm(dim=1).mean() < (torch.randn(8, 64) - beta).norm(dim=1).mean()
