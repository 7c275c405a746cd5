"""What decides the result of CLeBS pre-training, and the presets of `export3d pretrain` (Sec. 3.1, docs/training.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from export3d.checks import check_choice
from export3d.expression.image_encoder import ImageEncoderConfig
from export3d.expression.lebs import LeBSConfig
from export3d.model.config import PRESETS
from export3d.training.batches.augment import AugmentConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that decides the result of pre-training. The defaults are the paper's."""

    expression: LeBSConfig = field(default_factory=lambda: LeBSConfig(pretrained=False))
    """f_e and its basis."""
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    """f_I."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Changes of all frames of a clip alike (paper: none)."""
    steps: int = 60_000
    """Optimiser steps (paper: 60,000)."""
    clips: int = 8
    """Clips per step, over all processes (not in the paper)."""
    frames_per_clip: int = 33
    """Frames of each clip; each is an anchor with the others as negatives (paper: 1 positive + 32 negatives)."""
    temperature: float = 0.07
    """tau of Eq. 1."""
    include_positive: bool = False
    """False: Eq. 1 as printed; True: InfoNCE, the positive also in the denominator."""
    symmetric: bool = False
    """Also the image-to-expression direction (not the paper)."""
    learning_rate: float = 1e-4
    """Adam's learning rate."""
    rate_clips: int = 8
    """`clips` that `learning_rate` is for; with others it grows as the root of their ratio (Adam's rule). 0: never."""
    decay_from: float = 1.0
    """Share of the run after which the rate falls along a cosine (paper: never)."""
    decay_floor: float = 0.02
    """The rate's last factor."""
    clip_gradient: float = 0.0
    """Largest gradient norm; 0 for no limit (paper: not named)."""
    landmark_weight: float = 0.0
    """Weight of the landmark head's error, which makes f_I's trunk a face network (paper: 0)."""
    precision: str = "auto"
    """f_I in `fp32`, `bf16` (autocast; basis, cosines and losses stay fp32) or `auto`: bf16
    where it is faster, which is measured at the start."""
    seed: int = 0
    """Seed of weights, sampling and augmentation."""

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("auto", "bf16", "fp32"))
        if self.steps < 1 or self.clips < 1 or self.frames_per_clip < 2:
            raise ValueError("pretrain: steps and clips must be positive, frames_per_clip at least 2")
        if self.expression.kind != "lebs" or self.expression.pretrained:
            raise ValueError("pretrain: expression.kind must be 'lebs' and expression.pretrained false")
        if self.expression.dim != self.image_encoder.dim:
            raise ValueError("pretrain: expression.dim and image_encoder.dim must be equal (cosines between them)")
        if self.landmark_weight > 0 and not self.image_encoder.landmark_head:
            raise ValueError("pretrain: landmark_weight above 0 needs image_encoder.landmark_head")


SMALL_PRETRAIN = PretrainConfig(
    expression=replace(PRESETS["paper-small"].expression, pretrained=False),
    image_encoder=ImageEncoderConfig(
        width=24, image_size=64, squeeze=8, landmark_head=True, code_from_landmarks=True, face_share=0.5
    ),
    augment=AugmentConfig(other_background=0.25, flat_background=0.15, color_gain=0.12, gamma=0.12, mirror=0.5),
    steps=3000,
    clips=8,
    frames_per_clip=16,
    include_positive=True,
    symmetric=True,
    learning_rate=1e-3,
    rate_clips=0,
    decay_from=0.4,
    clip_gradient=5.0,
    landmark_weight=4.0,
)

TINY_PRETRAIN = PretrainConfig(
    expression=replace(PRESETS["tiny"].expression, pretrained=False),
    image_encoder=ImageEncoderConfig(width=8, image_size=32, squeeze=4, dim=32),
    steps=4,
    clips=2,
    frames_per_clip=4,
    learning_rate=1e-3,
    rate_clips=0,
    precision="fp32",
)

PRETRAIN_PRESETS = {
    "paper": PretrainConfig(),
    "paper-small": replace(SMALL_PRETRAIN, frames_per_clip=33, include_positive=False, symmetric=False),
    "portrait": SMALL_PRETRAIN,
    "tiny": TINY_PRETRAIN,
}
"""The presets of `export3d pretrain` (docs/training.md)."""


def kept_size(config: ImageEncoderConfig) -> int:
    """Side of the frames that are kept: f_I's own size, or what gives that size after the cut around the nose."""
    return round(config.image_size / config.face_share)
