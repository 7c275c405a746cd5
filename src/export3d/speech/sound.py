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


def loudness(sound: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Level ``(T,)`` at the times, in [0, 1]: 0 is 30 dB under the voice's usual peaks (or quieter), 1 is 12 dB under them."""
    half = RATE_HZ // 100  # windows of 20 ms
    power = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    middle = np.round(times_s * RATE_HZ).astype(int)
    first, last = (np.clip(middle + side, 0, len(sound)) for side in (-half, half))
    level = 10.0 * np.log10((power[last] - power[first]) / np.maximum(last - first, 1) + 1e-12)
    peak = np.quantile(level, 0.95) if len(level) else 0.0
    if peak < -70.0:  # nobody speaks
        return np.zeros(len(level))
    return np.clip((level - peak + 30.0) / 18.0, 0.0, 1.0)
