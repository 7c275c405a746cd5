"""Pictures of HDR and wide-gamut films (PQ, HLG, BT.2020, Display P3) in the colours of all others: BT.709, gamma 2.4."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

WHITE_NITS = 203.0
"""Reference white of HDR films (ITU-R BT.2408): it becomes the white of the others."""

HLG_PEAK_NITS = 1000.0
"""Of the display that HLG's system gamma of 1.2 belongs to (BT.2100)."""

GAMMA = 2.4
"""BT.1886."""

KNEE = 0.8
"""Brighter values are pressed together below 1 instead of cut off."""

_TO_709 = {
    ColorPrimaries.BT2020: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    ColorPrimaries.SMPTE432: [[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0196, -0.0786, 1.0983]],
}
"""Linear light of BT.2020 (ITU-R BT.2087) and of Display P3 -> linear BT.709; both have its white."""

_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)


def is_wide(picture: Any) -> bool:
    """Whether a decoded picture has a transfer curve or primaries that would look washed out as BT.709."""
    return picture.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67) or picture.color_primaries in _TO_709


def to_bt709(image: np.ndarray, picture: Any) -> np.ndarray:
    """uint16 ``(H, W, 3)`` RGB of a wide picture -> uint8, tone-mapped.

    Highlights over 0.8 of reference white approach 1 exponentially; the brightest channel decides, so hues stay.
    """
    light = _light(int(picture.color_trc))[image]
    if picture.color_trc == ColorTrc.ARIB_STD_B67:
        light *= HLG_PEAK_NITS / WHITE_NITS * (light @ _LUMA_2020)[..., None] ** 0.2
    if picture.color_primaries in _TO_709:
        light = light @ np.array(_TO_709[picture.color_primaries], np.float32).T
    top = light.max(axis=-1, keepdims=True).clip(KNEE)
    pressed = 1 - (1 - KNEE) * np.exp((KNEE - top) / (1 - KNEE))
    shown = (light * (pressed / top)).clip(0) ** (1 / GAMMA)
    return np.round(255 * shown).astype(np.uint8)


@cache
def _light(transfer: int) -> np.ndarray:
    """Light for each 16-bit value, float32 ``(65536,)``: reference white is 1; of HLG the scene's, in 0..1."""
    value = np.linspace(0, 1, 65536)
    if transfer == ColorTrc.SMPTE2084:
        root = value ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light *= 10_000 / WHITE_NITS
    elif transfer == ColorTrc.ARIB_STD_B67:
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = value**GAMMA
    return light.astype(np.float32)
