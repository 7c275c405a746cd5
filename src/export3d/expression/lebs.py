"""LeBS, learned basis scaling (Eqs. 2-3): beta -> coefficients lambda -> beta' = sum_i lambda_i v_i."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from export3d.checks import check_choice, check_shape
from export3d.expression.spaces import BETA_DIM, SPACES

_NEAREST_STEPS = 60
_NEAREST_DAMPING = 1e-4  # against directions of lambda that beta hardly moves


@dataclass(frozen=True, kw_only=True)
class LeBSConfig:
    """The expression encoder f_e."""

    kind: str = "lebs"
    """`lebs`: basis scaling (Sec. 3.1); `direct`: fully connected layers only (Table 3, Direct 3DMM)."""
    space: str = "ict64"
    """Expression space of beta (expression/spaces.py)."""
    dim: int = 256
    """d, the length of beta' (Sec. 3.1: d = h/4 = 256)."""
    num_basis: int = 10
    """n, the number of basis vectors (Sec. 3.1: 10; Table 3 also 25 and 5)."""
    hidden: int = 256
    """Width between the two fully connected layers (not in the paper)."""
    activation: str = "leaky_relu"
    """`leaky_relu` (slope 0.2) or `none` (a rank-n linear map, as in LIA)."""
    pretrained: bool = True
    """True: f_e and the stored basis come from CLeBS and stay frozen. False: trained end to end (Table 3, E2E LeBS)."""

    def __post_init__(self) -> None:
        check_choice("expression.kind", self.kind, ("lebs", "direct"))
        check_choice("expression.space", self.space, SPACES)
        check_choice("expression.activation", self.activation, ("leaky_relu", "none"))
        if not 1 <= self.num_basis <= self.dim:
            raise ValueError(f"expression.num_basis must be between 1 and dim = {self.dim}; got {self.num_basis}")


