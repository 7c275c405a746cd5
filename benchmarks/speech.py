"""How well lips follow a voice: synthetic speech whose phones and times are known -> results/speech.json.

Voices: espeak-ng (formants, several languages; its library tells each phoneme's time) and flite (built from recordings of
people, English; `-psdur` tells the times). Both come from Debian: apt-get install espeak-ng flite. No human speech is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from export3d.face_state import ARKIT_NAMES, arkit_column
from export3d.heads.clips.motion import EXPRESSION_NAMES
from export3d.heads.shape.procedural import procedural_head
from export3d.speech import RATE_HZ, Phone, mouth_weights, phones_of, read_sound
from material import save

TEXTS = {
    "en": "Bob bought a big map from my mother. The happy puppy jumped over people and bumped my lamp, but nobody blamed "
    "him. We may begin by moving both boxes up to the summer room, please.",
    "de": "Bitte bring mir morgen bei Papa ein paar bunte Blumen mit. Der Baum am Bach war im Sommer immer prachtvoll.",
    "fr": "Mon papa m'a permis de partir en bateau. La petite pomme tombe du bel arbre, et ma mère la mange.",
    "es": "Mi mamá prepara una sopa buena para mi abuelo. Pablo bebe un poco de vino blanco con su amigo.",
    "it": "La mamma compra il pane e la pasta per la bambina. Mio babbo ama molto la buona pizza.",
}
ESPEAK = (
    *(("gmw/en-US", "en", speed) for speed in (140, 175, 220)),
    *(("gmw/en-US+f3", "en", 175), ("gmw/en-GB-x-rp", "en", 175), ("gmw/en-GB-x-rp+m3", "en", 175)),
    *(("gmw/de", "de", 165), ("roa/fr", "fr", 165), ("roa/es", "es", 170), ("roa/it", "it", 170)),
)
FLITE = (("rms", 1.0), ("rms", 0.8), ("slt", 1.0), ("slt", 1.25), ("awb", 1.0), ("kal16", 1.0))
NOISE_DB = (None, 20, 10)

SHUT = ("p", "b", "m")
OPEN = {
    1.0: "a ɑ æ ɒ ɐ aa ae ay aw",
    0.75: "ɛ ɔ ʌ œ eh ao ah oy ax",
    0.5: "e o ə ɜ ø ɚ ey ow er",
    0.3: "i u y ɪ ʊ ɨ iy ih uw uh",
}
OPENNESS = {name: value for value, names in OPEN.items() for name in names.split()}
FPS = 25.0

Voice = tuple[np.ndarray, list[Phone]]


class _Event(ctypes.Structure):
    class _Id(ctypes.Union):
        _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique", "text", "length", "audio_ms", "sample")),
        *(("user", ctypes.c_void_p), ("id", _Id)),
    ]


class Espeak:
    """libespeak-ng: sound and phoneme events of a text."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self._lib.espeak_Initialize(2, 0, None, 1 | 2)  # synchronous; phoneme events, in IPA
        self._sound: list[np.ndarray] = []
        self._events: list[tuple[float, str]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._take)  # kept, so that it is not collected
        self._lib.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, events) -> int:
        if count and samples:
            self._sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        place = 0
        while events[place].type:
            if events[place].type == 7:
                self._events.append((events[place].audio_ms / 1000, bytes(events[place].id.string).decode()))
            place += 1
        return 0

    def say(self, text: str, voice: str, speed: int) -> tuple[np.ndarray, list[Phone]]:
        self._sound, self._events = [], []
        if self._lib.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        self._lib.espeak_SetParameter(1, speed, 0)
        written = text.encode() + b"\0"
        self._lib.espeak_Synth(written, len(written), 0, 0, 0, 1, None, None)
        ends = [start for start, _ in self._events[1:]] + [self._events[-1][0]]
        phones = [Phone(a, b, n) for (a, n), b in zip(self._events, ends, strict=True)]
        return np.concatenate(self._sound), phones


