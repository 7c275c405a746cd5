"""A voice that the tests make themselves, without any synthesiser: what the mouth must do for it."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import numpy as np
import pytest

from export3d.errors import UnreadableVideoError
from export3d.face_state import ARKIT_NAMES
from export3d.speech import RATE_HZ, Phone, mouth_weights, phones_of, read_sound
from export3d.speech.sound import openness

JAW, PRESS = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthPressLeft")


def tone(seconds: float, hz: float = 800.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def write_wav(path: Path, sound: np.ndarray, rate: int = RATE_HZ) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes((32767 * sound).astype("<i2").tobytes())
    return path


def test_a_sound_is_read_at_16_khz_with_its_length_and_level(tmp_path: Path) -> None:
    there = tone(0.5, 440.0)
    found = read_sound(write_wav(tmp_path / "a.wav", np.repeat(there, 3), 3 * RATE_HZ))
    assert abs(len(found) - len(there)) < 80
    assert np.abs(found).max() == pytest.approx(0.3, abs=0.03)


def test_a_film_without_sound_and_a_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound at all")
    with pytest.raises(UnreadableVideoError, match="not a video that FFmpeg can read"):
        read_sound(tmp_path / "a.wav")
    from export3d.video import VideoWriter

    with VideoWriter(tmp_path / "mute.mp4", 25, (64, 64)) as film:
        for index in range(3):
            film.write(np.zeros((64, 64, 3), np.uint8), index, 1)
    with pytest.raises(UnreadableVideoError, match="has no sound"):
        read_sound(tmp_path / "mute.mp4")


def test_the_mouth_opens_with_the_first_formant_and_not_with_a_hiss_or_a_hum() -> None:
    times = np.arange(0.05, 0.35, 0.05)
    gap = np.zeros(round(0.4 * RATE_HZ), np.float32)
    sound = np.concatenate([tone(0.4), tone(0.4, 5000.0), tone(0.4, 200.0), gap])
    found = openness(sound, np.concatenate([times + 0.4 * k for k in range(4)]))
    vowel, hiss, hum, silence = found.reshape(4, -1).mean(axis=1)
    assert vowel > 0.9 and max(hiss, hum, silence) < 0.1


def test_steady_noise_opens_no_mouth() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, 2 * RATE_HZ).astype(np.float32)
    assert openness(noise, np.arange(0.1, 1.9, 0.01)).max() == 0.0


def test_lips_are_shut_in_a_frame_of_every_closure_however_short() -> None:
    sound, times = tone(2.0), np.arange(0.0, 2.0, 0.04)
    phones = [Phone(0.0, 0.51, "AA"), Phone(0.51, 0.53, "P"), Phone(0.53, 2.0, "AA")]
    weights = mouth_weights(phones, sound, times, 0.02)
    at = int(0.52 / 0.04)
    assert weights[at : at + 2, JAW].min() == pytest.approx(0.0, abs=1e-6)
    assert weights[at : at + 2, PRESS].max() == pytest.approx(0.4, abs=1e-6)
    assert weights[5, JAW] > 0.3 and weights[20:45, JAW].min() > 0.3


def test_round_vowels_round_the_lips_on_both_sides_alike() -> None:
    times = np.arange(0.2, 0.8, 0.04)
    weights = dict(zip(ARKIT_NAMES, mouth_weights([Phone(0.0, 1.0, "UW")], tone(1.0), times, 0.02).T, strict=True))
    assert weights["mouthPucker"].min() > 0.5
    assert all(np.array_equal(weights[n], weights[n.replace("Left", "Right")]) for n in weights if "Left" in n)


def test_silence_has_one_phone_and_a_still_mouth() -> None:
    pytest.importorskip("pocketsphinx")
    sound = np.zeros(RATE_HZ, np.float32)
    assert phones_of(sound) == [Phone(0.0, 1.0, "SIL")]
    assert not mouth_weights(phones_of(sound), sound, np.arange(0.0, 1.0, 0.04), 0.02).any()


@pytest.mark.slow
def test_phones_follow_each_other_and_cover_a_long_sound() -> None:
    pytest.importorskip("pocketsphinx")
    syllables = np.concatenate([np.concatenate([tone(0.2, 700.0), 0.01 * tone(0.1)]) for _ in range(80)])
    phones = phones_of(syllables)
    assert all(a.end_s <= b.start_s + 0.02 for a, b in itertools.pairwise(phones))
    assert phones[-1].end_s == pytest.approx(24.0, abs=0.1)
