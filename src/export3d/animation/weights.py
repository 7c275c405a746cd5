"""Single expression weights of a driver on a portrait: the portrait's own, moved as the driver's scores move from rest.

A score is no weight: each person has another one at rest, and most scores go less far than the face does. So the driver's
resting score is taken off, and what is left is strengthened. Lids have a curve of their own, and beta is moved along with them:
the model closes eyes only where the code of the expression and the single weight agree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from export3d.animation.regions import MOUTH, region_of
from export3d.face_state import ARKIT_NAMES, FaceState

STRENGTH = 1.5
"""How far a weight goes per change of its calibrated score."""

GAINS = {"jawOpen": 1.0 / 0.78, "mouthSmileLeft": 1.0 / 0.75, "mouthSmileRight": 1.0 / 0.75, "mouthPucker": 1.5}
"""Change of the true weight per change of its score, on rendered heads; 1 where it was not measured."""

LIDS = ("eyeBlinkLeft", "eyeBlinkRight")

LID_SCORES = (0.0, 0.1, 0.25, 0.5)
LID_WEIGHTS = (0.0, 0.1, 0.4, 1.0)
"""Weight by the change of the score. On rendered heads a shut eye changes it by about 0.5; smaller changes are mostly looking
down. A steeper curve, which lets the scores of the result change as the driver's do (`benchmarks/lids.py`), kept the eyes of
photographs shut through whole clips."""

LEFT_TO_BETA = ("eyeSquintLeft", "eyeSquintRight")

REST_QUANTILE = 0.15
"""A score's resting value is this quantile of the frames so far: faces rest more often than not, at the low end."""

_REMEMBERED = 1500  # frames (a minute at 25 fps) from which the quantile is taken


Adjust = Callable[[Tensor, Tensor], Tensor]
"""beta ``(B, 64)`` and weights ``(B, 52)`` -> beta that says the same as the weights (`ExpressionCues.adjusted`)."""


class WeightTransfer:
    """Carries a driver's scores over to one portrait, frame by frame.

    Args:
        own: the portrait's own face; without weights (the paper's model) nothing is changed.
        adjust: moves beta along with the lids; None leaves it.
    """

    def __init__(self, own: FaceState, adjust: Adjust | None = None) -> None:
        self._own, self._adjust = own.weights, adjust
        gains = [0.0 if name in LEFT_TO_BETA else STRENGTH * GAINS.get(name, 1.0) for name in ARKIT_NAMES]
        self._gains = torch.tensor(gains)
        self._lids = torch.tensor([name in LIDS for name in ARKIT_NAMES])
        self._mouth = torch.tensor([region_of(name) in MOUTH for name in ARKIT_NAMES])
        self._seen: deque[Tensor] = deque(maxlen=_REMEMBERED)

    def __call__(self, state: FaceState, found: bool, voiced: bool = False) -> FaceState:
        """The state with weights that mean the same for the model as the portrait's own; NaN where either is unknown.

        Args:
            voiced: lips and jaw are true weights, counted from rest: they are added to the portrait's own, beta with them.
        """
        if self._own is None or state.weights is None:
            return replace(state, weights=None)
        if found:
            self._seen.append(state.weights[0])
        if not self._seen:
            return replace(state, weights=None)
        change = state.weights - torch.nanquantile(torch.stack(list(self._seen)), REST_QUANTILE, dim=0)
        moved = (self._own + self._gains * change).clamp(0.0, 1.0)
        closed = (self._own + torch.from_numpy(np.interp(change, LID_SCORES, LID_WEIGHTS))).clamp(0.0, LID_WEIGHTS[-1])
        moved = torch.where(self._lids, closed.to(moved), torch.where(self._gains > 0.0, moved, torch.nan))
        told = self._lids
        if voiced:
            told = self._lids | self._mouth
            moved = torch.where(self._mouth, (self._own + state.weights).clamp(0.0, 1.0), moved)
        beta = state.beta
        if self._adjust is not None:
            beta = self._adjust(beta, torch.where(told, moved, torch.nan))
        return replace(state, weights=moved, beta=beta)
