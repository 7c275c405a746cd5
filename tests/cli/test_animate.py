"""`animate`, `orbit`, `info` and `demo` from the command line, with MediaPipe and a photo of a real person."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clips import clip_facts, make_clip

pytest.importorskip("mediapipe")

Run = Callable[..., Any]


def test_animate_keeps_frames_rate_and_sound_and_prints_one_line(
    inputs: Any, run: Run, out: Path, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", fps=Fraction(30000, 1001), num_frames=10, size=(192, 192))
    target = out / "out.mp4"
    files = ["--source", inputs.photo, "--driving", clip, "-o", target, "--model", inputs.model]
    done = run("animate", *files, "--framing", "face")
    assert done.code == 0, done.err
    given, got = clip_facts(clip), clip_facts(target)
    assert (got.num_frames, got.rate, got.times, got.num_samples) == (
        10,
        Fraction(30000, 1001),
        given.times,
        given.num_samples,
    )
    assert done.out.startswith(f"{target}: 10 frames, 29.97 fps, 180x180") and done.out.count("\n") == 1
    assert done.out.rstrip().endswith("ms per frame")
    assert [path.name for path in out.iterdir()] == ["out.mp4"]


def test_all_motion_options_work_together(inputs: Any, run: Run, out: Path) -> None:
    target = out / "out.mkv"
    options = ["--relative", "--smooth", "--expression-only", "--side-by-side", "--size", "64", "--crf", "30"]
    options += ["--neutral", "auto", "--strength", "0.8"]
    files = ["--source", inputs.photo, "--driving", inputs.clip, "-o", target, "--model", inputs.model]
    done = run("animate", *files, *options, "--threads", "1")
    assert done.code == 0, done.err
    assert clip_facts(target).size == (192, 64) and clip_facts(target).num_frames == 8


def test_the_mouth_and_the_pose_come_from_other_files(inputs: Any, run: Run, out: Path) -> None:
    target = out / "out.mp4"
    files = ["--source", inputs.photo, "--driving", inputs.photo, "-o", target]
    done = run("animate", *files, "--lips-from", inputs.clip, "--pose-from", inputs.clip)
    assert done.code == 0, done.err
    assert clip_facts(target).num_frames == 50 and clip_facts(target).num_samples > 0


def test_a_photo_drives_a_still(inputs: Any, run: Run, out: Path) -> None:
    target = out / "still.png"
    files = ["--source", inputs.photo, "--driving", inputs.photo, "-o", target, "--model", inputs.model]
    done = run("animate", *files, "--framing", "face")
    assert done.code == 0, done.err
    assert Image.open(target).size == (180, 180) and "1 picture, 180x180" in done.out  # what the face has


def test_the_whole_photo_is_shown_where_it_is_larger_than_the_face_and_may_stand_before_nothing(
    inputs: Any, run: Run, out: Path
) -> None:
    target = out / "still.png"
    files = ["--source", inputs.photo, "--driving", inputs.photo, "-o", target, "--model", inputs.model]
    done = run("animate", *files, "--background", "transparent", "--no-mark")
    assert done.code == 0, done.err
    made, photo = np.array(Image.open(target)), np.array(Image.open(inputs.photo))
    assert made.shape == (320, 320, 4) and made[5, 5, 3] == 0
    assert made[300, 130, 3] > 250 and np.abs(made[300, 130, :3].astype(int) - photo[300, 130]).max() <= 1  # the suit


def test_lost_frames_are_reported(inputs: Any, run: Run, out: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=8, size=(192, 192), blank=(3, 4))
    target = out / "out.mp4"
    done = run("animate", "--source", inputs.photo, "--driving", clip, "-o", target, "--model", inputs.model)
    assert done.code == 0, done.err
    assert "warning: no face in 2 frames, which show the last expression before them: 3-4" in done.err
    assert "face lost in 2 frames" in done.out and clip_facts(target).num_frames == 8


def test_orbit_writes_picture_and_depth(inputs: Any, run: Run, out: Path) -> None:
    target = out / "orbit.mp4"
    files = ["--source", inputs.photo, "-o", target, "--model", inputs.model]
    done = run("orbit", *files, "--depth", "--seconds", "0.4", "--fps", "10")
    assert done.code == 0, done.err
    facts = clip_facts(target)
    assert (facts.num_frames, facts.rate, facts.size) == (4, Fraction(10), (64, 32))


def test_orbit_refuses_the_back_of_the_head(inputs: Any, run: Run, out: Path) -> None:
    done = run("orbit", "--source", inputs.photo, "-o", out / "x.mp4", "--yaw-deg", "170")
    assert done.code == 2 and "back of the head" in done.err


def test_a_tracked_clip_drives_like_the_clip_itself(inputs: Any, run: Run, out: Path) -> None:
    motion = out / "motion.safetensors"
    assert run("track", inputs.clip, "-o", motion).code == 0
    stills = []
    for name, driving in (("a.png", motion), ("b.png", inputs.clip)):
        files = ["--source", inputs.photo, "--driving", driving, "-o", out / name, "--model", inputs.model]
        assert run("animate", *files, "--no-mark").code == 0
        stills.append(Image.open(out / name).tobytes())
    assert stills[0] == stills[1]


def test_info_lists_presets_with_parameters_and_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    done = run("info", "--preset", "tiny")
    assert done.code == 0, done.err
    assert "Preset tiny:" in done.out and "generator" in done.out and "EXPORT3D_HEAD_MODEL: not set" in done.out
    assert '"image_size": 32' in done.out


def test_info_counts_agree_with_the_model(inputs: Any, run: Run) -> None:
    from export3d.portrait import build_model, preset

    facts = json.loads(run("info", "--preset", "tiny", "--model", inputs.model, "--json").out)
    wanted = sum(parameter.numel() for parameter in build_model(preset("tiny")).parameters())
    assert facts["presets"]["tiny"]["total"] == wanted
    assert facts["model"]["file"] == str(inputs.model)


def test_info_knows_the_presets_of_both_models(run: Run) -> None:
    assert {"paper", "paper-small", "portrait"} <= set(json.loads(run("info", "--json").out)["presets"])


def test_info_suggests_the_nearest_preset(run: Run) -> None:
    done = run("info", "--preset", "tinny")
    assert done.code == 2 and "'tinny' is not known. Did you mean 'tiny'?" in done.err


def test_the_demo_writes_its_three_files(inputs: Any, run: Run, out: Path) -> None:
    from export3d.cli.demo import samples_folder

    if not (samples_folder() / "driving.mp4").is_file():
        pytest.skip("the sample clip is not bundled yet")
    done = run("demo", "--output", out, "--model", inputs.model, "--size", "64")
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == ["animated.mp4", "depth.png", "orbit.mp4"]
    assert clip_facts(out / "animated.mp4").num_frames == clip_facts(samples_folder() / "driving.mp4").num_frames
    assert done.out.count("\n") == 3


def test_a_film_is_dubbed_and_keeps_its_frames_and_sound(inputs: Any, run: Run, out: Path) -> None:
    target = out / "out.mp4"
    done = run("animate", "--source", inputs.clip, "--driving", inputs.photo, "-o", target, "--model", inputs.model)
    assert done.code == 0, done.err
    made, given = clip_facts(target), clip_facts(inputs.clip)
    assert (made.size, made.num_frames, made.num_samples) == (given.size, given.num_frames, given.num_samples)


def test_all_faces_of_a_photo_are_driven(inputs: Any, run: Run, out: Path) -> None:
    target = out / "out.png"
    files = ["--source", inputs.photo, "--driving", inputs.clip, "-o", target, "--model", inputs.model]
    done = run("animate", *files, "--face", "all")
    assert done.code == 0, done.err
    assert Image.open(target).size == Image.open(inputs.photo).size
