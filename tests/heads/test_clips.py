"""Rendered clip shards: every label agrees with the picture; killed, resumed and parallel runs give the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.cli import main
from export3d.data import Clip, ClipDataset
from export3d.data.clip import DEPTH_STEPS
from export3d.errors import DataError, UsageError
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.clips.one_clip import ClipsConfig, clip_key, render_clip
from export3d.heads.clips.rendering import render_clips
from export3d.heads.clips.splits import SPLITS, identity_seeds, split_of
from export3d.heads.shape.model_file import load_head, write_head
from export3d.heads.shape.procedural import procedural_head

TINY = ClipsConfig(identities=3, frames=2, size=32, supersample=1, quality="fast")
QUICK = ExtractorConfig(statistics_identities=4, statistics_frames=4)
NUM_KILLED = 4
SHARED_HEAD = os.environ.get("EXPORT3D_HEAD_MODEL")  # before the fixture below takes it away


@pytest.fixture(autouse=True)
def no_head_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)


@pytest.fixture(scope="module")
def extractor() -> LinearExtractor:
    return LinearExtractor.build(procedural_head(), QUICK)


@pytest.fixture(scope="module")
def clip(extractor: LinearExtractor) -> Clip:
    config = ClipsConfig(identities=1, frames=8, size=96, quality="fast", static_share=1.0)
    return render_clip(procedural_head(), extractor, 3, config)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips rendered in one go by one worker: what every other way of rendering must equal."""
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
        render_clips(folder, replace(TINY, identities=NUM_KILLED), extractor_config=QUICK)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_splits_share_no_seed_and_test_has_100_identities() -> None:
    ranges = list(SPLITS.values())
    for i, first in enumerate(ranges):
        for second in ranges[i + 1 :]:
            assert not set(range(first.start, first.stop)) & set(range(second.start, second.stop))
    assert len(SPLITS["test"]) == 100
    assert identity_seeds("test", 98, 2) == [2_000_098, 2_000_099]
    assert [split_of(seed) for seed in (0, 1_000_000, 2_000_099, 5_000_000)] == ["train", "validation", "test", None]


