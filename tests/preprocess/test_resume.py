"""Killed runs continue, other options are refused, changed files are seen; nothing temporary stays."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_face import OPTIONS, make_patch_tools, moving_patch, write_patch_video

from clips import make_clip
from export3d.data import ClipDataset
from export3d.data.check import check_dataset
from export3d.errors import DataError, UsageError
from export3d.preprocess import RunOptions, prepare

HERE = RunOptions(workers=0)


def run(folder: Path, out: Path, *, slowed: float = 0.0, **changes: object) -> None:
    """Prepare with the patch tracker; `slowed` waits after each video, so that a kill can fall anywhere."""

    def tell(step: str, done: int, total: int, what: str) -> None:
        time.sleep(slowed)

    options = replace(OPTIONS, **changes)  # type: ignore[arg-type]
    prepare([folder], out, options, HERE, clips_per_shard=3, tool_maker=make_patch_tools, progress=tell)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "in"
    folder.mkdir()
    for number in range(8):
        write_patch_video(folder / f"v{number}.mp4", 10 + number, seed=number)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_ten_kills_at_random_moments_change_nothing(videos: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    run(videos, tmp_path / "calm", slowed=0.01)
    length = time.perf_counter() - start
    generator = random.Random(7)
    context = multiprocessing.get_context("fork")
    killed, seen = 0, set()
    while killed < 10:
        process = context.Process(target=run, args=(videos, tmp_path / "killed"), kwargs={"slowed": 0.01})
        process.start()
        time.sleep(generator.uniform(0.0, 0.5 * length))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            seen.add(len(tree(tmp_path / "killed")) if (tmp_path / "killed").exists() else 0)
        else:  # it was done before the kill: start over, so that every kill counts
            assert process.exitcode == 0
            for path in sorted((tmp_path / "killed").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert len(seen) > 1  # the kills fell on different states
    run(videos, tmp_path / "killed")
    assert tree(tmp_path / "killed") == tree(tmp_path / "calm")
    for name in tree(tmp_path / "calm"):
        if name.endswith(".tar") or name == "manifest.json":
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert check_dataset(tmp_path / "killed").problems == ()
    assert not [name for name in tree(tmp_path / "killed") if "tmp" in name or ".prepare" in name]


def test_a_kill_while_the_shards_are_made_changes_nothing(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "calm")

    class Stop(Exception):
        pass

    for step in (1, 2, 3):

        def tell(step_name: str, done: int, total: int, what: str, step: int = step) -> None:
            if step_name == "shards" and done == step:
                raise Stop

        with pytest.raises(Stop):
            prepare(
                [videos],
                tmp_path / f"s{step}",
                OPTIONS,
                HERE,
                clips_per_shard=3,
                tool_maker=make_patch_tools,
                progress=tell,
            )
        assert (tmp_path / f"s{step}" / "prepare" / "plan.json").exists()
        assert not (tmp_path / f"s{step}" / "manifest.json").exists()
        run(videos, tmp_path / f"s{step}")
        for name in tree(tmp_path / "calm"):
            if name.endswith(".tar") or name == "manifest.json":
                assert (tmp_path / f"s{step}" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_of_two_runs_at_once_into_one_folder_one_is_refused(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "calm")
    context = multiprocessing.get_context("fork")
    both = [
        context.Process(target=run, args=(videos, tmp_path / "out"), kwargs={"slowed": 0.05}, daemon=True) for _ in "12"
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert sorted(process.exitcode for process in both) == [0, 1]  # type: ignore[type-var]
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")
    for path in (tmp_path / "calm").glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_rerun_of_a_finished_run_does_no_work_and_keeps_every_byte(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tree(tmp_path / "out") if "." in name}
    run(videos, tmp_path / "out")
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tree(tmp_path / "out") if "." in name}
    assert {name for name in before if before[name] != after[name]} == {"report.json", "report.html"}


def test_new_videos_go_to_new_shards_and_the_old_ones_stay(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"v{number}.mp4").write_bytes((videos / f"v{number}.mp4").read_bytes())
    run(folder, tmp_path / "out")
    old = (tmp_path / "out" / "clips-000000.tar").read_bytes()
    (folder / "a_new.mp4").write_bytes((videos / "v5.mp4").read_bytes())
    run(folder, tmp_path / "out")
    data = ClipDataset(tmp_path / "out")
    assert len(data) == 4 and data.keys[3].startswith("a_new")
    assert (tmp_path / "out" / "clips-000000.tar").read_bytes() == old
    assert check_dataset(tmp_path / "out").problems == ()


def test_a_file_that_changes_before_it_is_packed_is_prepared_again(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "v.mp4").write_bytes(b"still being downloaded")
    with pytest.raises(DataError, match=r"no clip was kept of 1 videos; .*report\.html says why"):
        run(folder, tmp_path / "out")
    (folder / "v.mp4").write_bytes((videos / "v1.mp4").read_bytes())
    run(folder, tmp_path / "out")
    assert len(ClipDataset(tmp_path / "out")) == 1


def test_other_options_than_before_are_refused_by_name(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out")
    with pytest.raises(UsageError, match="--fps was 25, now 30; --min-frames was 5, now 6"):
        run(videos, tmp_path / "out", min_frames=6, fps=30)


def test_a_second_run_at_the_same_time_is_refused(videos: Path, tmp_path: Path) -> None:
    def tell(step: str, done: int, total: int, what: str) -> None:
        if step == "videos" and done == 1:
            with pytest.raises(UsageError, match="another run is working in this folder"):
                run(videos, tmp_path / "out")

    prepare([videos], tmp_path / "out", OPTIONS, HERE, tool_maker=make_patch_tools, progress=tell)


def test_a_data_set_of_another_making_is_not_touched(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out")
    (tmp_path / "out" / "prepare" / "config.json").unlink()
    with pytest.raises(DataError, match="already holds a data set that was not made by prepare"):
        run(videos, tmp_path / "out")


def test_one_clip_for_each_identity_keeps_the_first_valid_one(videos: Path, tmp_path: Path) -> None:
    lines = ["path,identity", "v3.mp4,ann", "v1.mp4,ann", "broken.mp4,bob", "v2.mp4,bob"]
    (videos / "people.csv").write_text("\n".join(lines) + "\n")
    options = replace(OPTIONS, first_clip_only=True)
    for _ in range(2):  # a rerun finds nothing to do
        report = prepare([videos / "people.csv"], tmp_path / "out", options, HERE, tool_maker=make_patch_tools)
        data = ClipDataset(tmp_path / "out")
        assert {data.identity(i): data.meta(i)["source"] for i in range(len(data))} == {
            "ann": "people.csv/v1.mp4",
            "bob": "people.csv/v2.mp4",
        }
        assert report.frames_dropped == {"not the first clip of its identity": 13}


def test_vfhq_and_talkinghead_trees_become_the_frames_that_their_files_name(tmp_path: Path) -> None:
    frames = moving_patch(60)
    (tmp_path / "vfhq").mkdir()
    make_clip(tmp_path / "vfhq" / "abc.mp4", frames=frames, fps=30, audio=None)
    meta = ["Video ID: abc", "H: 192", "W: 256", "FPS: 30", "", "FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]", ""]
    for n, t in enumerate(range(12, 42)):  # in the listed size, which is twice the file's
        points = f"{2 * (64 + 15 * np.sin(t / 5)):.1f} {2 * (48 + 8 * np.cos(t / 4)):.1f} " * 5
        meta += [f"{t} {n:08d} 80 50 96 96 {points}"]
    meta += ["CROP 64 16 224 176"]
    (tmp_path / "vfhq" / "Clip+abc+P0+C0+F12-42.txt").write_text("\n".join(meta))
    prepare([tmp_path / "vfhq"], tmp_path / "a", replace(OPTIONS, max_frames=64), HERE, tool_maker=make_patch_tools)
    (clip,) = range(len(data := ClipDataset(tmp_path / "a")))
    # frames 12 to 41 of 30 fps are one second: 25 frames; the first is the frame at 12 / 30 s
    assert data.num_frames(clip) == 25 and data.meta(clip)["extra"]["start_s"] == 0.4
    assert data.identity(clip) == "abc-P0"
    # the crop starts at (32, 8) of the file: frame 12's patch is at 64 + 15 sin(2.4) - 32, in pixels of the crop
    center = data.arrays(clip)["crop"][0, 0]
    assert center == pytest.approx(64 + 15 * np.sin(12 / 5) - 32, abs=2.0)

    minutes = tmp_path / "th" / "train" / "1min_clips"
    minutes.mkdir(parents=True)
    make_clip(minutes / "xyz_0000.mp4", frames=frames, fps=25, audio=None)
    (tmp_path / "th" / "train_video_tubes.txt").write_text("xyz_0000,192,256,5,24,64,16,224,176\n")
    prepare([tmp_path / "th"], tmp_path / "b", OPTIONS, HERE, tool_maker=make_patch_tools)
    data = ClipDataset(tmp_path / "b")
    assert data.num_frames(0) == 20 and data.identity(0) == "xyz"  # S 5 to E 24, both included
    assert data.arrays(0)["crop"][0, 0] == pytest.approx(64 + 15 * np.sin(5 / 5) - 32, abs=2.0)
    assert json.loads((tmp_path / "b" / "report.json").read_text())["videos_lost"] == 0


def test_a_fixed_crop_is_one_square_for_the_whole_clip(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "fixed", crop="fixed")
    run(videos, tmp_path / "eg3d")
    fixed, aligned = ClipDataset(tmp_path / "fixed"), ClipDataset(tmp_path / "eg3d")
    assert fixed.keys == aligned.keys
    for index in range(len(fixed)):
        crop = fixed.arrays(index)["crop"]
        assert (crop == crop[0]).all()
        assert len(np.unique(aligned.arrays(index)["crop"][:, 0])) > 1
        assert np.array_equal(fixed.arrays(index)["beta"], aligned.arrays(index)["beta"])
    # the patch moves in a fixed crop and stays in the middle of an aligned one
    moves = [np.ptp(data.arrays(0)["landmarks"].mean(1)[:, 0]) for data in (fixed, aligned)]
    assert moves[0] > 5 * moves[1]
