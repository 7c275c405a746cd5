"""Brows and lids read off beta (not in the paper, off there): what the contrastive code leaves out joins the condition.

A fixed linear map, fitted to the exact weights of synthetic clips (`training/upper_face.py`), reads them from the driver's
and the portrait's beta. They are as honest as beta is: a real tracker's beta goes through the same map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export3d.expression.spaces import BETA_DIM

UPPER_FACE = tuple(
    f"{name}_{side}" for name in ("browDown", "browInnerUp", "browOuterUp", "eyeBlink", "eyeSquint") for side in "LR"
)
"""The expression weights that are read, by ARKit's names."""

_GAIN = 4.0  # the weights spread by about a quarter; the condition learns faster from numbers of about unit spread


class UpperFace(nn.Module):
    """The map of beta to the weights of :data:`UPPER_FACE`, and its way into the condition of G.

    Args:
        condition_dim: d, length of the condition.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, condition_dim: int) -> None:
        super().__init__()
        count = len(UPPER_FACE)
        # Stored with the model, not trained: training must not find a way to read more than these from beta.
        self.register_buffer("weight", torch.zeros(BETA_DIM, count))
        self.register_buffer("bias", torch.zeros(count))
        # Starts without a say, so a trained model may be grown by it.
        self.to_condition = nn.Linear(2 * count, condition_dim, bias=False)
        nn.init.zeros_(self.to_condition.weight)

    @property
    def is_fitted(self) -> bool:
        """Whether the map was set; a new one reads nothing."""
        return bool(self.weight.any())

    @torch.no_grad()
    def set_map(self, weight: Tensor, bias: Tensor) -> None:
        """Take over a map: weight ``(64, 10)``, bias ``(10,)``."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def read(self, beta: Tensor) -> Tensor:
        """beta ``(B, 64)`` -> weights of the shapes ``(B, 10)``, about 0 to 1."""
        return beta @ self.weight + self.bias

    def forward(self, driving: Tensor, source: Tensor) -> Tensor:
        """What `read` gave of driver and portrait, each ``(B, 10)`` -> ``(B, d)``, added to the condition."""
        return self.to_condition(_GAIN * torch.cat([driving, source], dim=1))
