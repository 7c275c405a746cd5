"""Single expression weights of a driver on a portrait: what beta says of the driver's face, and what the scores add.

Beta reads most weights, and the face tracker's scores add a little to it. A score is no weight: each person has another one at
rest, and what counts is its change from there. Lids follow the scores alone, by a curve of their own, and brows their heights
(`tracking/brows.py`): on real faces beta reads noise there. Jaw and lips have a reading of their own (`tracking/mouth.py`),
which knows how they change; beta knows their level, so on average over the clip they are as beta says. Beta is moved along with
all these: the model moves a face only where the code of the expression and the single weight agree.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from export3d.animation.regions import MOUTH, region_of
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import WeightMaps
from export3d.tracking.brows import BROW_WEIGHTS
from export3d.tracking.mouth import MOUTH_WEIGHTS, by_name

GAIN = 0.3
"""How far a weight goes per change of its score, on top of beta's reading. Chosen on 24 rendered validation people and on
photographs."""

MOUTH_GAINS = {"jawOpen": 1.5, "mouthPucker": 4.0, "mouthSmile": 1.5, "mouthDimple": 1.5, "mouthStretch": 0.5}
MOUTH_GAIN = 1.2
"""How far jaw and lips go per change of their reading, `MOUTH_GAIN` where `MOUTH_GAINS` has none: a regression shrinks what it
reads, and the model what it is told. Twice as much moved photographs a little farther and cost rendered mouths 0.6 dB."""

_BROWS, _LIPS = (
    dict.fromkeys(("browInnerUp", "browOuterUp"), (-1, 1)),
    {"mouthPucker": (-1, 2), "mouthStretch": (-0.5, 1)},
)
LOWEST, FARTHEST = torch.tensor(by_name({**_BROWS, **_LIPS, "browDown": (0, 2)}, ARKIT_NAMES, (0, 1))).T
"""Where each weight begins and ends. A pucker of 1, as rendered heads have it, narrows a mouth by a tenth; people's go twice
as far. The model goes on beyond 1 and below 0, and the driver's level, from which weights move, is a guess."""

STEADY = 4
"""So often each face counts that is seen beforehand: rest and level, known from them, then stay through the first seconds."""

GAZE_GAIN = 1.6
"""How far eyes turn from the portrait's own gaze towards the driver's: the model turns those of photographs half as far as it
is told, and goes on doing so beyond the angles that it has learned from."""

RESTED, FROM_REST = ("jawOpen", "mouthPucker"), 0.3
"""These are at rest at the low end of their way: so much of what beta's level lacks there is added to it."""

LIDS = ("eyeBlinkLeft", "eyeBlinkRight")

LID_SCORES = (0.0, 0.1, 0.25, 0.5)
LID_WEIGHTS = (0.0, 0.1, 0.45, 1.0)
"""Weight by the change of the score. On rendered heads a shut eye changes it by about 0.5; smaller changes are mostly looking
down. A steeper curve, which lets the scores of the result change as the driver's do (`benchmarks/lids.py`), kept the eyes of
photographs shut through whole clips."""

LEFT_TO_BETA = ("eyeSquintLeft", "eyeSquintRight")

REST_QUANTILES = (0.15, 0.5)
"""A score's resting value is the first quantile of the frames so far: faces rest more often than not, at the low end. Brows,
whose weights go both ways from there, rest at the second."""

_REMEMBERED = 1500  # frames (a minute at 25 fps) from which the quantile is taken


class MouthReading:
    """Jaw and lips of one face, frame by frame: on average over the frames so far as beta says, changing as they are read.

    Args:
        maps: what beta says of the weights.
    """

    def __init__(self, maps: WeightMaps) -> None:
        self._maps = maps
        self._gains = torch.tensor(by_name(MOUTH_GAINS, ARKIT_NAMES, MOUTH_GAIN))
        self._lips = torch.tensor([name in MOUTH_WEIGHTS for name in ARKIT_NAMES])
        self._rested = torch.tensor([name in RESTED for name in ARKIT_NAMES])
        self._seen = Resting()
        self._level, self._told, self._count = torch.zeros(1, 1), torch.zeros(1, 1), 0

    def learn(self, state: FaceState) -> None:
        """Count a face that was seen."""
        if state.weights is not None and state.weights[self._lips[None]].isfinite().all():
            self._count += 1
            self._level = self._level + (self._maps.weights(state.beta) - self._level) / self._count
            self._told = self._told + (state.weights - self._told) / self._count

    def __call__(self, state: FaceState, rest: Tensor | None = None) -> Tensor:
        """Weights ``(1, 52)`` from `LOWEST` to `FARTHEST`; NaN for all others, and where the face has none. `rest`: weights
        ``(52,)`` as they are read at rest, where that is known."""
        if state.weights is None:
            return torch.full((1, len(ARKIT_NAMES)), torch.nan)
        level = self._level
        if rest is not None:
            above = self._gains * (self._told - rest) - level
            level = level + torch.where(self._rested, FROM_REST * above.clamp(min=0.0), 0.0)
        asked = level + self._gains * (state.weights - self._told)
        return torch.where(self._lips, asked.maximum(LOWEST).minimum(FARTHEST), torch.nan)

    def applied(self, own: FaceState, state: FaceState) -> FaceState:
        """A face of a film, `own`, with jaw and lips as they are read in its `state`, and beta moved along."""
        self.learn(state)
        if state.weights is not None:
            self._seen.add(state.weights[0])
        told = self(state, self._seen.at(REST_QUANTILES[0]))
        if own.weights is None:
            return own
        weights = torch.where(told.isnan(), own.weights, told)
        return replace(own, weights=weights, beta=self._maps.adjusted(own.beta, told))


