"""Random heads with their motion and exact landmarks, without a look; noise of landmarks (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.heads.clips.motion import Motion
from export3d.heads.look.appearance import AppearanceOptions, draw_alpha, draw_resting, draw_traits
from export3d.heads.look.identity import RESTING_SQUINT, to_world
from export3d.heads.shape.parametric import ParametricHead

REFERENCE_SIZE = 256
"""Noise is given in pixels of a crop of this size."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """A random head and its motion, without its look: all that landmarks need.

    Attributes:
        motion: Weights are totals, resting face included.
        camera: Of each frame.
        points: ``(T, 68, 3)`` landmarks in the world, scene units.
    """

    motion: Motion
    camera: Camera
    points: Tensor

    @property
    def landmarks(self) -> Tensor:
        """``(T, 68, 2)`` exact, [0, 1] of the crop."""
        return self.camera.project(self.points)[0]


def draw_person(
    head: ParametricHead, seed: int, move: Callable[[int, np.ndarray], Motion], *, resting_offset: bool = True
) -> Person:
    """Draw a person as :class:`Identity` does, with resting face and resting lids, but without its look.

    Args:
        move: Seed and resting weights ``(53,)`` -> motion.
        resting_offset: Whether the person has a resting face of its own.
    """
    options = AppearanceOptions(resting_offset=resting_offset)
    traits = draw_traits(seed, options)
    identity = torch.cat(draw_alpha(head, seed, traits.femininity))
    motion = move(seed, draw_resting(head, seed, options).numpy())
    weights = torch.from_numpy(motion.weights).clone()
    for side in "LR":
        blink, squint = (head.expression_index[f"{name}_{side}"] for name in ("eyeBlink", "eyeSquint"))
        weights[:, blink] = weights[:, blink] * (1.0 - traits.resting_blink) + traits.resting_blink
        weights[:, squint] += RESTING_SQUINT
    return Person(motion=motion, camera=motion.camera(), points=landmarks_world(head, identity, weights))


def landmarks_world(head: ParametricHead, identity: Tensor, weights: Tensor) -> Tensor:
    """Landmarks of Eq. 11 in scene units: identity ``(K,)``, weights ``(T, 53)`` -> ``(T, 68, 3)``."""
    points = head.landmark_vertices
    neutral = head.vertices[points] + torch.tensordot(identity, head.identity_basis[: len(identity), points], 1)
    return to_world(neutral + torch.tensordot(weights, head.expression_basis[:, points], 1))


def add_noise(landmarks: Tensor, rng: np.random.Generator, noise_px: float) -> Tensor:
    """Landmarks as a detector would see them: Gaussian noise of `noise_px` pixels of a 256-pixel crop."""
    noise = rng.normal(scale=noise_px / REFERENCE_SIZE, size=tuple(landmarks.shape))
    return landmarks + torch.from_numpy(noise).to(landmarks)
