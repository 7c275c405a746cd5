"""What joins beta' in the condition of G: the own expression, gaze, single weights, the turn of the head (not in the paper).

Single weights and the turn start without a say, so that a trained model may be grown by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export3d.expression.spaces import BETA_DIM
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait.shapes import LOWER_FACE, LOWER_GAIN, UPPER_FACE, UPPER_GAIN, FaceShapes

_TURN_GAIN = 4.0
"""Turns are fractions of a radian; the layer that reads them gets numbers near 1."""

_STIFFNESS = 0.003
"""Weights that beta tells weakly move it little: with 0, an opening jaw would move beta by 14 deviations. Measured on the 24
validation people: 0.003 to 0.01 explain most of the extractor's beta, and lids still read 0.91 of what was asked."""


@dataclass(frozen=True, kw_only=True)
class WeightMaps:
    """What beta and single weights tell of each other; linear."""

    rest: Tensor
    """``(1, 52)`` the weights that a beta of zero says; NaN for weights that no map reads."""
    weight: Tensor
    """``(64, 52)`` weights per beta; 0 for those."""
    back: Tensor
    """``(52, 64)`` beta per weight. Beta is nearly white, so the maps are covariances, and this is the regression the other
    way."""

    def weights(self, beta: Tensor) -> Tensor:
        """As `ExpressionCues.weights`."""
        return self.rest + beta @ self.weight

    def beta_change(self, change: Tensor) -> Tensor:
        """The least change of beta ``(B, 64)`` that goes with about this change of weights ``(B, 52)``; NaN, and what no map
        reads, is not asked."""
        return change.nan_to_num() @ self.back

    def adjusted(self, beta: Tensor, weights: Tensor) -> Tensor:
        """beta ``(B, 64)`` moved by little, so that the maps read about `weights` ``(B, 52)`` off it; NaN leaves a reading as
        it is. The code of the expression then says the same as the single weights beside it."""
        return beta + self.beta_change(weights - self.weights(beta))


class ExpressionCues(nn.Module):
    """Driver's and portrait's state -> one vector that is added to beta'."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.own_expression = nn.Linear(dim, dim)
        self.gaze = nn.Linear(5, dim)
        self.upper = FaceShapes(UPPER_FACE, UPPER_GAIN, dim)
        self.lower = FaceShapes(LOWER_FACE, LOWER_GAIN, dim)
        self.turn = nn.Linear(6, dim)
        nn.init.zeros_(self.turn.weight)
        nn.init.zeros_(self.turn.bias)

    @property
    def shapes(self) -> tuple[FaceShapes, FaceShapes]:
        """Brows and lids; jaw and mouth."""
        return self.upper, self.lower

    def weights(self, beta: Tensor) -> Tensor:
        """What the maps read off beta ``(B, 64)``, as `FaceState.weights` ``(B, 52)``; NaN for weights that no map reads."""
        found = beta.new_full((len(beta), len(ARKIT_NAMES)), torch.nan)
        for part in self.shapes:
            found = part.fill(part.read(beta), found)
        return found

    @torch.no_grad()
    def maps(self) -> WeightMaps:
        """The maps to weights and back as they are now, on the CPU: to be made once, not for each frame."""
        device = self.upper.weight.device
        rest = self.weights(torch.zeros(1, BETA_DIM, device=device))
        maps = (self.weights(torch.eye(BETA_DIM, device=device)) - rest).nan_to_num().cpu()
        gram = maps.T @ maps + _STIFFNESS * torch.eye(maps.shape[1])
        return WeightMaps(rest=rest.cpu(), weight=maps, back=torch.linalg.solve(gram, maps.T))

    def forward(self, beta_prime: Tensor, own_beta_prime: Tensor, driving: FaceState, source: FaceState) -> Tensor:
        """beta' of driver and portrait and their states -> the condition of G, ``(B, d)``."""
        batch = len(beta_prime)
        condition = beta_prime + self.own_expression(own_beta_prime)
        condition = condition + self.gaze(gaze_pair(driving.gaze, source.gaze, beta_prime))
        for part in self.shapes:
            condition = condition + part(part.of(driving), part.of(source).expand(batch, -1))
        still = beta_prime.new_zeros(batch, 3)
        own_turn = still if source.turn is None else source.turn.expand_as(still)
        turn = own_turn if driving.turn is None else driving.turn.to(still)
        return condition + self.turn(_TURN_GAIN * torch.cat([turn, own_turn], dim=1))


def gaze_pair(driving: Tensor | None, source: Tensor | None, like: Tensor) -> Tensor:
    """``(B, 5)``: both gazes and 1. An unknown one of the driver (a NaN in the row, or None) is the portrait's, so that the
    eyes stay as they are; a row is 0 where the portrait's is unknown."""
    if source is None:
        return like.new_zeros(len(like), 5)
    source = source.expand(len(like), -1).to(like)
    driving = source if driving is None else torch.where(driving.isnan().any(dim=1, keepdim=True), source, driving)
    row = torch.cat([driving, source, torch.ones_like(source[:, :1])], dim=1)
    return torch.where(source.isnan().any(dim=1, keepdim=True), torch.zeros_like(row), row)
