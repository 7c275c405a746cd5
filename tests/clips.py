"""Clips made on the spot for tests: a photo panned behind a small window, with a tone as sound."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from skimage import data

from export3d.tracking import ExtractorInfo, Motion

AUDIO_RATE_HZ = 44_100


def panned_frames(num_frames: int, size: tuple[int, int] = (160, 160), blank: Container[int] = ()) -> list[np.ndarray]:
    """Windows of scikit-image's astronaut, moved a few pixels from frame to frame; black where `blank`."""
    width, height = size
    photo = data.astronaut()
    frames = []
    for index in range(num_frames):
        x, y = 130 + index % 20, 10 + index % 11
        window = np.ascontiguousarray(photo[y : y + height, x : x + width])
        frames.append(np.zeros_like(window) if index in blank else window)
    return frames


def make_clip(
    path: Path,
    *,
    fps: Fraction | int = 25,
    num_frames: int = 20,
    size: tuple[int, int] = (160, 160),
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    audio: str | None = "aac",
    audio_rate_hz: int = AUDIO_RATE_HZ,
    audio_s: float | None = None,
    audio_start_s: float = 0.0,
    blank: Container[int] = (),
    frames: Sequence[np.ndarray] | None = None,
    display_rotation: float | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip; `pts` (in units of `time_base`) makes the frame rate variable."""
    pictures = panned_frames(num_frames, size, blank) if frames is None else frames
    clock = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = clock
        stream.codec_context.max_b_frames = 0
        if display_rotation is not None:
            stream.set_display_rotation(display_rotation)
        sound = None
        if audio is not None:
            sound = container.add_stream(audio, rate=audio_rate_hz)
            sound.codec_context.layout = "mono"
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (index if pts is None else pts[index]), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            last = len(pictures) - 1 if pts is None else pts[-1]
            seconds = audio_s if audio_s is not None else float(last * clock + 1 / Fraction(fps))
            _write_tone(container, sound, round(seconds * audio_rate_hz), round(audio_start_s * audio_rate_hz))
    return path


def _write_tone(container: av.container.OutputContainer, stream: av.AudioStream, num_samples: int, pts: int) -> None:
    wave = (0.3 * np.sin(np.arange(num_samples) * 0.06)).astype(np.float32)[None]
    tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    rate = stream.codec_context.sample_rate
    tone.sample_rate, tone.pts = rate, pts
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate, frame_size=size)
    for block in [*resampler.resample(tone), *resampler.resample(None)]:
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))


@dataclass(frozen=True)
class ClipFacts:
    """What a clip holds, read packet by packet without the code under test."""

    num_frames: int
    rate: Fraction | None
    times: list[Fraction]
    num_samples: int
    audio_duration_s: float
    audio_codec: str | None
    audio_start_s: float
    size: tuple[int, int]


def clip_facts(path: Path) -> ClipFacts:
    """Decode a whole clip with plain PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
        rate, size = stream.average_rate, (stream.width, stream.height)
    num_samples, duration, name, start = 0, 0.0, None, 0.0
    with av.open(str(path)) as container:
        if container.streams.audio:
            sound = container.streams.audio[0]
            name = sound.codec_context.codec.canonical_name
            sounds = [(frame.samples, frame.time) for frame in container.decode(sound)]
            num_samples, start = sum(samples for samples, _ in sounds), sounds[0][1]
            duration = num_samples / sound.codec_context.sample_rate
    return ClipFacts(len(times), rate, times, num_samples, duration, name, start, size)


def face_points(center: tuple[float, float] = (80.0, 80.0), scale: float = 40.0, mouth: float = 0.15) -> np.ndarray:
    """68 landmarks ``(68, 2)`` of a drawn face in pixels; `mouth` is how far it is open, in units of `scale`."""
    angle = np.linspace(0.0, np.pi, 17)
    jaw = np.stack([-np.cos(angle), 0.1 + 1.1 * np.sin(angle)], axis=1)
    row = np.linspace(0.0, 1.0, 5)
    left_brow = np.stack([-0.75 + 0.55 * row, np.full(5, -0.45)], axis=1)
    right_brow = np.stack([0.2 + 0.55 * row, np.full(5, -0.45)], axis=1)
    bridge = np.stack([np.zeros(4), np.linspace(-0.2, 0.25, 4)], axis=1)
    nostrils = np.stack([np.linspace(-0.18, 0.18, 5), np.full(5, 0.35)], axis=1)
    eye = np.array([[-0.17, 0.0], [-0.06, -0.06], [0.06, -0.06], [0.17, 0.0], [0.06, 0.06], [-0.06, 0.06]])
    left_eye, right_eye = eye - np.array([0.43, 0.2]), eye + np.array([0.43, -0.2])
    turn = 2.0 * np.pi * np.arange(12) / 12
    outer = np.stack([-0.32 * np.cos(turn), 0.7 - (0.1 + mouth) * np.sin(turn)], axis=1)
    turn = 2.0 * np.pi * np.arange(8) / 8
    inner = np.stack([-0.22 * np.cos(turn), 0.7 - mouth * np.sin(turn)], axis=1)
    parts = [jaw, left_brow, right_brow, bridge, nostrils, left_eye, right_eye, outer, inner]
    return (np.concatenate(parts) * scale + np.asarray(center)).astype(np.float32)


def a_motion(num_frames: int = 4, space: str = "ict64", fps: Fraction = Fraction(30000, 1001)) -> Motion:
    """A motion whose last frame has no face."""
    generator = np.random.default_rng(0)
    return Motion(
        beta=generator.normal(size=(num_frames, 64)).astype(np.float32),
        camera=np.tile(np.append(np.eye(4), np.eye(3)).astype(np.float32), (num_frames, 1)),
        confidence=np.ones(num_frames, dtype=np.float32),
        found=np.array([True] * (num_frames - 1) + [False]),
        landmarks=np.zeros((num_frames, 68, 2), dtype=np.float32),
        time_s=np.array([float(index / fps) for index in range(num_frames)]),
        fps=fps,
        extractor=ExtractorInfo("test", "1", "", space),
    )
