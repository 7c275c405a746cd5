"""When which phone is spoken: PocketSphinx with its own English models, offline.

The phones of other languages become the nearest English ones, which for lips is near enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from export3d.errors import MissingExtraError
from export3d.speech.sound import RATE_HZ

SILENCE = "SIL"

_DITHER = 0.03
"""Noise under the voice, a share of its level: in digital silence the model hears nothing but silence for seconds."""

_LONGEST_S = 20.0
"""Longer sounds are heard in pieces, cut where they are quietest."""

_HALF_FRAME_S = 0.005


class Phone(NamedTuple):
    """A phone in ARPAbet (`SIL` where nobody speaks) and its time in seconds."""

    start_s: float
    end_s: float
    name: str


def phones_of(sound: np.ndarray) -> list[Phone]:
    """The phones of a voice ``(n,)`` in [-1, 1] at 16 kHz, in their order.

    Raises:
        MissingExtraError: PocketSphinx is not installed.
    """
    try:
        from pocketsphinx import Decoder, get_model_path
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'A sound that drives a face needs PocketSphinx, which is not installed. Run: pip install "export3d[sound]"'
        ) from error
    level = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))) if len(sound) else 0.0
    if level < 1e-4:
        return [Phone(0.0, len(sound) / RATE_HZ, SILENCE)]
    # The same level for all, and the same noise for each run.
    heard = sound * (0.08 / level) + np.random.default_rng(0).normal(0.0, 0.08 * _DITHER, len(sound))
    samples = (32767.0 * np.clip(heard, -1.0, 1.0)).astype(np.int16)
    models = {"hmm": "en-us/en-us", "allphone": "en-us/en-us-phone.lm.bin"}
    settings = {name: get_model_path(path) for name, path in models.items()}
    beams = dict.fromkeys(("beam", "pbeam", "wbeam"), 1e-40)
    decoder = Decoder(**settings, **beams, lm=None, lw=1.0, cmn="batch", samprate=RATE_HZ, loglevel="FATAL")
    phones: list[Phone] = []
    for first, last in _pieces(samples):
        decoder.start_utt()
        decoder.process_raw(samples[first:last].tobytes(), full_utt=True)
        decoder.end_utt()
        start = first / RATE_HZ + _HALF_FRAME_S
        for found in decoder.seg() or ():
            name = found.word if found.word.isalpha() else SILENCE
            phones.append(Phone(start + found.start_frame / 100, start + (found.end_frame + 1) / 100, name))
    return phones


def _pieces(samples: np.ndarray) -> list[tuple[int, int]]:
    """First and last sample of pieces of at most 20 s, cut at the quietest tenth of a second of their second half."""
    step, longest = RATE_HZ // 10, int(_LONGEST_S * RATE_HZ)
    cuts = [0]
    while len(samples) - cuts[-1] > longest:
        half = cuts[-1] + longest // 2
        blocks = samples[half : half + longest // 2].astype(np.float64).reshape(-1, step)
        cuts.append(half + step * int((blocks**2).mean(1).argmin()) + step // 2)
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))