class Resting:
    """Quantiles of the last `count` faces' weights, each by itself, unknown ones left out; a face costs the same however many
    there were before it.

    Args:
        count: faces that are remembered.
    """

    def __init__(self, count: int = _REMEMBERED) -> None:
        self._faces: deque[list[float]] = deque(maxlen=count)
        self._sorted: list[list[float]] = [[] for _ in ARKIT_NAMES]

    def __len__(self) -> int:
        return len(self._faces)

    def add(self, weights: Tensor) -> None:
        """One face's, ``(52,)``."""
        oldest = self._faces[0] if len(self._faces) == self._faces.maxlen else [math.nan] * len(ARKIT_NAMES)
        self._faces.append(weights.tolist())
        for known, gone, new in zip(self._sorted, oldest, self._faces[-1], strict=True):
            if not math.isnan(gone):
                del known[bisect_left(known, gone)]
            if not math.isnan(new):
                insort(known, new)

    def at(self, share: float) -> Tensor:
        """The quantile ``(52,)``, linear between two faces; NaN where none is known."""
        found = []
        for known in self._sorted:
            low, part = divmod(share * (len(known) - 1), 1.0)
            ends = known[int(low) : int(low) + 2] if known else [math.nan]
            found.append(ends[0] + part * (ends[-1] - ends[0]))
        return torch.tensor(found)


class WeightTransfer:
    """Carries a driver's face over to one portrait, frame by frame.

    Args:
        own: the portrait's own face; without weights (the paper's model) nothing is changed.
        maps: what beta and weights tell of each other; None: beta says nothing of them and stays as it is.
    """

    def __init__(self, own: FaceState, maps: WeightMaps | None = None) -> None:
        self._own, self._maps = own, maps
        self._lids, self._squints, self._brows = (
            torch.tensor([name in names for name in ARKIT_NAMES]) for names in (LIDS, LEFT_TO_BETA, BROW_WEIGHTS)
        )
        self._mouth = torch.tensor([region_of(name) in MOUTH for name in ARKIT_NAMES])
        self._seen = Resting()
        self._lips = MouthReading(maps) if maps is not None else None
        self._known = 0

    def expect(self, faces: Sequence[FaceState]) -> None:
        """Learn beforehand of the first faces that will be found, so that rest is known from the first one on."""
        for face in [*faces] * STEADY:
            self._learn(face)
        self._known = len(faces)

    def _learn(self, state: FaceState) -> None:
        if state.weights is None:
            return
        self._seen.add(state.weights[0])
        if self._lips is not None and not state.beta.isnan().any():
            self._lips.learn(state)

    def __call__(self, state: FaceState, found: bool, voiced: bool = False) -> FaceState:
        """The state with weights that mean the same for the model as the portrait's own; NaN where either is unknown.

        Where beta is unknown (takes, live senders) the change of the weights counts in place of its reading, and beta
        follows the whole face.

        Args:
            voiced: lips and jaw are true weights, counted from rest: they are added to the portrait's own, beta with them.
        """
        own = self._own.weights
        if own is None or state.weights is None:
            return replace(state, weights=None)
        if found and self._known:
            self._known -= 1
        elif found:
            self._learn(state)
        if not self._seen:
            return replace(state, weights=None)
        low, middle = map(self._seen.at, REST_QUANTILES)
        blind = self._maps is None or bool(state.beta.isnan().any())
        change = state.weights - (low if blind else torch.where(self._brows, middle, low))
        read = change if self._maps is None or blind else self._maps.weights(state.beta) - own
        moved = own + torch.where(self._brows, change, read + GAIN * change)
        told = self._lids
        if self._lips is not None and not (blind or voiced):
            mouth = self._lips(state, low)
            moved, told = torch.where(mouth.isnan(), moved, mouth), told | self._brows | ~mouth.isnan()
        moved = moved.maximum(LOWEST).minimum(FARTHEST)
        closed = (own + torch.from_numpy(np.interp(change, LID_SCORES, LID_WEIGHTS))).clamp(0.0, LID_WEIGHTS[-1])
        moved = torch.where(self._lids, closed.to(moved), moved)
        moved = torch.where(self._squints, torch.nan, moved)
        if voiced:
            told = told | self._mouth
            moved = torch.where(self._mouth, (own + state.weights).clamp(0.0, 1.0), moved)
        if self._maps is None:
            return replace(state, weights=moved)
        if blind:
            return replace(state, weights=moved, beta=self._maps.adjusted(self._own.beta, moved))
        beta = self._maps.adjusted(state.beta, torch.where(told, moved, torch.nan))
        gaze = state.gaze
        if gaze is not None and self._own.gaze is not None:
            gaze = torch.where(self._own.gaze.isnan(), gaze, self._own.gaze + GAZE_GAIN * (gaze - self._own.gaze))
        return replace(state, weights=moved, beta=beta, gaze=gaze)
