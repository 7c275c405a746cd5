"""Augmentation of synthetic pairs; pictures change alike in source and driving frame (an option, not the paper's)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How frames are changed; the defaults change nothing (the paper)."""

    other_background: float = 0.0
    """Share of pairs that get another clip's background (needs masks and clean backgrounds)."""
    flat_background: float = 0.0
    """Share of pairs that get one flat colour as background."""
    color_gain: float = 0.0
    """Largest relative gain of one colour channel, and half of the largest change in brightness."""
    gamma: float = 0.0
    """Standard deviation of the logarithm of the gamma exponent."""
    mirror: float = 0.0
    """Share of pairs mirrored left-right (needs `beta_mirror`, the extractor's answer for the mirrored frame)."""
    noise: float = 0.0
    """Largest standard deviation of additive noise on the source image, of the range 0..1."""
    other_leak: float = 0.0
    """Share of pairs whose driver's beta gets another person's leak, as when another person drives the portrait (needs
    `true_beta`, for mirrored pairs also `weights`)."""

    def __post_init__(self) -> None:
        shares = (self.other_background, self.flat_background, self.mirror, self.other_leak)
        if min(shares) < 0 or self.other_background + self.flat_background > 1 or max(shares) > 1:
            raise ValueError(f"augmentation shares must lie in [0, 1] and their sum too; got {self}")
        if not 0 <= self.color_gain < 1 or self.gamma < 0 or not 0 <= self.noise <= 1:
            raise ValueError(f"color_gain must lie in [0, 1), gamma >= 0, noise in [0, 1]; got {self}")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One drawn change, the same for all frames of a pair (or of a clip)."""

    background: str
    """`own`, `other` or `flat`."""
    background_draw: float
    """Number in [0, 1) that picks the other clip."""
    flat_color: np.ndarray
    """``(3,)`` uint8."""
    table: np.ndarray | None
    """``(256, 3)`` uint8 look-up table of the colour change; None changes nothing."""
    mirrored: bool
    noise: float
    """Standard deviation in levels of 0..255."""

    @property
    def beta_name(self) -> str:
        """The clip's member that holds beta of its frames, as they are or mirrored."""
        return "beta_mirror" if self.mirrored else "beta"


def draw_change(config: AugmentConfig, rng: np.random.Generator) -> Change:
    """Draw one change; the number of draws is always the same, so that one option does not shift the others."""
    u = rng.random(12)
    background = "own"
    if u[0] < config.other_background:
        background = "other"
    elif u[0] < config.other_background + config.flat_background:
        background = "flat"
    table = None
    normal = float(rng.normal())
    if config.color_gain > 0 or config.gamma > 0:
        gain = (1 + config.color_gain * (2 * u[1:4] - 1)) * (1 + config.color_gain * (2 * u[4] - 1))
        exponent = float(np.exp(config.gamma * np.clip(normal, -3.0, 3.0)))
        levels = (np.arange(256) / 255.0) ** exponent
        table = np.clip(np.rint(255.0 * levels[:, None] * gain[None]), 0, 255).astype(np.uint8)
    return Change(
        background=background,
        background_draw=float(u[5]),
        flat_color=np.floor(256.0 * u[6:9]).astype(np.uint8),
        table=table,
        mirrored=bool(u[9] < config.mirror),
        noise=float(255.0 * config.noise * u[10]),
    )


def replace_background(frame: np.ndarray, mask: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Put `other` behind the head: ``frame + (1 - mask) * (other - own)``.

    Args:
        frame: ``(H, W, 3)`` uint8, the head over its own background.
        mask: ``(H, W)`` uint8 foreground alpha.
        own, other: ``(H, W, 3)`` or ``(3,)`` uint8 backgrounds.
    """
    behind = 255 - mask[..., None].astype(np.int32)
    change = (behind * (other.astype(np.int32) - own)) // 255
    return np.clip(frame + change, 0, 255).astype(np.uint8)


def recolor(image: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """Apply a look-up table of :class:`Change` to a uint8 image ``(H, W, 3)``."""
    if table is None:
        return image
    return np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=-1)
