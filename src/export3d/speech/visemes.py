"""What the mouth does: its opening as the sound tells, the shape of the lips by the phone, shut where they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from export3d.face_state import ARKIT_NAMES
from export3d.speech.phones import Phone
from export3d.speech.sound import openness

_Shape = Mapping[str, float]

_LIPS: tuple[tuple[str, _Shape], ...] = (
    ("AO OW OY", {"mouthFunnel": 0.45}),
    ("ER UH R", {"mouthFunnel": 0.25}),
    ("SH ZH CH JH", {"mouthFunnel": 0.35}),
    ("UW W", {"mouthPucker": 0.55}),
    ("AE AY EH", {"mouthStretch": 0.15}),
    ("EY IH IY Y", {"mouthStretch": 0.3, "mouthSmile": 0.15}),
    ("S Z", {"mouthStretch": 0.25, "mouthLowerDown": 0.15}),
    ("F V", {"mouthRollLower": 0.5, "mouthUpperUp": 0.2}),
)
"""What phones do to the lips beside opening them."""

_OPEN: _Shape = {"jawOpen": 0.4, "mouthLowerDown": 0.25, "mouthUpperUp": 0.1}
"""The open mouth of a loud "ah"."""

SHUT = ("P", "B", "M")
"""Phones that cannot be spoken with open lips."""

_PRESSED: _Shape = {"mouthPress": 0.4, "mouthRollLower": 0.2, "mouthRollUpper": 0.2}

_PARTING = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthStretch")
"""Shapes that part the lips."""

_STEP_S = 0.01

_BLEND_S = 0.035
"""Standard deviation of the Gaussian that carries one phone's shape over to the next."""

_RAMP_S = 0.03
"""Lips close and open again in this time around a closure."""


def shape_weights(shape: _Shape) -> np.ndarray:
    """``(52,)`` from names; one without a side sets both."""
    weights = np.zeros(len(ARKIT_NAMES))
    for name, value in shape.items():
        weights[[i for i, n in enumerate(ARKIT_NAMES) if n in (name, f"{name}Left", f"{name}Right")]] = value
    return weights


_WEIGHTS = {phone: shape_weights(shape) for names, shape in _LIPS for phone in names.split()}
_PARTS = shape_weights(dict.fromkeys(_PARTING, 1.0)) > 0.0


def mouth_weights(phones: Sequence[Phone], sound: np.ndarray, times_s: np.ndarray, half_s: float) -> np.ndarray:
    """Weights of the mouth at some times.

    Args:
        phones: from `phones_of`.
        sound: the same voice, ``(n,)`` at 16 kHz.
        times_s: ``(T,)`` seconds.
        half_s: half a frame's time. A closure that begins and ends within a frame shows in it.

    Returns:
        ``(T, 52)`` in [0, 1], order of `ARKIT_NAMES`; 0 for all that is not the mouth.
    """
    grid = np.arange(0.0, max(float(times_s.max(initial=0.0)), 0.0) + 0.5, _STEP_S)
    target, shut = np.zeros((len(grid), len(ARKIT_NAMES))), np.zeros(len(grid))
    for start_s, end_s, name in phones:
        if name in SHUT:
            outside = np.maximum(start_s - grid, grid - end_s)
            shut = np.maximum(shut, np.clip(1.0 - outside / _RAMP_S, 0.0, 1.0))
        target[(grid >= start_s) & (grid < end_s)] = _WEIGHTS.get(name, 0.0)
    blend = np.exp(-0.5 * (np.arange(-0.12, 0.121, _STEP_S) / _BLEND_S) ** 2)
    blend /= blend.sum()
    track = np.stack([np.convolve(column, blend, "same") for column in target.T], axis=1)
    track += np.convolve(openness(sound, grid), np.full(3, 1 / 3), "same")[:, None] * shape_weights(_OPEN)
    near = np.arange(-half_s, half_s + 1e-9, _STEP_S)
    shut = np.max([np.interp(times_s + d, grid, shut) for d in near], axis=0)[:, None]
    at = np.stack([np.interp(times_s, grid, column) for column in track.T], axis=1)
    at[:, _PARTS] *= 1.0 - shut
    return np.maximum(at, shut * shape_weights(_PRESSED)).astype(np.float32)