class LeBS(nn.Module):
    """f_e: two fully connected layers, then a linear combination of orthonormal basis vectors.

    While it is trained (`pretrained=False`) the basis is the sign-fixed Q of a QR decomposition of a free matrix;
    afterwards Q itself is stored, so that nothing depends on a QR implementation any more.
    """

    stored_basis: Tensor
    coeff_scale: Tensor

    def __init__(self, config: LeBSConfig) -> None:
        super().__init__()
        if config.kind != "lebs":
            raise ValueError("LeBS needs kind='lebs'; use build_expression for the others")
        self.config = config
        middle = nn.LeakyReLU(0.2) if config.activation == "leaky_relu" else nn.Identity()
        self.layers = nn.Sequential(
            nn.Linear(BETA_DIM, config.hidden), middle, nn.Linear(config.hidden, config.num_basis)
        )
        self.register_buffer("coeff_scale", torch.ones(()))
        if config.pretrained:
            self.register_buffer("stored_basis", orthonormal_basis(torch.randn(config.dim, config.num_basis)))
            self.layers.requires_grad_(False)
        else:
            self.free_basis = nn.Parameter(torch.randn(config.dim, config.num_basis))

    @property
    def basis(self) -> Tensor:
        """V (Eq. 2), ``(d, n)`` with orthonormal columns v_i."""
        return self.stored_basis if self.config.pretrained else orthonormal_basis(self.free_basis)

    def coefficients(self, beta: Tensor) -> Tensor:
        """lambda (Eq. 3): ``beta`` (B, 64) -> (B, n)."""
        check_shape("beta", beta, None, BETA_DIM)
        return self.layers(beta) * self.coeff_scale

    def forward(self, beta: Tensor) -> Tensor:
        """beta' = sum_i lambda_i v_i (Eq. 3): ``beta`` (B, 64) -> (B, d)."""
        return self.combine(self.coefficients(beta))

    def combine(self, coefficients: Tensor) -> Tensor:
        """beta' of given coefficients: lambda (B, n) -> (B, d)."""
        return coefficients @ self.basis.T

    def nearest_beta(self, coefficients: Tensor, beta: Tensor) -> Tensor:
        """The smallest change of `beta` that gives these coefficients, by Gauss-Newton steps (not in the paper).

        Args:
            coefficients: ``(B, n)`` wanted lambda.
            beta: ``(B, 64)`` where to begin.

        Returns:
            ``(B, 64)``. The bends of the activation leave an error of a few hundredths of lambda's spread, more far outside.
        """
        first, middle, last = self.layers[0], self.layers[1], self.layers[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        slope = middle.negative_slope if isinstance(middle, nn.LeakyReLU) else 1.0
        into, out = first.weight.double(), (last.weight * self.coeff_scale).double()
        start, wanted = beta.double(), coefficients.double()
        damping = _NEAREST_DAMPING * torch.eye(self.config.num_basis, dtype=torch.float64, device=beta.device)
        found = start
        for number in range(_NEAREST_STEPS):
            hidden = found @ into.T + first.bias.double()
            slopes = torch.where(hidden > 0, 1.0, slope)
            jacobian = torch.einsum("nh,bh,hi->bni", out, slopes, into)
            met = (hidden * slopes) @ out.T + (last.bias * self.coeff_scale).double()
            missing = wanted - met + torch.einsum("bni,bi->bn", jacobian, found - start)
            step = torch.linalg.solve(jacobian @ jacobian.mT + damping, missing)
            # Less and less of the way: whole steps may jump to and fro over a bend of the activation.
            share = 4.0 / (number + 8.0)
            found = found + share * (start + torch.einsum("bni,bn->bi", jacobian, step) - found)
        return found.to(beta.dtype)

    def scaled_basis(self, beta: Tensor) -> Tensor:
        """The n vectors lambda_i v_i as tokens, (B, n, d): the cross-attention ablation's keys and values."""
        return self.scaled(self.coefficients(beta))

    def scaled(self, coefficients: Tensor) -> Tensor:
        """The same of given coefficients (B, n)."""
        return coefficients[:, :, None] * self.basis.T[None]

    def frozen(self, coeff_scale: float = 1.0) -> LeBS:
        """A copy for phases 1 and 2: Q stored, all weights frozen, coefficients rescaled once by a constant.

        Eq. 1 is blind to the length of beta', so pre-training leaves the scale of lambda to chance.
        """
        copy = LeBS(replace(self.config, pretrained=True))
        copy.layers.load_state_dict(self.layers.state_dict())
        copy.stored_basis.copy_(self.basis.detach())
        copy.coeff_scale.copy_(self.coeff_scale * coeff_scale)
        return copy.requires_grad_(False)


class DirectExpression(nn.Module):
    """Table 3's Direct 3DMM: fully connected layers 64 -> 256 -> d in place of CLeBS, trained end to end."""

    def __init__(self, config: LeBSConfig) -> None:
        super().__init__()
        self.config = config
        middle = nn.LeakyReLU(0.2) if config.activation == "leaky_relu" else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(BETA_DIM, config.hidden), middle, nn.Linear(config.hidden, config.dim))

    def forward(self, beta: Tensor) -> Tensor:
        """``beta`` (B, 64) -> (B, d)."""
        check_shape("beta", beta, None, BETA_DIM)
        return self.layers(beta)


def build_expression(config: LeBSConfig) -> LeBS | DirectExpression:
    """The expression encoder that `config.kind` names."""
    return LeBS(config) if config.kind == "lebs" else DirectExpression(config)


def orthonormal_basis(matrix: Tensor) -> Tensor:
    """Q of the reduced QR decomposition with the signs fixed so that diag(R) > 0: unique and smooth.

    Args:
        matrix: ``(d, n)``, n <= d, full column rank. Computed in float32 outside autocast.

    Returns:
        ``(d, n)`` with orthonormal columns.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        q, r = torch.linalg.qr(matrix.float() + 1e-8)
        signs = torch.where(r.diagonal() < 0, -1.0, 1.0)
        return q * signs
