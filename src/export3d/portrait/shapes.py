"""Expression weights read off beta (not in the paper): what the contrastive code leaves out joins the condition.

A fixed linear map, fitted to the exact weights of synthetic clips (`fitting/face_shapes.py`), reads them from the driver's
and the portrait's beta. They are as honest as beta is: a real tracker's beta goes through the same map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export3d.expression.spaces import BETA_DIM
from export3d.face_state import FaceState, arkit_column


def _pairs(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{side}" for name in names for side in "LR")


UPPER_FACE = _pairs("browDown", "browInnerUp", "browOuterUp", "eyeBlink", "eyeSquint")
"""Brows and lids, by ARKit's names."""

LOWER_FACE = (
    *("jawOpen", "jawLeft", "jawRight", "mouthLeft", "mouthRight"),
    *("mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper"),
    *_pairs("mouthSmile", "mouthDimple", "mouthStretch", "mouthPress", "mouthUpperUp", "mouthLowerDown", "mouthFrown"),
    *_pairs("noseSneer"),
)
"""Jaw, mouth and the sides of the nose."""

UPPER_GAIN = 4.0
"""Weights of brows and lids spread by about a quarter; the condition learns faster from numbers of about unit spread."""

LOWER_GAIN = 8.0
"""Weights of the mouth spread by about an eighth."""


class FaceShapes(nn.Module):
    """The map of beta to some expression weights, and their way into the condition of G.

    Args:
        names: S expression weights, by ARKit's names (:data:`UPPER_FACE`, :data:`LOWER_FACE`).
        gain: factor on the weights before they are mapped to the condition.
        condition_dim: d, length of the condition.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, names: tuple[str, ...], gain: float, condition_dim: int) -> None:
        super().__init__()
        self.names = names
        self.gain = gain
        self._columns = [arkit_column(name) for name in names]
        # Stored with the model, not trained: training must not find a way to read more than these from beta.
        self.register_buffer("weight", torch.zeros(BETA_DIM, len(names)))
        self.register_buffer("bias", torch.zeros(len(names)))
        # Starts without a say, so a trained model may be grown by it.
        self.to_condition = nn.Linear(2 * len(names), condition_dim, bias=False)
        nn.init.zeros_(self.to_condition.weight)

    @property
    def is_fitted(self) -> bool:
        """Whether the map was set; a new one reads nothing."""
        return bool(self.weight.any())

    @torch.no_grad()
    def set_map(self, weight: Tensor, bias: Tensor) -> None:
        """Take over a map: weight ``(64, S)``, bias ``(S,)``."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def read(self, beta: Tensor) -> Tensor:
        """beta ``(B, 64)`` -> weights of the shapes ``(B, S)``, about 0 to 1."""
        with torch.autocast(beta.device.type, enabled=False):
            return beta.float() @ self.weight + self.bias

    def given(self, weights: Tensor) -> Tensor:
        """The shapes' own ``(B, S)`` of `FaceState.weights` ``(B, 52)``."""
        return weights[:, self._columns]

    def of(self, state: FaceState) -> Tensor:
        """The shapes' weights ``(B, S)`` of a state: those that it gives, and what beta says of the others."""
        read = self.read(state.beta)
        if state.weights is None:
            return read
        given = self.given(state.weights).to(read)
        return torch.where(given.isnan(), read, given)

    def fill(self, read: Tensor, weights: Tensor) -> Tensor:
        """`FaceState.weights` ``(B, 52)`` with those of these shapes ``(B, S)``; a weight for both sides is their mean."""
        found = weights.clone()
        for column in set(self._columns):
            found[:, column] = read[:, [k for k, c in enumerate(self._columns) if c == column]].mean(dim=1)
        return found

    def forward(self, driving: Tensor, source: Tensor) -> Tensor:
        """What `of` gave of driver and portrait, each ``(B, S)`` -> ``(B, d)``, added to the condition."""
        return self.to_condition(self.gain * torch.cat([driving, source], dim=1))
