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
_STEP = 4  # pixels between two rows of the gain
_PATTERN_UNIT, _FRACTION_BITS = 32, 9  # fixed point: pattern in 1/32, gain in 1/16 grey levels
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
        self._tile = np.clip(np.round(tile(payload, strengths) * _PATTERN_UNIT), -127, 127).astype(np.int16)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image with the mark; all three channels change alike, by up to ten grey levels."""
        strength = gain(image)
        if fused_status()[0]:
            return add_pattern(image, self._tile, strength, step=_STEP, fraction=_FRACTION_BITS)
        rows, across = np.arange(len(image)), np.take(self._tile, range(image.shape[1]), axis=1, mode="wrap")
        change = np.repeat(strength[rows // _STEP] * across[rows % TILE], 3, axis=1)
        change += 1 << (_FRACTION_BITS - 1)
        change >>= _FRACTION_BITS
        change += image.reshape(len(image), -1)
        return np.clip(change, 0, 255, out=change).astype(np.uint8).reshape(image.shape)

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
    """How strongly each place may change: int16 ``(ceil(H / 4), W)`` in 1/16 grey levels; more where it is lively."""
    height, width = image.shape[:2]
    green = np.ascontiguousarray(image[::2, ::2, 1])
    bends = np.zeros_like(green)  # a slope is calm, what bends is lively
    bends[:, 1:-1] = _distance(green[:, 1:-1], _mean(green[:, 2:], green[:, :-2])) // 2
    bends[1:-1] += _distance(green[1:-1], _mean(green[2:], green[:-2])) // 2
    lively = np.asarray(Image.fromarray(bends).reduce(_BLOCK // 2), dtype=np.float32)
    wanted = np.minimum(_FLAT + _SLOPE * lively, _MAX_GAIN)
    wanted *= target_rms(height, width) / float(np.sqrt(np.mean(wanted**2))) * 16
    smooth = Image.fromarray(wanted).resize((width, -(-height // _STEP)), Image.Resampling.BILINEAR)
    return np.asarray(smooth.convert("L")).astype(np.int16)  # of bytes, Pillow hands over four times as fast


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b) - np.minimum(a, b)


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a >> 1) + (b >> 1)
