"""Damage to a file, as a pure function of a seed: bits, cuts, copies, and values that no writer would write."""

from __future__ import annotations

import re

import numpy as np

VALUES = (
    b"null", b"-1", b"0", b"1e100000000", b"Infinity", b"NaN", b"1e999", b"9" * 5000, b"-" + b"9" * 400, b'"x"', b"[]",
    b"{}", b"true", b"[" * 100_000, b'{"a":' * 5000, b"1000000000", b"18446744073709551616", b'"\\ud800"', b'"../../etc"',
    b'"/tmp/x"', b"1.5", b'""',
)  # fmt: skip


def damaged(good: bytes, seed: int) -> bytes:
    """One to three kinds of damage in a row."""
    rng = np.random.default_rng(seed)
    content = good
    for _ in range(int(rng.integers(1, 4))):
        content = _KINDS[int(rng.integers(len(_KINDS)))](content or b"\0", rng)
    return content


def flipped(good: bytes, seed: int) -> bytes:
    """One bit changed."""
    rng = np.random.default_rng(seed)
    content = bytearray(good)
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _bits(content: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _head_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Extreme bytes near the beginning, where sizes and counts are."""
    out = bytearray(content)
    at = int(rng.integers(min(len(out), 600)))
    extreme = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1\0\0")[int(rng.integers(5))]
    out[at : at + 4] = extreme
    return bytes(out)


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _zeros(content: bytes, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 512))
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + rng.bytes(int(rng.integers(1, 300))) + content[at:]


def _copy(content: bytes, rng: np.random.Generator) -> bytes:
    first, second = sorted(int(i) for i in rng.integers(len(content), size=2))
    return content[:second] + content[first:second] + content[second:]


def _value(content: bytes, rng: np.random.Generator) -> bytes:
    """A number or text of a structured file replaced by something that does not belong there."""
    places = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"]{0,80}"|null|true|false', content[:20_000]))
    if not places:
        return _insert(content, rng)
    place = places[int(rng.integers(len(places)))]
    return content[: place.start()] + VALUES[int(rng.integers(len(VALUES)))] + content[place.end() :]


_KINDS = (_bits, _head_bytes, _cut, _zeros, _insert, _copy, _value, _value)
