"""What the invisible mark is made of: 32 bits, said by where five keyed patterns of waves lie against each other.

A tile of 128x128 pixels is a sum of waves of the middle frequencies with keyed random phases. The waves are dealt out to five
patterns: the first lies at the tile's origin, each other one is moved (cyclically) to one of 64x64 places, which says 12 bits.
48 bits are the payload and its checksum.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

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


def places_of(payload: int) -> np.ndarray:
    """Places ``(4, 2)`` (y, x) in pixels of the patterns 1 to 4 for a payload of 32 bits, its checksum included."""
    if not 0 <= payload < 2**32:
        raise ValueError(f"payload must have 32 bits; got {payload}")
    word = (payload << 16) | binascii.crc_hqx(payload.to_bytes(4, "big"), 0xFFFF)
    symbols = [(word >> shift) & 0xFFF for shift in (36, 24, 12, 0)]
    return np.array([divmod(symbol, PLACES) for symbol in symbols]) * GRID


def phases(payload: int) -> np.ndarray:
    """Phase ``(n,)`` in radians of each wave, its pattern at the place that the payload says."""
    keyed = waves()
    moved = np.concatenate([np.zeros((1, 2), dtype=np.int64), places_of(payload)])[keyed.pattern]
    found: np.ndarray = keyed.phase - 2.0 * np.pi * (keyed.y * moved[:, 0] + keyed.x * moved[:, 1]) / TILE
    return found


def tile(payload: int, strengths: np.ndarray | float = 1.0) -> np.ndarray:
    """The tile ``(128, 128)`` float64 of a payload: mean 0, root mean square 1; its waves' relative strengths ``(n,)``."""
    keyed = waves()
    spectrum = np.zeros((TILE, TILE), dtype=np.complex128)
    spectrum[keyed.y, keyed.x] = strengths * np.exp(1j * phases(payload))
    values = np.fft.ifft2(spectrum).real
    return values / values.std()
