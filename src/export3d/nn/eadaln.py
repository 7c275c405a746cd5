"""Expression-adaptive layer normalisation, Eq. 5: scale(beta') * LN(x) + shift(beta')."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class EAdaLN(nn.Module):
    """Layer normalisation whose scale and shift come from the expression.

    The scale is 1 + the first half of a linear layer of the condition, the shift its second half; the layer starts at
    zero, so an untrained EAdaLN is plain LN (DiT's start, without a gate: Eq. 5 has none).
    """

    def __init__(self, dim: int, condition_dim: int, silu: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(condition_dim, 2 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.silu = silu

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """``tokens`` (B, N, dim), ``condition`` (B, condition_dim) -> (B, N, dim)."""
        driven = F.silu(condition) if self.silu else condition
        scale, shift = self.modulation(driven)[:, None].chunk(2, dim=-1)  # (B, 1, dim) each
        return self.norm(tokens) * (1.0 + scale) + shift  # Eq. 5
