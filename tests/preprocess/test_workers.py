"""One process, two processes and a Ray cluster give the same bytes; a dead worker loses only its video."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import patch_face
import pytest
from patch_face import OPTIONS, make_deadly_tools, make_patch_tools, make_tools_and_begin_a_file, write_patch_video

from clips import make_clip
from export3d.data import ClipDataset
from export3d.errors import MissingExtraError, UsageError, WorkerError
from export3d.preprocess import PrepareOptions, RunOptions, prepare
from export3d.stopping import StoppedBySignal, raise_stopped

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "in"
    folder.mkdir()
    for number in range(5):
        write_patch_video(folder / f"v{number}.mp4", 10 + 5 * number, seed=number)
    return folder


@pytest.fixture(scope="module")
def one_process(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "out"
    prepare([videos], out, OPTIONS, RunOptions(workers=0), clips_per_shard=2, tool_maker=make_patch_tools)
    return out


def assert_same(a: Path, b: Path) -> None:
    names = sorted(path.name for path in a.glob("*") if path.suffix == ".tar" or path.name == "manifest.json")
    assert len(names) > 2
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_two_processes_give_the_same_bytes_as_one(videos: Path, one_process: Path, tmp_path: Path) -> None:
    prepare([videos], tmp_path, OPTIONS, RunOptions(workers=2), clips_per_shard=2, tool_maker=make_patch_tools)
    assert_same(one_process, tmp_path)


RAY_SCRIPT = """
import sys
from pathlib import Path

import ray
import patch_face
from export3d.errors import UsageError
from export3d.preprocess import PrepareOptions, RunOptions, prepare
from export3d.stopping import StoppedBySignal, raise_stopped

videos, out, sockets = (Path(word) for word in sys.argv[1:])
small = {"include_dashboard": False, "object_store_memory": 100 * 2**20, "_temp_dir": str(sockets)}
ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", **small)
run, options = RunOptions(ray="auto"), patch_face.OPTIONS
prepare([videos], out, options, run, clips_per_shard=2, tool_maker=patch_face.make_patch_tools)
try:
    prepare([videos], out / "refused", PrepareOptions(coefficients="deep3d"), run)
except UsageError as error:
    print("refused:", error)
print("CPUs:", int(ray.cluster_resources()["CPU"]))
ray.shutdown()
"""
MARK = "EXPORT3D_TEST_CLUSTER"


@contextmanager
def marked_processes() -> Iterator[str]:
    """A mark for the environment of a command; afterwards no process that carries it may live, and none does."""
    mark = uuid.uuid4().hex
    try:
        yield mark
        deadline = time.monotonic() + 20  # the cluster's own processes end a moment after their driver
        while _carriers(mark) and time.monotonic() < deadline:
            time.sleep(0.2)
        left = _carriers(mark)
        assert not left, f"still alive: {left}"
    finally:
        for pid in _carriers(mark):
            os.kill(pid, signal.SIGKILL)


def _carriers(mark: str) -> dict[int, str]:
    """Process ids and command lines of what was started with the mark (Linux; elsewhere nothing is found)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:  # another user's, or just gone
            continue
    return found


def test_a_process_that_stays_behind_is_found_and_ended() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(100)"]
    with pytest.raises(RuntimeError, match="the body failed"), marked_processes() as mark:
        process = subprocess.Popen(sleeper, env={**os.environ, MARK: mark}, start_new_session=True)
        assert process.poll() is None
        raise RuntimeError("the body failed")
    assert process.wait(10) == -signal.SIGKILL


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
def test_a_ray_cluster_of_two_workers_gives_the_same_bytes_as_one(
    videos: Path, one_process: Path, tmp_path: Path
) -> None:
    """In a process of its own: Ray installs signal handlers and reapers that other tests should not live with."""
    here = Path(__file__).parent
    out = tmp_path / "out"
    # Ray's sockets need a short path, so its files do not go under tmp_path.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as sockets, marked_processes() as mark:
        environment = {
            **os.environ,
            MARK: mark,
            "PYTHONPATH": os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")]),
            "RAY_worker_niceness": "0",  # the default starves on a busy machine
            "RAY_worker_register_timeout_seconds": "150",
            "RAY_memory_monitor_refresh_ms": "0",  # others may fill the memory; our tasks are small
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        environment.pop("RAY_ADDRESS", None)  # somebody's cluster
        words = [sys.executable, "-c", RAY_SCRIPT, str(videos), str(out), sockets]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    assert_same(one_process, out)
    assert "refused: --coefficients deep3d needs --deep3d-checkpoint" in done.stdout
    assert "CPUs: 2" in done.stdout


def test_without_ray_the_message_names_the_extra(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"export3d\[cluster\]"):
        prepare([videos], tmp_path, OPTIONS, RunOptions(ray="auto"), tool_maker=make_patch_tools)


def test_a_worker_that_dies_loses_only_the_video_in_its_hands(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        write_patch_video(folder / f"v{number}.mp4", 8, seed=number)
    green = np.zeros((96, 128, 3), np.uint8)
    green[20:70, 20:70] = (0, 255, 0)
    make_clip(folder / "a_deadly.mp4", frames=[green] * 3, audio=None)
    report = prepare([folder], tmp_path / "out", OPTIONS, RunOptions(workers=1), tool_maker=make_deadly_tools)
    assert len(ClipDataset(tmp_path / "out")) == 2
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["lost"]
    assert entry == {"source": "in/a_deadly.mp4", "reasons": ["the worker process died 2 times (exit code 9)"]}
    assert report.videos == 3 and report.videos_lost == 1


def test_a_worker_that_is_stopped_while_it_writes_leaves_nothing(videos: Path, tmp_path: Path) -> None:
    def stop(step: str, done: int, total: int, what: str) -> None:
        if done:
            assert list((tmp_path / "prepare").glob(".*.tmp*"))
            raise_stopped(signal.SIGTERM)

    tool_maker = partial(make_tools_and_begin_a_file, tmp_path / "prepare")
    with pytest.raises(StoppedBySignal):
        prepare([videos], tmp_path, OPTIONS, RunOptions(workers=1), tool_maker=tool_maker, progress=stop)
    assert not list(tmp_path.rglob(".*.tmp*"))


def test_what_no_video_can_be_prepared_with_ends_the_run_with_its_own_error(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--deep3d-checkpoint"):
        prepare([videos], tmp_path, PrepareOptions(coefficients="deep3d"), RunOptions(workers=1))


def test_workers_that_cannot_begin_end_the_run(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="ended with code 3 before it could begin") as caught:
        prepare([videos], tmp_path, OPTIONS, RunOptions(workers=1), tool_maker=patch_face.make_no_tools)
    assert caught.value.exit_code == 31
