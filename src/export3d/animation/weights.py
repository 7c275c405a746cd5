"""Single expression weights of a driver on a portrait: the portrait's own, moved as the driver's scores move from rest.

A score is no weight: each person has another one at rest, and most scores go less far than the face does. So the driver's
resting score is taken off, and what is left is strengthened. Lids are left to beta: their scores did worse in that way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import torch
from torch import Tensor

from export3d.face_state import ARKIT_NAMES, FaceState

STRENGTH = 1.5
"""How far a weight goes per change of its calibrated score."""

GAINS = {"jawOpen": 1.0 / 0.78, "mouthSmileLeft": 1.0 / 0.75, "mouthSmileRight": 1.0 / 0.75, "mouthPucker": 1.5}
"""Change of the true weight per change of its score, on rendered heads; 1 where it was not measured."""

LEFT_TO_BETA = ("eyeBlinkLeft", "eyeBlinkRight", "eyeSquintLeft", "eyeSquintRight")

REST_QUANTILE = 0.15
"""A score's resting value is this quantile of the frames so far: faces rest more often than not, at the low end."""

_REMEMBERED = 1500  # frames (a minute at 25 fps) from which the quantile is taken


class WeightTransfer:
    """Carries a driver's scores over to one portrait, frame by frame.

    Args:
        own: the portrait's own face; without weights (the paper's model) nothing is changed.
    """

    def __init__(self, own: FaceState) -> None:
        self._own = own.weights
        gains = [0.0 if name in LEFT_TO_BETA else STRENGTH * GAINS.get(name, 1.0) for name in ARKIT_NAMES]
        self._gains = torch.tensor(gains)
        self._seen: deque[Tensor] = deque(maxlen=_REMEMBERED)

    def __call__(self, state: FaceState, found: bool) -> FaceState:
        """The state with weights that mean the same for the model as the portrait's own; NaN where either is unknown."""
        if self._own is None or state.weights is None:
            return replace(state, weights=None)
        if found:
            self._seen.append(state.weights[0])
        if not self._seen:
            return replace(state, weights=None)
        rest = torch.nanquantile(torch.stack(list(self._seen)), REST_QUANTILE, dim=0)
        moved = (self._own + self._gains * (state.weights - rest)).clamp(0.0, 1.0)
        return replace(state, weights=torch.where(self._gains > 0.0, moved, torch.nan))