def flite(text: str, voice: str, stretch: float, wav: Path) -> list[Phone]:
    """Writes the sound; returns the phones."""
    setting = ["--setf", f"duration_stretch={stretch}"]
    told = subprocess.run(
        ["flite", "-voice", voice, *setting, "-psdur", "-t", text, "-o", str(wav)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    phones, start = [], 0.0
    for word in told.split():
        name, _, end = word.rpartition(":")
        phones.append(Phone(start, float(end), "" if name == "pau" else name))
        start = float(end)
    return phones


def voices(folder: Path) -> Iterator[tuple[str, str, Voice]]:
    """(engine, name, sound and phones)."""
    import wave

    wav, espeak = folder / "voice.wav", Espeak()
    for voice, language, speed in ESPEAK:
        samples, phones = espeak.say(TEXTS[language], voice, speed)
        with wave.open(str(wav), "wb") as out:
            out.setparams((1, 2, espeak.rate, 0, "NONE", ""))
            out.writeframes(samples.tobytes())
        yield "espeak-ng", f"{voice} {speed} words/min", (read_sound(wav), phones)
    for voice, stretch in FLITE:
        phones = flite(TEXTS["en"], voice, stretch, wav)
        yield "flite", f"{voice} x{stretch}", (read_sound(wav), phones)


def lip_gap() -> tuple[float, np.ndarray]:
    """Gap between the inner lips of the procedural head, mm: at rest, and per unit of each ARKit weight ``(52,)``."""
    head = procedural_head()
    upper, lower = head.landmark_vertices[62], head.landmark_vertices[66]
    rest = head.vertices[upper, 1] - head.vertices[lower, 1]
    change = np.zeros(len(ARKIT_NAMES))
    for index, name in enumerate(EXPRESSION_NAMES):
        change[arkit_column(name)] += float(
            head.expression_basis[index, upper, 1] - head.expression_basis[index, lower, 1]
        )
    return 10.0 * float(rest), 10.0 * change


def truth(phones: list[Phone], times: np.ndarray) -> np.ndarray:
    """Openness ``(T,)`` by the height of vowels (consonants 0.2, lips shut and pauses 0), blended over 35 ms."""
    level = np.zeros(len(times))
    for start, end, name in phones:
        inside = (times >= start) & (times < end)
        bare = name.strip("ːˈˌ̃")
        first = OPENNESS.get(bare, OPENNESS.get(bare[:1], 0.2 if bare else 0.0))
        level[inside] = 0.0 if bare[:1] in SHUT else first
    blend = np.exp(-0.5 * (np.arange(-0.12, 0.121, 0.01) / 0.035) ** 2)
    return np.convolve(level, blend / blend.sum(), "same")


def score(sound: np.ndarray, phones: list[Phone], change: np.ndarray) -> dict:
    """Closures seen in the film's frames, lag, correlation, and closures where a vowel is."""
    begun = time.process_time()
    heard = phones_of(sound)
    cost = (time.process_time() - begun) / (len(sound) / RATE_HZ)
    frames = np.arange(0.0, len(sound) / RATE_HZ, 1.0 / FPS)
    gap = mouth_weights(heard, sound, frames, 0.5 / FPS) @ change
    wide = np.quantile(gap, 0.95)
    shut = gap < 0.15 * wide
    closures = [p for p in phones if p.name[:1] in SHUT]
    seen = [bool(shut[(frames > p.start_s - 0.04) & (frames < p.end_s + 0.04)].any()) for p in closures]
    inner = [(p.start_s + p.end_s) / 2 for p in phones if OPENNESS.get(p.name.strip("ːˈˌ̃")[:2].strip("ː"), 0) >= 0.5]
    false = np.interp(inner, frames, shut.astype(float)) > 0.5 if inner else np.zeros(0)
    fine = np.arange(0.0, len(sound) / RATE_HZ, 0.01)
    told, right = mouth_weights(heard, sound, fine, 0.5 / FPS) @ change, truth(phones, fine)
    lags = range(-20, 21)
    by_lag = [np.corrcoef(np.roll(told, -lag)[20:-20], right[20:-20])[0, 1] for lag in lags]
    return {
        "closures": len(seen),
        "seen_shut": float(np.mean(seen)),
        "vowels_shut": float(np.mean(false)),
        "lag_ms": 10.0 * lags[int(np.argmax(by_lag))],
        "openness_correlation": float(np.corrcoef(told, right)[0, 1]),
        "cpu_s_per_s": cost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write results/speech.json")
    options = parser.parse_args()
    _, change = lip_gap()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for engine, name, (sound, phones) in voices(Path(folder)):
            for noise in NOISE_DB:
                heard = sound
                if noise is not None:
                    level = np.sqrt(np.mean(sound**2)) * 10.0 ** (-noise / 20.0)
                    heard = sound + np.random.default_rng(1).normal(0.0, level, len(sound)).astype(np.float32)
                rows.append({"engine": engine, "voice": name, "noise_db": noise, **score(heard, phones, change)})
                print(json.dumps(rows[-1]), flush=True)
    summary = {}
    for engine in ("espeak-ng", "flite"):
        for noise in NOISE_DB:
            some = [r for r in rows if r["engine"] == engine and r["noise_db"] == noise]
            count = sum(r["closures"] for r in some)
            summary[f"{engine}, noise {noise}"] = {
                "closures": count,
                "seen_shut": sum(r["seen_shut"] * r["closures"] for r in some) / count,
                "vowels_shut": float(np.mean([r["vowels_shut"] for r in some])),
                "mean_abs_lag_ms": float(np.mean([abs(r["lag_ms"]) for r in some])),
                "openness_correlation": float(np.mean([r["openness_correlation"] for r in some])),
                "cpu_s_per_s": float(np.mean([r["cpu_s_per_s"] for r in some])),
            }
    print(json.dumps(summary, indent=1))
    if options.save:
        save("speech", {"seed": 1, "fps": FPS, "human_speech": "none measured", "summary": summary, "rows": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