@pytest.mark.parametrize(
    ("split", "first", "count", "message"),
    [
        ("test", 99, 2, "split 'test' has identities 0 to 99; got 99 to 100"),
        ("train", -1, 2, "got -1 to 0"),
        ("train", 0, 0, "expected at least 1; got 0"),
        ("tset", 0, 1, "Did you mean 'test'"),
    ],
)
def test_identities_outside_a_split_are_refused(split: str, first: int, count: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        identity_seeds(split, first, count)


def test_a_clip_holds_every_member_of_the_format(clip: Clip) -> None:
    shapes = {name: array.shape for name, array in clip.arrays.items()}
    assert shapes == {
        "beta": (8, 64),
        "camera": (8, 25),
        "landmarks": (8, 68, 2),
        "confidence": (8,),
        "crop": (8, 3),
        "true_beta": (8, 64),
        "weights": (8, 53),
        "alpha": (80,),
        "gaze": (8, 2),
        "beta_mirror": (8, 64),
        "surface": (8, 1024, 3),
    }
    assert clip.masks is not None and clip.depths is not None and clip.background is not None
    assert clip.frames.shape == (8, 96, 96, 3) and clip.background.shape == (96, 96, 3)
    assert float(clip.arrays["confidence"].min()) == 1.0 and float(np.abs(clip.arrays["crop"]).max()) == 0.0
    assert clip.meta["extra"]["seed"] == 3 and clip.meta["extractor"]["expression_space"] == "ict64"


def test_where_the_mask_is_empty_the_frame_shows_the_background(clip: Clip) -> None:
    assert clip.masks is not None and clip.background is not None
    for frame, mask in zip(clip.frames, clip.masks, strict=True):
        empty = mask == 0
        assert 0.1 < empty.mean() < 0.9
        assert np.abs(frame[empty].astype(int) - clip.background[empty].astype(int)).max() <= 1


def test_depth_is_the_distance_to_the_head_and_zero_outside_it(clip: Clip) -> None:
    assert clip.masks is not None and clip.depths is not None
    camera = Camera.from_vector(torch.from_numpy(clip.arrays["camera"]))
    tip_of_nose = 30
    for t, (mask, depth) in enumerate(zip(clip.masks, clip.depths, strict=True)):
        assert (depth[mask == 0] == 0).all() and (depth[mask == 255] > 0).all()
        distance = depth[depth > 0] / DEPTH_STEPS
        assert 1.8 < distance.min() and distance.max() < 3.6
        # The head is 2.7 away; the tip of the nose is nearer by 9 cm, 0.2 units, when it faces the camera.
        x, y = (clip.arrays["landmarks"][t, tip_of_nose] * 96).astype(int)
        if abs(float(camera[t : t + 1].head_angles()[0, 0])) < 0.3:
            at_nose = depth[y - 1 : y + 2, x - 1 : x + 2].astype(float) / DEPTH_STEPS
            away = float(camera.cam_to_world[t, :3, 3].norm())
            assert abs(at_nose.min() - (away - 0.19)) < 0.06


def test_the_landmarks_lie_on_the_head_and_the_camera_projects_them(clip: Clip) -> None:
    assert clip.masks is not None
    for t in range(8):
        places = (clip.arrays["landmarks"][t] * 96).astype(int)
        inside = (places >= 0).all(1) & (places < 96).all(1)
        on_head = clip.masks[t][places[inside, 1], places[inside, 0]] > 127
        assert on_head.mean() > 0.9  # a turned head hides part of the jaw line behind its outline, one pixel off


def test_the_labels_are_those_of_the_motion(clip: Clip, extractor: LinearExtractor) -> None:
    weights = torch.from_numpy(clip.arrays["weights"])
    np.testing.assert_array_equal(clip.arrays["true_beta"], extractor.true_beta(weights).numpy())
    assert np.abs(clip.arrays["beta"] - clip.arrays["true_beta"]).max() > 0.1  # the fit is not the truth
    angles = Camera.from_vector(torch.from_numpy(clip.arrays["camera"])).head_angles().numpy()
    assert np.abs(angles[:6, 0]).max() < 0.6  # the first six frames are near-frontal


def test_the_same_seed_gives_the_same_clip_and_another_seed_another_person(extractor: LinearExtractor) -> None:
    head = procedural_head()
    first, again, other = (render_clip(head, extractor, seed, TINY) for seed in (5, 5, 6))
    assert np.array_equal(first.frames, again.frames) and first.meta == again.meta
    assert all(np.array_equal(first.arrays[name], again.arrays[name]) for name in first.arrays)
    assert not np.array_equal(first.frames, other.frames)
    assert not np.array_equal(first.arrays["alpha"], other.arrays["alpha"])


def test_a_finished_folder_is_a_valid_data_set_and_rerunning_changes_nothing(rendered: Path) -> None:
    dataset = ClipDataset(rendered, "train")
    assert dataset.keys == tuple(clip_key("train", seed) for seed in range(NUM_KILLED))
    assert main(["data", "check", str(rendered)]) == 0
    before = contents(rendered)
    assert set(before) == {"clips-000000.tar", "manifest.json", "render.json", "extractor.safetensors"}
    assert not (rendered / ".work").exists()
    render_clips(rendered, replace(TINY, identities=NUM_KILLED), extractor_config=QUICK)
    assert contents(rendered) == before


def test_two_workers_write_the_same_bytes_as_one(rendered: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    render_clips(
        tmp_path,
        replace(TINY, identities=NUM_KILLED),
        workers=2,
        extractor_config=QUICK,
        on_progress=lambda *step: stages.append(step),
    )
    assert contents(tmp_path) == contents(rendered)
    assert stages[0] == ("render", 0, NUM_KILLED) and stages[-1] == ("pack", NUM_KILLED, NUM_KILLED)


def test_a_killed_render_resumes_without_a_duplicate_or_a_gap(rendered: Path, tmp_path: Path) -> None:
    script = (
        "from dataclasses import replace\n"
        "from export3d.heads.clips.one_clip import ClipsConfig\n"
        "from export3d.heads.clips.rendering import render_clips\n"
        "from export3d.heads.clips.extractor import ExtractorConfig\n"
        "if __name__ == '__main__':\n"
        f"    render_clips({str(tmp_path / 'out')!r}, {replace(TINY, identities=NUM_KILLED)!r}, workers=2,\n"
        f"                 extractor_config={QUICK!r})\n"
    )
    (tmp_path / "render.py").write_text(script, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "EXPORT3D_HEAD_MODEL"}
    process = subprocess.Popen([sys.executable, tmp_path / "render.py"], env=environment, start_new_session=True)
    work = tmp_path / "out" / ".work"
    limit = time.monotonic() + 200
    while not any(work.glob("*/manifest.json")):
        assert process.poll() is None and time.monotonic() < limit, "the render ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_group_to_end(process.pid, limit)
    assert not (tmp_path / "out" / "manifest.json").exists()
    finished = {path.parent.name for path in work.glob("*/manifest.json")}
    assert 1 <= len(finished) <= NUM_KILLED
    newest = {path: path.stat().st_mtime_ns for path in work.glob("*/manifest.json")}
    half_written = work / clip_key("train", NUM_KILLED - 1)
    if half_written.name not in finished:
        half_written.mkdir(exist_ok=True)
        (half_written / "clips-000000.tar").write_bytes(b"cut short")
    seen: list[tuple[str, int, int]] = []
    render_clips(
        tmp_path / "out",
        replace(TINY, identities=NUM_KILLED),
        extractor_config=QUICK,
        on_progress=lambda *step: seen.append(step),
    )
    assert seen[0] == ("render", len(newest), NUM_KILLED)  # what was finished is not rendered again
    assert contents(tmp_path / "out") == contents(rendered)


def test_of_two_renderings_at_once_into_one_folder_one_is_refused(rendered: Path, tmp_path: Path) -> None:
    words = [
        "--identities",
        str(NUM_KILLED),
        "--frames",
        "1",
        "--size",
        "32",
        "--quality",
        "fast",
        "-o",
        tmp_path / "a",
    ]
    line = [sys.executable, "-m", "export3d", "heads", "render", *map(str, words)]
    both = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = {process.communicate()[1]: process.returncode for process in both}
    assert sorted(ends.values()) == [0, 24], ends
    assert any("another run is working in this folder" in text for text in ends)
    assert main(["data", "check", str(tmp_path / "a")]) == 0 and set(contents(tmp_path / "a")) == set(
        contents(rendered)
    )


def wait_for_group_to_end(group: int, limit: float) -> None:
    """The workers of a killed parent must end by themselves."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < limit, "workers outlive their killed parent"
        time.sleep(0.05)


def test_a_folder_of_other_settings_is_not_mixed(rendered: Path) -> None:
    with pytest.raises(DataError, match=r"other settings \(.*size 32 -> 64") as caught:
        render_clips(rendered, replace(TINY, identities=NUM_KILLED, size=64), extractor_config=QUICK)
    assert caught.value.exit_code == 24
    with pytest.raises(DataError, match=r"other settings \(extractor\)"):
        render_clips(rendered, replace(TINY, identities=NUM_KILLED), extractor_config=replace(QUICK, noise_px=1.0))


def test_a_foreign_data_set_is_not_overwritten(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((rendered / "manifest.json").read_bytes())
    with pytest.raises(DataError, match="already holds another data set"):
        render_clips(tmp_path, TINY, extractor_config=QUICK)


def test_a_csv_drives_a_head(extractor: LinearExtractor, tmp_path: Path) -> None:
    path = tmp_path / "motion.csv"
    path.write_text("Timecode,JawOpen\n" + "".join(f"00:00:00:{t:02d},{t / 4}\n" for t in range(4)), encoding="utf-8")
    config = replace(TINY, frames=4, motion_file=str(path), resting_offset=False)
    clip = render_clip(procedural_head(), extractor, 2, config)
    jaw = procedural_head().expression_index["jawOpen"]
    np.testing.assert_allclose(clip.arrays["weights"][:, jaw], [0.0, 0.25, 0.5, 0.75])
    assert clip.meta["extra"]["motion"] == "file"
    with pytest.raises(UsageError, match="has 4 rows; got 5"):
        render_clip(procedural_head(), extractor, 2, replace(config, frames=5))


def test_a_trajectory_is_rendered_at_its_own_rate(extractor: LinearExtractor) -> None:
    config = replace(TINY, frames=3, motion="trajectory", fps=50)
    clip = render_clip(procedural_head(), extractor, 2, config)
    assert clip.meta["fps"] == [50, 1] and clip.meta["extra"]["motion"] == "trajectory"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 0}, "--frames: expected at least 1; got 0"),
        ({"size": 8}, "--size: expected at least 16; got 8"),
        ({"static_share": 1.5}, "--static-share: expected a share in 0..1; got 1.5"),
        ({"motion": "walk"}, "--motion: 'walk' is not known"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(TINY, **wrong)  # type: ignore[arg-type]


def test_the_head_model_is_found_by_path_then_by_variable_then_in_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_head() is procedural_head()
    write_head(tmp_path / "head.npz", procedural_head())
    monkeypatch.setenv("EXPORT3D_HEAD_MODEL", str(tmp_path / "none.npz"))
    assert len(load_head(tmp_path / "head.npz").vertices) == len(procedural_head().vertices)
    assert main(["heads", "render", "--identities", "1", "-o", str(tmp_path / "out")]) == 25  # the variable's file


def test_the_command_renders_and_reports_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["heads", "render", "--frames", "1", "--size", "32", "--quality", "fast", "--supersample", "1"]
    out = str(tmp_path / "out")
    assert main([*common, "--identities", "1", "--split", "validation", "--seed", "7", "-o", out]) == 0
    assert "1 clips of 1 frames, 32 px" in capsys.readouterr().out
    dataset = ClipDataset(out, "val")
    assert dataset.keys == ("head-validation-1000007",)
    assert dataset.meta(0)["split"] == "val"
    assert main([*common, "--identities", "200", "--split", "test", "-o", out]) == 2
    assert main([*common, "--identities", "two", "-o", out]) == 2
    assert main([*common, "--identities", "1", "--workers", "0", "-o", str(tmp_path / "new")]) == 2


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["heads", "render", "--identities", "1", "--frames", "1", "-o", str(tmp_path / "file")]) == 30


@pytest.mark.requires_shared
def test_a_clip_of_the_imported_head_has_its_landmarks_on_its_face() -> None:
    head = load_head(SHARED_HEAD)
    extractor = LinearExtractor.build(head, QUICK)
    clip = render_clip(head, extractor, 3, replace(TINY, size=64, frames=3))
    assert clip.masks is not None
    for t in range(3):
        places = (clip.arrays["landmarks"][t] * 64).astype(int).clip(0, 63)
        assert (clip.masks[t][places[:, 1], places[:, 0]] > 127).mean() > 0.9


@pytest.mark.parametrize("kind", ["random", "expressions"])
def test_the_sheet_command_draws_heads(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    size = ["--size", "32", "--quality", "fast", "--identities", "2", "--columns", "2"]
    assert main(["heads", "sheet", "--kind", kind, *size, "-o", str(output)]) == 0
    with Image.open(output) as sheet:
        assert sheet.height >= 32 and sheet.width >= 64


def test_a_sheet_of_an_unknown_kind_of_file_and_a_missing_import_folder_are_reported(tmp_path: Path) -> None:
    assert main(["heads", "sheet", "-o", str(tmp_path / "sheet.gif")]) == 2
    assert main(["heads", "import", str(tmp_path / "none"), "-o", str(tmp_path / "head.npz")]) == 25
