"""The sound track of one file, moved into another in step with the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from export3d.video.source import CLOCK_RESTART_S, audio_stream, open_input, start_time

COPYABLE_AUDIO = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "mp2"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"},
    "matroska": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "mp2", "vorbis", "pcm_s16le", "pcm_s24le", "dts"},
    "webm": {"opus", "vorbis"},
}
"""Audio codecs whose packets a container takes unchanged; anything else is re-encoded to AAC, in WebM to Opus."""

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class AudioCopy:
    """The first sound track of a file, moved into an output container in step with the pictures."""

    def __init__(self, container: Any, source: Any, output: Any, target: Any, *, copy: bool) -> None:
        self._container, self._source, self._output, self._target = container, source, output, target
        self._start = start_time(container)
        self._num_samples: int | None = None  # written so far by re-encoding, the start offset included
        self._copy = copy
        self._shift, self._end = 0, None  # of copied packets, in ticks of their clock
        self._resampler = None
        if not copy:
            codec = target.codec_context
            samples = 960 if codec.name == "libopus" else 1024
            self._resampler = av.AudioResampler(
                format=codec.format,
                layout=codec.layout,
                rate=codec.sample_rate,
                frame_size=samples,
            )
        self._packets = self._demux()
        self._waiting: Any = None

    @classmethod
    def open(cls, path: Path, output: Any, container_name: str) -> AudioCopy | None:
        container = open_input(path)
        source = audio_stream(container)
        if source is None:
            container.close()
            return None
        copy = source.codec_context.codec.canonical_name in COPYABLE_AUDIO[container_name]
        if copy:
            target = output.add_stream_from_template(source)
        else:
            given = source.codec_context.sample_rate
            opus = container_name == "webm"
            rate = given if given in _AAC_RATES and not opus else 48000
            target = output.add_stream("libopus" if opus else "aac", rate=rate)
            target.codec_context.layout = "mono" if source.codec_context.channels == 1 else "stereo"
        return cls(container, source, output, target, copy=copy)

    def copy_until(self, seconds: Fraction | None) -> None:
        """Move every packet that starts at or before `seconds`; all that is left when None."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if seconds is not None and packet.dts * packet.time_base > seconds:
                self._waiting = packet
                return
            self._output.mux(packet)

    def close(self) -> None:
        self._container.close()

    def _demux(self) -> Iterator[Any]:
        """Packets for the output. What is damaged is left out: a film is not given up for its sound."""
        packets = self._container.demux(self._source)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the container itself cannot be read on
                packet = None
            if packet is None:
                break
            if not self._copy:
                with suppress(av.error.FFmpegError):
                    yield from self._encode(self._source.decode(packet if packet.size else None))
            elif packet.size and packet.dts is not None and self._retime(packet):
                packet.stream = self._target
                yield packet
        if not self._copy:
            yield from self._encode([None])
            yield from self._target.encode(None)

    def _retime(self, packet: Any) -> bool:
        """Put a packet on the film's clock; false where joined recordings overlap and it comes a second time."""
        offset = round(self._start / packet.time_base) - self._shift
        lead = 0 if packet.pts is None else packet.pts - packet.dts
        dts = packet.dts - offset
        if self._end is not None and dts < self._end:
            if (self._end - dts) * packet.time_base <= CLOCK_RESTART_S:
                return False
            self._shift += self._end - dts  # the clock began anew: the sound goes on without a gap
            dts = self._end
        packet.dts, packet.pts = dts, dts + lead
        self._end = dts + max(packet.duration or 0, 1)
        return True

    def _encode(self, sounds: list[Any]) -> Iterator[Any]:
        """Resample and encode; times are counted in samples, since decoders' own times may jump."""
        assert self._resampler is not None
        rate = self._target.codec_context.sample_rate
        for sound in sounds:
            if sound is not None:
                if self._num_samples is None:
                    seconds = sound.pts * sound.time_base - self._start if sound.pts is not None else Fraction(0)
                    self._num_samples = round(seconds * rate)
                sound.pts = None
            for block in self._resampler.resample(sound):
                block.pts, block.time_base = self._num_samples, Fraction(1, rate)
                self._num_samples = (self._num_samples or 0) + block.samples
                yield from self._target.encode(block)
