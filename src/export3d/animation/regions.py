"""Parts of a face that a driver takes over, each by its own strength: lips, jaw, eyes, brows, gaze, pose.

A region's change of beta is told from the rest by the model's own linear reading of single weights (`portrait/shapes.py`):
the change that moves these weights and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import Model, PortraitModel
from export3d.tracking.gaze import GAZE_LIMIT_RAD
from export3d.tracking.head_fit import HeadPose, rotation_of, vector_of

FACE_REGIONS = {
    "lips": ("mouth", "noseSneer", "cheekPuff", "tongueOut"),
    "jaw": ("jaw",),
    "eyes": ("eyeBlink", "eyeSquint", "eyeWide", "cheekSquint"),
    "brows": ("brow",),
    "gaze": ("eyeLook",),
}
"""Region -> how the names of its ARKit weights begin; every weight has one."""

REGIONS = (*FACE_REGIONS, "pose")

MOUTH = ("lips", "jaw")
"""What a voice tells, and what it changes of a film."""

STRONGEST = 2.0

Strengths = Mapping[str, float]
"""Region -> how far it goes with the driver: 0 stays the portrait's, 1 is the driver's, above 1 overdoes it."""


def region_of(weight: str) -> str:
    """The region of an ARKit weight; `mouthSmile_L` and the like count too."""
    return next(region for region, starts in FACE_REGIONS.items() if weight.startswith(starts))


def parse_strengths(regions: str | None, strength: str) -> dict[str, float]:
    """``lips,jaw`` (None: all) and ``1.2`` or ``lips=1.2,brows=.8`` -> the strength of every region, 0 where not named.

    Raises:
        UsageError: Not a region, not a number from 0 to 2, or a strength for a region that is left out.
    """
    chosen = REGIONS if regions is None else [_region(word, "--regions") for word in regions.split(",")]
    found = {name: float(name in chosen) for name in REGIONS}
    for part in strength.split(","):
        name, separator, number = part.rpartition("=")
        names = [_region(name, "--strength")] if separator else chosen
        if not set(names) <= set(chosen):
            raise UsageError(f"--strength: '{name.strip()}' is not among --regions {regions}; add it there.")
        found.update(dict.fromkeys(names, _strength(number)))
    return found


def _region(word: str, option: str) -> str:
    if word.strip() not in REGIONS:
        raise UsageError(f"{option}: '{word.strip()}' is no region; choose from {', '.join(REGIONS)}.")
    return word.strip()


def _strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= STRONGEST:
        raise UsageError(
            f"--strength: a number from 0 to {STRONGEST:g} for all, or lips=1.2,brows=0.8; got '{text.strip()}'."
        )
    return value


@dataclass(frozen=True)
class BetaReading:
    """A model's linear reading of single weights from beta.

    Attributes:
        weight: ``(64, S)``.
        regions: the region of each of the S weights.
    """

    weight: Tensor
    regions: tuple[str, ...]

    @staticmethod
    def of(model: Model) -> BetaReading | None:
        """The model's; None for the paper's, which reads nothing."""
        if not isinstance(model, PortraitModel):
            return None
        names = tuple(name for part in model.cues.shapes for name in part.names)
        weight = torch.cat([part.weight for part in model.cues.shapes], dim=1)
        return BetaReading(weight.detach().float().cpu(), tuple(region_of(name) for name in names))

    @cached_property
    def _back(self) -> Tensor:
        """``(S, 64)``: the least change of beta for a change of each weight; the same for every frame."""
        return torch.linalg.pinv(self.weight)

    def scaled(self, change: Tensor, strengths: Strengths) -> Tensor:
        """A change of beta ``(B, 64)`` whose part in each region is as strong as asked."""
        read = change @ self.weight
        factors = torch.tensor([strengths[region] for region in self.regions])
        rest = min(strengths[name] for name in FACE_REGIONS if name != "gaze")
        return rest * (change - read @ self._back) + (factors * read) @ self._back


def mixed_state(own: FaceState, driving: FaceState, strengths: Strengths, reading: BetaReading | None) -> FaceState:
    """The portrait's face, changed towards the driver's as strongly as each region asks; unknown where either is.

    Raises:
        UsageError: Regions of the face differ, and the model does not tell them apart.
    """
    face = {strengths[name] for name in FACE_REGIONS if name != "gaze"}
    state = driving
    if face != {1.0}:
        change = torch.where(driving.beta.isnan(), 0.0, driving.beta - own.beta)  # a take tells single weights alone
        if len(face) == 1:
            change = next(iter(face)) * change
        elif reading is None:
            raise UsageError(
                "regions of the face need the bundled model or one like it; the paper's has one code for all."
            )
        else:
            change = reading.scaled(change, strengths)
        state = replace(state, beta=own.beta + change, weights=_mixed_weights(own.weights, driving.weights, strengths))
    if strengths["gaze"] == 0.0:  # unknown, so that the eyes stay as the portrait has them
        state = replace(state, gaze=None)
    elif strengths["gaze"] != 1.0 and own.gaze is not None and driving.gaze is not None:
        gaze = own.gaze + strengths["gaze"] * (driving.gaze - own.gaze)
        state = replace(state, gaze=gaze.clamp(-GAZE_LIMIT_RAD, GAZE_LIMIT_RAD))
    return state


def _mixed_weights(own: Tensor | None, driving: Tensor | None, strengths: Strengths) -> Tensor | None:
    if own is None or driving is None:
        return driving
    factors = torch.tensor([strengths[region_of(name)] for name in ARKIT_NAMES])
    moved = (own + factors * (driving - own)).maximum(driving.clamp(max=0.0))
    moved = moved.minimum(driving.clamp(min=1.0))  # lids close beyond 1
    return torch.where(factors == 0.0, own, moved)


def mixed_camera(own: np.ndarray, driving: np.ndarray, strength: float) -> np.ndarray:
    """The portrait's camera ``(25,)``, turned and moved towards the driver's so far as the strength says."""
    if strength in (0.0, 1.0):
        return driving if strength else own
    start, end = HeadPose.of_camera(own), HeadPose.of_camera(driving)
    rotation = rotation_of(strength * vector_of(end.rotation @ start.rotation.T)) @ start.rotation
    origin = start.origin + strength * (end.origin - start.origin)
    return HeadPose(rotation=rotation, origin=origin).camera()
