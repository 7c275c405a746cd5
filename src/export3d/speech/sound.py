"""The sound of a file as one array, on the clock of its pictures."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import av.error
import numpy as np

from export3d.errors import UnreadableVideoError
from export3d.video.source import audio_stream, open_input, start_time

RATE_HZ = 16_000
"""What the phone models listen to."""

_MAX_DAMAGED = 1000

_WINDOW = RATE_HZ // 40
"""Samples of a spectrum: 25 ms, in steps of 40 Hz."""

_BAND = slice(600 // 40, 1200 // 40)

_RANGE_DB, _LEAST_DB, _OVER_NOISE_DB = 25.0, 6.0, 3.0
"""From a shut mouth to an open one; less than the second is no voice; noise opens no mouth."""

_SILENT_DB = -30.0
"""Level of the band under which nobody speaks."""


def read_sound(path: str | Path) -> np.ndarray:
    """The first sound track, mono, from the earliest start of picture and sound on: ``(n,)`` float32 in [-1, 1] at
    :data:`RATE_HZ`. Damaged packets are silent.

    Raises:
        UnreadableVideoError: Not a media file, or without a sound that can be decoded.
    """
    path = Path(path)
    with closing(open_input(path)) as container:
        stream = audio_stream(container)
        if stream is None:
            raise UnreadableVideoError(
                f"{path}: the file has no sound. Give a recording of speech, or a film with one."
            )
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        delay = (stream.start_time or 0) * (stream.time_base or 0) - start_time(container)
        blocks, damaged = [np.zeros(max(round(delay * RATE_HZ), 0), np.int16)], 0
        packets = container.demux(stream)
        while damaged < _MAX_DAMAGED:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                for frame in stream.decode(packet if packet.size else None):
                    frame.pts = None
                    blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                damaged += 1
        if len(blocks) > 1:
            blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    sound = np.concatenate(blocks).astype(np.float32) / 32768.0
    if len(blocks) == 1 or not len(sound):
        raise UnreadableVideoError(
            f"{path}: its sound cannot be decoded. Play it to check, then export it again as wav."
        )
    return sound


def openness(sound: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """How far the mouth is open ``(T,)``, from 0 to about 1: the level between 600 and 1200 Hz against the voice's usual
    peaks, since the first formant rises into that band as the jaw falls."""
    padded = np.pad(sound, _WINDOW)
    starts = np.clip(np.round(times_s * RATE_HZ).astype(int) + _WINDOW // 2, 0, max(len(padded) - _WINDOW, 0))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    level = np.empty(len(times_s))
    for first in range(0, len(starts), 5000):  # a minute at a time: spectra are large
        some = frames[starts[first : first + 5000]] * np.hanning(_WINDOW)
        power = np.abs(np.fft.rfft(some, axis=1)[:, _BAND]) ** 2
        level[first : first + 5000] = 10.0 * np.log10(power.sum(1) + 1e-9)
    noise, peak = np.quantile(level, (0.05, 0.95)) if len(level) else (0.0, 0.0)
    shut = max(peak - _RANGE_DB, noise + _OVER_NOISE_DB)
    if peak < _SILENT_DB or peak - shut < _LEAST_DB:
        return np.zeros(len(level))
    return np.clip((level - shut) / (peak - shut), 0.0, 1.1)
