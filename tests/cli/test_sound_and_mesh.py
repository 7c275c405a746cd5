"""A sound as driver, the head as a mesh and its depth, each from the command line; the files are read by other libraries."""

from __future__ import annotations

import json
import math
import struct
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from clips import AUDIO_RATE_HZ, clip_facts, make_clip

pytest.importorskip("mediapipe")

Run = Callable[..., Any]
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.8 s: silence, a vowel-like tone, silence, a louder tone."""
    tone = 0.25 * np.sin(2 * np.pi * 800.0 * np.arange(RATE_HZ // 5) / RATE_HZ)
    sound = np.concatenate([0 * tone, tone, 0 * tone, 2 * tone])
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        out.writeframes((32767 * sound).astype("<i2").tobytes())
    return path


@pytest.fixture
def animate(inputs: Any, run: Run) -> Run:
    """`animate` of the photo with the small model."""
    pytest.importorskip("pocketsphinx")

    def call(driving: Path, output: Path, *extra: object) -> Any:
        files = ["--source", inputs.photo, "--driving", driving, "-o", output, "--model", inputs.model]
        return run("animate", *files, "--framing", "face", *extra)

    return call


def packets(path: Path) -> list[bytes]:
    """The sound of a file as it is stored."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def loudness(path: Path, blocks: int) -> np.ndarray:
    """Root mean square of the sound in equal parts of 0.1 s from the start of the film."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        stream = container.streams.audio[0]
        parts = [out.to_ndarray()[0] for frame in container.decode(stream) for out in resampler.resample(frame)]
    sound = np.concatenate(parts)[: blocks * RATE_HZ // 10]
    return np.sqrt(np.square(sound).reshape(blocks, -1).mean(axis=1))


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


def test_a_wav_drives_a_film_of_its_length_and_its_sound_is_copied_bit_by_bit(
    animate: Run, speech: Path, out: Path
) -> None:
    done = animate(speech, out / "o.mov")
    assert done.code == 0, done.err
    facts = clip_facts(out / "o.mov")
    assert (facts.num_frames, facts.rate, facts.audio_codec) == (20, 25, "pcm_s16le")
    assert b"".join(packets(out / "o.mov")) == b"".join(packets(speech))
    assert done.out.startswith(f"{out / 'o.mov'}: 20 frames, 25 fps, 180x180")


def test_in_an_mp4_the_sound_of_a_wav_is_as_loud_at_the_same_times(animate: Run, speech: Path, out: Path) -> None:
    assert animate(speech, out / "o.mp4").code == 0
    assert clip_facts(out / "o.mp4").audio_codec == "aac"
    wanted = np.repeat([0.0, 0.25, 0.0, 0.5], 2) / np.sqrt(2.0)
    assert np.abs(loudness(out / "o.mp4", 8) - wanted).max() < 0.05


def test_a_film_drives_by_its_sound_alone_which_is_copied_bit_by_bit(animate: Run, out: Path, tmp_path: Path) -> None:
    """No face is anywhere in its pictures."""
    film = make_clip(tmp_path / "film.mp4", fps=30, num_frames=12, blank=range(12))
    assert animate(film, out / "o.mp4").code == 10
    done = animate(film, out / "o.mp4", "--from", "sound")
    assert done.code == 0, done.err
    given, made = clip_facts(film), clip_facts(out / "o.mp4")
    # As long as the sound, whose last block AAC fills up.
    count = math.ceil(given.num_samples / AUDIO_RATE_HZ * 30)
    assert (made.times, made.rate) == ([Fraction(index, 30) for index in range(count)], given.rate)
    assert made.times[:12] == given.times and made.num_samples == given.num_samples
    assert packets(out / "o.mp4") == packets(film)


def test_the_seed_chooses_the_blinks_and_the_head_and_the_same_one_gives_the_same_film(
    animate: Run, speech: Path, out: Path
) -> None:
    films = []
    for name, seed in (("a.mkv", 1), ("b.mkv", 1), ("c.mkv", 2)):
        assert animate(speech, out / name, "--seed", seed, "--no-mark", "--crf", 0).code == 0
        films.append(pictures(out / name))
    assert np.array_equal(films[0], films[1]) and not np.array_equal(films[0], films[2])


def test_a_film_without_sound_cannot_drive_by_it(animate: Run, out: Path, tmp_path: Path) -> None:
    done = animate(make_clip(tmp_path / "mute.mp4", num_frames=4, audio=None), out / "o.mp4", "--from", "sound")
    assert done.code == 21 and "mute.mp4" in done.err and "has no sound" in done.err and list(out.iterdir()) == []


@pytest.fixture
def portrait(inputs: Any) -> list[Any]:
    """The photo and the bundled model: random weights have no surface."""
    from export3d.errors import CheckpointError
    from export3d.portrait.loading import checkpoint_path

    try:
        checkpoint_path()
    except CheckpointError as error:
        pytest.skip(f"no bundled model: {error}")
    return ["--source", inputs.photo]


def test_the_mesh_is_closed_of_a_heads_size_and_has_the_photograph_and_shapes(
    portrait: list[Any], run: Run, out: Path
) -> None:
    trimesh = pytest.importorskip("trimesh")
    done = run("mesh", *portrait, "-o", out / "h.glb", "--resolution", "32", "--shapes")
    assert done.code == 0, done.err
    content = (out / "h.glb").read_bytes()
    tree = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    names = tree["meshes"][0]["extras"]["targetNames"]
    assert {"jawOpen", "mouthSmileLeft", "eyeBlinkLeft"} <= set(names) and len(tree["images"]) == 1
    vertices = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]["count"]
    said = done.out.split(": ")[1]
    assert said.startswith(f"{vertices} vertices, ") and said.endswith(f", {len(names)} shapes\n")
    assert run("mesh", *portrait, "-o", out / "h.ply", "--resolution", "32").code == 0
    mesh = trimesh.load(out / "h.ply")
    assert mesh.is_watertight and mesh.volume > 0 and len(mesh.faces) > 1000
    assert all(0.1 < side < 0.8 for side in mesh.extents) and len(np.unique(mesh.visual.vertex_colors, axis=0)) > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mesh", "-o", "h.ply", "--shapes"], "--shapes needs a .glb file"),
        (["mesh", "-o", "h.stl"], "h.stl: the file's name must end in .glb or .ply or .obj"),
        (["mesh", "-o", "h.glb", "--resolution", "8"], "--resolution must be 32 to 512; got 8"),
        (["depth", "-o", "d.tif"], "d.tif: the file's name must end in .png or .npy"),
        (["depth", "-o", "d.npy", "--size", "8"], "--size must be 16 to 1024; got 8"),
    ],
)
def test_wrong_options_of_mesh_and_depth_are_refused_before_any_work(
    inputs: Any, run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(out)
    done = run(*words, "--source", inputs.photo)
    assert done.code == 2 and message in done.err and list(out.iterdir()) == []


def test_a_model_without_a_surface_is_refused_with_what_was_found(inputs: Any, run: Run, out: Path) -> None:
    pytest.importorskip("skimage")
    words = ["--source", inputs.photo, "--model", inputs.model, "--resolution", "32"]
    done = run("mesh", *words, "-o", out / "h.ply")
    assert done.code == 2 and "the portrait has no surface of density" in done.err and list(out.iterdir()) == []


def test_the_depth_is_nearest_at_the_nose_and_the_same_in_both_files(portrait: list[Any], run: Run, out: Path) -> None:
    for name in ("d.npy", "d.png"):
        done = run("depth", *portrait, "-o", out / name, "--size", "64")
        assert done.code == 0, done.err
    depth, picture = np.load(out / "d.npy"), np.asarray(Image.open(out / "d.png")).astype(float) / 100.0
    assert depth.shape == (64, 64) and depth.dtype == np.float32 and np.isnan(depth[0, 0]) and picture[0, 0] == 0.0
    row, column = np.unravel_index(np.nanargmin(depth), depth.shape)
    assert 24 <= row <= 48 and 22 <= column <= 42
    assert 5.0 < np.nanmax(depth) - np.nanmin(depth) < 80.0 and 30.0 < np.nanmin(depth) < 300.0
    assert np.abs(picture - np.nan_to_num(depth)).max() <= 0.006
    assert f"64x64, {np.nanmin(depth):.1f} to {np.nanmax(depth):.1f} cm" in done.out
