"""The invisible mark (Sec. 5): 32 bits, written in where five keyed patterns lie against each other, in every frame.

A tile of 128x128 pixels is repeated over the frame, so that any crop holds all of it. The tile is a sum of waves of the middle
frequencies with keyed random phases. The waves are dealt out to five patterns: the first lies at the tile's origin, each
other one is moved (cyclically) to one of 64x64 places, which says 12 bits. 48 bits are the payload and its checksum.
"""

from __future__ import annotations

import binascii
import hashlib
import secrets
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from export3d.rendering.fused import add_pattern, fused_status

TILE = 128
"""Side of the repeated tile, pixels."""

BAND = (8, 20)
"""Lowest and highest frequency, waves per tile: periods of 16 to 6 pixels, which survive halving and strong compression."""

NUM_PATTERNS = 5
GRID = 2
"""Distance between two places of a pattern, pixels."""

PLACES = TILE // GRID
"""Places along each side."""

PROJECT = 0xE3
"""First 8 bits of every payload; the other 24 are the number of the run."""

KEY = b"export3d invisible mark 1"
"""Public, so that anyone can look for the mark; it proves nothing about who made a video (docs/provenance.md)."""

LARGEST_RMS, SMALLEST_RMS = 2.0, 1.4
"""Root mean square of the change in grey levels, up to 256 and from 512 pixels on: 42.1 and 45.2 dB."""

_BLOCK = 8  # pixels between two samples of the local contrast
_STEP = 4  # pixels between two rows of the gain
_STRIP = 32  # rows at a time
_PATTERN_UNIT, _FRACTION_BITS = 32, 9  # fixed point: pattern in 1/32, gain in 1/16 grey levels
_FLAT, _SLOPE, _MAX_GAIN = 1.2, 0.7, 2.4  # relative; per grey level of bend; at most


@dataclass(frozen=True)
class Waves:
    """The keyed waves of the tile.

    Attributes:
        y, x: ``(n,)`` int, waves per tile; one of each pair of opposite frequencies.
        phase: ``(n,)`` radians.
        pattern: ``(n,)`` int, which of the five patterns a wave belongs to.
    """

    y: np.ndarray
    x: np.ndarray
    phase: np.ndarray
    pattern: np.ndarray


@lru_cache(maxsize=1)
def waves() -> Waves:
    """The waves of `KEY`; the same on every machine and with every version of NumPy."""
    low, high = BAND
    y, x = np.mgrid[0 : high + 1, -high : high + 1]
    radius = np.hypot(y, x)
    chosen = (radius >= low) & (radius <= high) & ((y > 0) | (x > 0))
    y, x = y[chosen], x[chosen]
    bits = np.frombuffer(hashlib.shake_256(KEY).digest(8 * len(y)), dtype="<u4").reshape(2, -1)
    phase = bits[0] * (2.0 * np.pi / 2**32)
    pattern = np.empty(len(y), dtype=np.int64)
    pattern[np.argsort(bits[1], kind="stable")] = np.arange(len(y)) % NUM_PATTERNS
    return Waves(y, x, phase, pattern)


def new_payload() -> int:
    """The project's number and a random number for this run."""
    return PROJECT << 24 | secrets.randbits(24)


def places_of(payload: int) -> np.ndarray:
    """Places ``(4, 2)`` (y, x) in pixels of the patterns 1 to 4 for a payload of 32 bits, its checksum included."""
    if not 0 <= payload < 2**32:
        raise ValueError(f"payload must have 32 bits; got {payload}")
    word = (payload << 16) | binascii.crc_hqx(payload.to_bytes(4, "big"), 0xFFFF)
    symbols = [(word >> shift) & 0xFFF for shift in (36, 24, 12, 0)]
    return np.array([divmod(symbol, PLACES) for symbol in symbols]) * GRID


def tile(payload: int) -> np.ndarray:
    """The tile ``(128, 128)`` float64 of a payload: mean 0, root mean square 1."""
    keyed = waves()
    moved = np.concatenate([np.zeros((1, 2), dtype=np.int64), places_of(payload)])[keyed.pattern]
    phase = keyed.phase - 2.0 * np.pi * (keyed.y * moved[:, 0] + keyed.x * moved[:, 1]) / TILE
    spectrum = np.zeros((TILE, TILE), dtype=np.complex128)
    spectrum[keyed.y, keyed.x] = np.exp(1j * phase)
    values = np.fft.ifft2(spectrum).real
    return values / values.std()


class Marker:
    """Writes one payload into frame after frame; each frame is marked for itself, so a live stream can be marked as well.

    Args:
        payload: 32 bits.
    """

    def __init__(self, payload: int) -> None:
        self.payload = payload
        self._tile = np.clip(np.round(tile(payload) * _PATTERN_UNIT), -127, 127).astype(np.int16)
        self._across = np.zeros((0, _STEP, 0), dtype=np.int16)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image with the mark; all three channels change alike, by up to ten grey levels."""
        strength = gain(image)
        if fused_status()[0]:
            return add_pattern(image, self._tile, strength, step=_STEP, fraction=_FRACTION_BITS)
        return self._with_numpy(image, np.repeat(strength, 3, axis=1))

    def _with_numpy(self, image: np.ndarray, strength: np.ndarray) -> np.ndarray:
        """The same numbers, in more time."""
        height, width = image.shape[0], 3 * image.shape[1]
        if self._across.shape[-1] != width:
            across = np.take(self._tile, range(image.shape[1]), axis=1, mode="wrap")
            self._across = np.repeat(across, 3, axis=1).reshape(-1, _STEP, width)
        rows = image.reshape(height, width)
        marked = np.empty_like(rows)
        for top in range(0, height, _STRIP):  # strips stay in the processor's cache
            own = strength[top // _STEP : (top + _STRIP) // _STEP, None]
            product = own * self._across[top % TILE // _STEP :][: len(own)]
            change = product.reshape(-1, width)[: height - top]
            change += 1 << (_FRACTION_BITS - 1)
            change >>= _FRACTION_BITS
            change += rows[top : top + _STRIP]
            np.clip(change, 0, 255, out=change)
            marked[top : top + _STRIP] = change
        return marked.reshape(image.shape)


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
    return np.asarray(smooth).astype(np.int16)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b) - np.minimum(a, b)


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a >> 1) + (b >> 1)
