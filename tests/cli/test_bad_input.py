"""Every case of bad input: its message, its exit code, and an output folder that stays empty."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from skimage import data

from clips import a_motion, make_clip
from export3d.files import TEMPORARY_GLOB

pytest.importorskip("mediapipe")

Run = Callable[..., Any]
ASTRONAUT = data.astronaut()


@pytest.fixture
def animate(inputs: Any, run: Run, out: Path) -> Callable[..., Any]:
    """Run `animate` on good files, except for those given; afterwards the output folder must be empty."""

    def call(*extra: object, **changed: Path) -> Any:
        files = {"source": inputs.photo, "driving": inputs.clip, "model": inputs.model} | changed
        named = [part for name, path in files.items() for part in (f"--{name}", path)]
        done = run("animate", *named, "-o", out / "out.mp4", *extra)
        assert "Traceback" not in done.err and done.out == ""
        assert list(out.iterdir()) == [], "something was left behind"
        return done

    return call


def save(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


def two_faces() -> np.ndarray:
    face = ASTRONAUT[:256, 96:352]
    return np.concatenate([face, face[:, ::-1]], axis=1)


# The source photo.


def test_no_face_in_the_source(animate: Run, tmp_path: Path) -> None:
    done = animate(source=save(tmp_path / "sky.png", np.full((256, 256, 3), 128, dtype=np.uint8)))
    assert done.code == 10 and "sky.png: no face was found in this 256x256 image" in done.err


def test_several_faces_and_no_choice(animate: Run, tmp_path: Path) -> None:
    done = animate(source=save(tmp_path / "pair.png", two_faces()))
    assert done.code == 11 and "pair.png: 2 faces" in done.err and "--face left" in done.err


def test_several_faces_with_a_choice_work(inputs: Any, run: Run, out: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "pair.png", two_faces())
    stills = {}
    for choice in ("left", "right", "1"):
        target = out / f"{choice}.png"
        files = ["--source", photo, "--driving", inputs.photo, "-o", target, "--model", inputs.model]
        assert run("animate", *files, "--face", choice, "--side-by-side", "--no-mark").code == 0
        stills[choice] = Image.open(target).tobytes()
    assert stills["right"] == stills["1"] != stills["left"]


def test_a_face_number_that_nobody_has(animate: Run) -> None:
    done = animate("--face", "5")
    assert done.code == 2 and "--face 5 was asked for" in done.err


def test_a_word_that_is_no_face_choice(animate: Run) -> None:
    done = animate("--face", "prettiest")
    assert done.code == 2 and "'prettiest' is not known" in done.err


def test_a_face_that_is_too_small(animate: Run, tmp_path: Path) -> None:
    small = np.full((400, 400, 3), 120, dtype=np.uint8)
    face = Image.fromarray(ASTRONAUT[:256, 96:352]).resize((64, 64), Image.Resampling.LANCZOS)
    small[150:214, 150:214] = np.asarray(face)
    done = animate(source=save(tmp_path / "far.png", small))
    assert done.code == 12 and "far.png: the face is" in done.err and "expected at least" in done.err


def test_a_face_that_is_cut_off(animate: Run, tmp_path: Path) -> None:
    done = animate(source=save(tmp_path / "half.png", np.ascontiguousarray(ASTRONAUT[:220, 210:480])))
    assert done.code == 13 and "half.png: the face is cut off at the left" in done.err


def test_a_missing_photo(animate: Run, tmp_path: Path) -> None:
    done = animate(source=tmp_path / "nobody.jpg")
    assert done.code == 20 and "nobody.jpg: no such image file" in done.err


def test_a_source_that_is_not_an_image(animate: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture, and no film by its name")
    done = animate(source=tmp_path / "notes.jpg")
    assert done.code == 20 and "notes.jpg: not an image" in done.err


def test_a_source_that_is_named_like_a_film_and_is_none(animate: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no film")
    done = animate(source=tmp_path / "notes.mp4")
    assert done.code == 21 and "notes.mp4" in done.err


def test_a_truncated_image(animate: Run, tmp_path: Path) -> None:
    path = save(tmp_path / "cut.jpg", ASTRONAUT)
    path.write_bytes(path.read_bytes()[:4000])
    done = animate(source=path)
    assert done.code == 20 and "cut.jpg: not an image that can be read, or damaged or truncated" in done.err


@pytest.mark.parametrize("side", [1, 20_000])
def test_absurd_image_sizes(animate: Run, tmp_path: Path, side: int) -> None:
    path = tmp_path / "absurd.png"
    Image.new("1", (side, side)).save(path)
    done = animate(source=path)
    assert done.code == 26 and "absurd.png" in done.err


# The driving file.


def test_a_driving_clip_without_any_face(animate: Run, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "empty.mp4", num_frames=5, blank=range(5))
    done = animate(driving=clip)
    assert done.code == 10 and "empty.mp4: no face was found in any of its 5 frames" in done.err


def test_a_lost_face_under_abort(animate: Run, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "gap.mp4", num_frames=6, size=(192, 192), blank=(2, 3))
    done = animate("--on-lost", "abort", driving=clip)
    assert done.code == 14 and "gap.mp4: no face in frame 2 at 0.08 s" in done.err


def test_several_faces_in_the_driving_clip(animate: Run, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "pair.mp4", frames=[two_faces()] * 3, audio=None)
    done = animate(driving=clip)
    assert done.code == 11 and "pair.mp4, frame 0" in done.err and "2 faces" in done.err


def test_a_missing_driving_file(animate: Run, tmp_path: Path) -> None:
    done = animate(driving=tmp_path / "nothing.mp4")
    assert done.code == 21 and "nothing.mp4: no such file" in done.err


def test_a_driving_file_that_is_not_a_video(animate: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("words\n" * 500)
    done = animate(driving=path)
    assert done.code == 21 and "notes.txt" in done.err and "not a video" in done.err


@pytest.mark.parametrize(("name", "said"), [("cut.mp4", "of its 60 frames lie beyond"), ("cut.mkv", "it announces")])
def test_a_truncated_driving_clip_gives_a_film_of_what_is_there(
    inputs: Any, run: Run, out: Path, tmp_path: Path, name: str, said: str
) -> None:
    path = make_clip(tmp_path / name, num_frames=60, size=(192, 192), options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    done = run("animate", "--source", inputs.photo, "--driving", path, "--model", inputs.model, "-o", out / "out.mp4")
    assert done.code == 0 and f"{name}: the file is truncated" in done.err and said in done.err
    assert [file.name for file in out.iterdir()] == ["out.mp4"]


def test_an_empty_driving_file(animate: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    done = animate(driving=path)
    assert done.code == 21 and "empty.mp4: the file is empty" in done.err


def test_a_driving_clip_of_tiny_frames(animate: Run, tmp_path: Path) -> None:
    done = animate(driving=make_clip(tmp_path / "tiny.mp4", size=(16, 16), num_frames=3))
    assert done.code == 26 and "the frames are 16x16" in done.err


def test_an_unreadable_motion_file(animate: Run, tmp_path: Path) -> None:
    path = tmp_path / "motion.safetensors"
    path.write_bytes(b"not safetensors at all")
    done = animate(driving=path)
    assert done.code == 22 and "motion.safetensors: not a readable safetensors file" in done.err


def _with_metadata(path: Path, **changed: str) -> None:
    with safe_open(path, framework="numpy") as opened:
        metadata = dict(opened.metadata()) | changed
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    save_file(tensors, path, metadata=metadata)


def test_a_motion_file_of_a_newer_version(animate: Run, tmp_path: Path) -> None:
    path = tmp_path / "motion.safetensors"
    a_motion().save(path)
    _with_metadata(path, version="9")
    done = animate(driving=path)
    assert done.code == 22 and "version 9. Upgrade export3d" in done.err


# The model.


def test_an_unknown_model_name_gets_a_suggestion(animate: Run) -> None:
    done = animate(model=Path("portait"))
    assert done.code == 2 and "'portait' is not known. Did you mean 'portrait'?" in done.err


def test_a_missing_checkpoint(animate: Run, tmp_path: Path) -> None:
    done = animate(model=tmp_path / "gone.safetensors")
    assert done.code == 23 and "gone.safetensors: no such checkpoint file" in done.err


def test_an_unreadable_checkpoint(animate: Run, inputs: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(inputs.model.read_bytes()[:5000])
    done = animate(model=path)
    assert done.code == 23 and "cut.safetensors: not a readable safetensors file" in done.err


def test_a_checkpoint_with_a_flipped_bit(animate: Run, inputs: Any, tmp_path: Path) -> None:
    content = bytearray(inputs.model.read_bytes())
    content[-100] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    done = animate(model=path)
    assert done.code == 23 and "do not match the stored checksum" in done.err


def test_a_checkpoint_of_a_newer_version(animate: Run, inputs: Any, tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    path.write_bytes(inputs.model.read_bytes())
    _with_metadata(path, version="7")
    done = animate(model=path)
    assert done.code == 23 and "version 7. Upgrade export3d" in done.err


# The output.


def test_an_output_folder_that_does_not_exist(inputs: Any, run: Run, out: Path) -> None:
    target = out / "no" / "such" / "out.mp4"
    done = run("animate", "--source", inputs.photo, "--driving", inputs.clip, "-o", target)
    assert done.code == 30 and "does not exist" in done.err and list(out.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that refuses every user")
def test_an_output_folder_that_cannot_be_written(inputs: Any, run: Run) -> None:
    target = "/proc/self/out.mp4"
    done = run("animate", "--source", inputs.photo, "--driving", inputs.clip, "-o", target)
    assert done.code == 30 and "cannot be written" in done.err


def test_an_output_name_of_unknown_kind(inputs: Any, run: Run, out: Path) -> None:
    done = run("animate", "--source", inputs.photo, "--driving", inputs.clip, "-o", out / "out.wmv")
    assert done.code == 2 and "end the name in one of .mp4" in done.err


def test_an_output_that_would_overwrite_its_input(inputs: Any, run: Run) -> None:
    before = inputs.clip.read_bytes()
    done = run("animate", "--source", inputs.photo, "--driving", inputs.clip, "-o", inputs.clip)
    assert done.code == 2 and "would overwrite the input" in done.err
    assert inputs.clip.read_bytes() == before


def test_a_motion_file_has_no_pictures_to_show(animate: Run, tmp_path: Path) -> None:
    path = tmp_path / "motion.safetensors"
    a_motion().save(path)
    done = animate("--side-by-side", driving=path)
    assert done.code == 2 and "--side-by-side needs the driving clip" in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--expression-only", "--pose-only"], "exclude each other"),
        (["--pose-only", "--regions", "lips"], "--pose-only and --regions exclude each other"),
        (["--neutral", "1"], "give --relative too"),
        (["--relative", "--neutral", "soon"], "a time in seconds, or 'auto'; got 'soon'"),
        (["--regions", "nose"], "'nose' is no region"),
        (["--size", "100000"], "--size must be from 16 to 4096 pixels"),
        (["--crf", "77"], "--crf must be from 0"),
        (["--threads", "-2"], "--threads must be 0"),
        (["--on-lost", "hodl"], "hold"),
        (["--source-until", "loop"], "--source-until is not for one face of a photo"),
        (["--sound", "driving"], "--sound driving is not for one face of a photo"),
        (["--face", "all", "--side-by-side"], "--side-by-side is not for several faces"),
        (["--face", "0,2", "--background", "white"], "--background is not for several faces"),
        (["--face", "0,0"], "a face is named twice"),
        (["--face", "all", "--framing", "face"], "--framing face is not for several faces"),
    ],
)
def test_options_that_cannot_be(animate: Run, options: list[str], text: str) -> None:
    done = animate(*options)
    assert done.code == 2 and text in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--regions", "lips,pose"], "a film as --source keeps its own head pose"),
        (["--strength", "0"], "nothing of the film would change"),
        (["--size", "64"], "--size is not for a film"),
        (["--framing", "photo"], "--framing is not for a film"),
        (["--side-by-side"], "--side-by-side is not for a film"),
        (["--background", "white"], "--background is not for a film"),
        (["--rigid"], "--rigid is not for a film"),
        (["--face", "all"], "--face with several faces is not for a film"),
        (["--driving", "a.mp4", "b.mp4"], "--driving with several files is not for a film"),
        (["-o", "still.png"], "a still as -o is not for a film"),
    ],
)
def test_what_a_film_as_the_source_refuses(inputs: Any, run: Run, out: Path, options: list[str], text: str) -> None:
    files = ["--source", inputs.clip, "--driving", inputs.clip, "-o", out / "out.mp4", "--model", inputs.model]
    done = run("animate", *files, *options)
    assert done.code == 2 and text in done.err
    assert list(out.iterdir()) == []


# Through the real process.


def command(inputs: Any, clip: Path, target: Path, *extra: str) -> list[str]:
    files = ["--source", inputs.photo, "--driving", clip, "-o", target, "--model", inputs.model]
    return [sys.executable, "-m", "export3d", "animate", *map(str, files), *extra]


def test_a_full_disk_ends_with_its_code_and_leaves_nothing(inputs: Any, out: Path, tmp_path: Path) -> None:
    """A limit on the file size stands in for the full disk: the same failed write() in the same place."""
    clip = make_clip(tmp_path / "clip.mp4", num_frames=40, size=(192, 192))

    def limit_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    # Lossless, side by side and large: many more bytes than the limit after a few frames.
    line = command(inputs, clip, out / "out.mp4", "--side-by-side", "--size", "256", "--crf", "0")
    done = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit_size, check=False)
    assert done.returncode == 30 and "cannot be written (File too large)" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(out.iterdir()) == []


def test_ctrl_c_ends_with_130_and_leaves_nothing(inputs: Any, out: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=1500, size=(192, 192))
    process = subprocess.Popen(
        command(inputs, clip, out / "out.mp4"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell starts background jobs with SIGINT ignored, and children inherit that; a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(TEMPORARY_GLOB)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped." in err and "Traceback" not in err, err
    assert list(out.iterdir()) == []


def test_errors_reach_the_shell_as_one_message_and_a_code(inputs: Any, out: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "sky.png", np.zeros((128, 128, 3), dtype=np.uint8))
    line = command(inputs, inputs.clip, out / "out.mp4")
    line[line.index("--source") + 1] = str(photo)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 10 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("error:") == 1
