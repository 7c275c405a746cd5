"""Write the invisible mark (Sec. 5) into every frame: `waves.tile`, repeated, so that any crop holds all of it."""

from __future__ import annotations

import secrets

import numpy as np
from PIL import Image

from export3d.provenance.detect import FINE, is_small, residual, spectrum
from export3d.provenance.waves import PROJECT, TILE, phases, tile
from export3d.rendering.fused import add_pattern, fused_status

LARGEST_RMS, SMALLEST_RMS = 2.0, 1.4
"""Root mean square of the change in grey levels, up to 256 and from 512 pixels on: 42.1 and 45.2 dB."""

_BLOCK = 8  # pixels between two samples of the local contrast
_PATTERN_UNIT, _GAIN_UNIT, _FRACTION_BITS = 32, 16, 9  # fixed point: pattern in 1/32, gain in 1/16 grey levels
_FLAT, _SLOPE, _MAX_GAIN = 1.2, 0.7, 2.4  # relative; per grey level of bend; at most
_STRENGTHS = np.linspace(0.0, 4.0, 17)  # that a wave of a small picture may get


def new_payload() -> int:
    """The project's number and a random number for this run."""
    return PROJECT << 24 | secrets.randbits(24)


class Marker:
    """Writes one payload into frame after frame; each frame is marked for itself, so a live stream can be marked as well.

    Args:
        payload: 32 bits.
        strengths: of the waves, see `tile`.
    """

    def __init__(self, payload: int, strengths: np.ndarray | float = 1.0) -> None:
        self.payload = payload
        values = np.clip(np.round(tile(payload, strengths) * _PATTERN_UNIT), -127, 127).astype(np.int16)
        self._tile = np.repeat(values[..., None], 3, axis=2)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image with the mark; all three channels change alike, by up to ten grey levels."""
        strength = gain(image)
        if fused_status()[0]:
            return add_pattern(image, self._tile, strength)
        height, width = image.shape[:2]
        across = np.take(self._tile[..., 0], range(width), axis=1, mode="wrap")
        change = spread(strength, height, width) * across[np.arange(height) % TILE]
        change += 1 << (_FRACTION_BITS - 1)
        change >>= _FRACTION_BITS
        marked = image + change[..., None]
        return np.clip(marked, 0, 255, out=marked).astype(np.uint8)

    def still(self, image: np.ndarray) -> np.ndarray:
        """A single picture; in a small one the waves that it hides least get more of the same strength."""
        marked = self(image)
        if not is_small(image):
            return marked
        before, after = (spectrum(residual(x, FINE), 1.0) for x in (image, marked))
        turned = np.exp(-1j * phases(self.payload))
        one = float(np.mean(np.real((after - before) * turned)))
        return Marker(self.payload, worthwhile(before * turned / one))(image) if one > 0.0 else marked


def worthwhile(own: np.ndarray) -> np.ndarray:
    """The strengths ``(n,)``, mean square about 1, with which most waves come out at their keyed phase.

    Args:
        own: complex ``(n,)``, what the picture has at each wave, turned back by its phase, in units of strength 1.
    """
    seen = own[:, None] + _STRENGTHS
    agree = seen.real / np.maximum(np.abs(seen), 1e-9)
    low, high = 0.0, 10.0  # gain in agreement for which a unit of energy is given
    for _ in range(20):
        price = (low + high) / 2.0
        chosen = _STRENGTHS[(agree - price * _STRENGTHS**2).argmax(axis=1)]
        low, high = (price, high) if np.mean(chosen**2) > 1.0 else (low, price)
    return chosen


def target_rms(height: int, width: int) -> float:
    """Root mean square of the change in grey levels: large pictures say the same with less in each pixel."""
    return min(max(LARGEST_RMS * (256.0**2 / (height * width)) ** 0.25, SMALLEST_RMS), LARGEST_RMS)


def gain(image: np.ndarray) -> np.ndarray:
    """How strongly each block of 8 x 8 pixels may change: int16 ``(ceil(H / 8), ceil(W / 8))`` in 1/16 grey levels."""
    green = np.ascontiguousarray(image[::2, ::2, 1])
    bends = np.zeros_like(green)  # a slope is calm, what bends is lively
    bends[:, 1:-1] = _distance(green[:, 1:-1], _mean(green[:, 2:], green[:, :-2])) // 2
    bends[1:-1] += _distance(green[1:-1], _mean(green[2:], green[:-2])) // 2
    lively = np.asarray(Image.fromarray(bends).reduce(_BLOCK // 2), dtype=np.float32)
    wanted = np.minimum(_FLAT + _SLOPE * lively, _MAX_GAIN)
    wanted *= target_rms(*image.shape[:2]) / float(np.sqrt(np.mean(wanted**2))) * _GAIN_UNIT
    return np.round(wanted).astype(np.int16)


def spread(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The gain ``(height, width)``, bilinear between the middles of its blocks, four rows alike, as the kernel has it."""
    strips, columns = np.arange(-(-2 * height // _BLOCK)), np.arange(width)
    other = np.clip(strips // 2 + np.where(strips % 2, 1, -1), 0, len(blocks) - 1)
    lines = 3 * blocks[strips // 2] + blocks[other]
    off = (2 * (columns % _BLOCK) + 1 - _BLOCK).astype(np.int16)
    own, beside = columns // _BLOCK, np.clip(columns // _BLOCK + np.sign(off), 0, blocks.shape[1] - 1)
    values = lines[:, own] * (2 * _BLOCK - np.abs(off)) + lines[:, beside] * np.abs(off)
    return np.repeat(values + 32 >> 6, _BLOCK // 2, axis=0)[:height]


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b) - np.minimum(a, b)


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a >> 1) + (b >> 1)
