"""Interrupting a run changes nothing: states, order of data, optimisers, mean planes, and both phases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export3d import files
from export3d.checkpoint import read_checkpoint
from export3d.configs import config_to_dict
from export3d.data import ClipDataset
from export3d.errors import CheckpointError, OutputError, TrainingError
from export3d.expression.lebs import LeBS
from export3d.portrait.loading import KIND
from export3d.training.loop.distributed import World
from export3d.training.loop.run import LoopOptions, run_loop
from export3d.training.loop.run_folder import RunFolder
from export3d.training.loop.state import list_states, load_state, save_state
from export3d.training.phases.config import TINY_TRAIN, TrainConfig
from export3d.training.phases.pretrain import PretrainTask
from export3d.training.phases.pretrain_config import TINY_PRETRAIN
from export3d.training.phases.train import TrainTask

QUIET = LoopOptions(log_every=1, sheet_every=0, state_every=1000)


def train_task(clip_folder: Path, config: TrainConfig = TINY_TRAIN) -> TrainTask:
    torch.manual_seed(5)
    expression = LeBS(config.model.expression)
    return TrainTask(config, ClipDataset(clip_folder, split="train"), World(), expression=expression)


def flat(content: object, place: str = "") -> dict[str, object]:
    """Every leaf of a nested state by its path."""
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in flat(value, f"{place}.{key}").items()}
    if isinstance(content, (list, tuple)):
        return {k: v for i, value in enumerate(content) for k, v in flat(value, f"{place}.{i}").items()}
    return {place: content}


def assert_same_state(a: object, b: object) -> None:
    left, right = flat(a), flat(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if isinstance(value, torch.Tensor):
            assert isinstance(other, torch.Tensor)
            assert torch.equal(value, other), name
        else:
            assert value == other, name


@pytest.mark.parametrize("weight_mean", [0.0, 0.9])
def test_two_steps_resume_two_steps_equals_four_steps_bit_for_bit_in_both_phases(
    clip_folder: Path, tmp_path: Path, weight_mean: float
) -> None:
    # Phase 1 has 3 steps, phase 2 has 3: the interruption falls into phase 1, resumption crosses into phase 2.
    config = replace(TINY_TRAIN, samples=6, weight_mean=weight_mean)
    config = replace(config, adversarial=replace(config.adversarial, samples=6, r1_every=2))
    whole = train_task(clip_folder, config)
    for step in range(6):
        whole.step(step, whole.load_batch(step))
    for stop in (2, 4):
        first = train_task(clip_folder, config)
        for step in range(stop):
            first.step(step, first.load_batch(step))
        folder = tmp_path / f"stop{stop}-{weight_mean}"
        folder.mkdir()
        save_state(folder, stop, first.state())
        second = train_task(clip_folder, config)
        second.load_state(load_state(list_states(folder)[0]))
        for step in range(stop, 6):
            second.step(step, second.load_batch(step))
        assert_same_state(second.state(), whole.state())
    assert whole.model.mean_planes.mean.abs().max() > 0  # the comparison saw mean planes that moved


def test_pretraining_resumes_bit_for_bit(clip_folder: Path, tmp_path: Path) -> None:
    def task() -> PretrainTask:
        return PretrainTask(TINY_PRETRAIN, ClipDataset(clip_folder, split="train"), World())

    whole = task()
    for step in range(4):
        whole.step(step, whole.load_batch(step))
    first = task()
    for step in range(2):
        first.step(step, first.load_batch(step))
    save_state(tmp_path, 2, first.state())
    second = task()
    second.load_state(load_state(list_states(tmp_path)[0]))
    for step in range(2, 4):
        second.step(step, second.load_batch(step))
    assert_same_state(second.state(), whole.state())


def open_run(folder: Path, config: TrainConfig = TINY_TRAIN, data: str = "a") -> RunFolder:
    return RunFolder(folder, "train", config_to_dict(config), {"shards": [data]})


def test_the_loop_resumes_from_its_folder_and_logs_each_step_once(clip_folder: Path, tmp_path: Path) -> None:
    straight = open_run(tmp_path / "straight")
    run_loop(train_task(clip_folder), straight, QUIET, World())
    halted = open_run(tmp_path / "halted")
    # A time limit of zero minutes stops after each step.
    for expected in range(1, 7):
        result = run_loop(train_task(clip_folder), halted, replace(QUIET, max_minutes=0.0), World())
        assert result.step == expected
    assert result.finished
    a = load_state(list_states(tmp_path / "straight")[-1])
    b = load_state(list_states(tmp_path / "halted")[-1])
    assert_same_state(a, b)
    steps = [json.loads(line)["step"] for line in (tmp_path / "halted" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "halted" / "model.safetensors").is_file()
    straight.close()
    halted.close()


def test_tensorboard_gets_the_logged_numbers(clip_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = open_run(tmp_path)
    run_loop(train_task(clip_folder), run, replace(QUIET, tensorboard=True, log_every=3), World())
    run.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {event.step: event.value for event in events.Scalars("total")}
    assert written == pytest.approx({line["step"]: line["total"] for line in logged})


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {"value": torch.ones(2)})
    save_state(tmp_path, 2, {"value": torch.ones(3)})
    newest = list_states(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    run = open_run(tmp_path)
    content, complaints = run.newest_state()
    assert content is not None
    assert content["step"] == 1
    assert len(complaints) == 1
    assert "state-00000002.pt: the training state is damaged" in complaints[0]
    run.close()


def test_when_no_state_can_be_read_the_run_does_not_start_again_in_silence(tmp_path: Path) -> None:
    (tmp_path / "state-00000007.pt").write_bytes(b"nonsense")
    run = open_run(tmp_path)
    with pytest.raises(CheckpointError, match="none of 1 training states can be read"):
        run.newest_state()
    run.close()


def test_a_changed_configuration_is_refused_and_the_difference_shown(tmp_path: Path) -> None:
    open_run(tmp_path).close()
    with pytest.raises(TrainingError, match=r"config\.learning_rate: 0\.001 -> 0\.5"):
        open_run(tmp_path, replace(TINY_TRAIN, learning_rate=0.5))


def test_other_data_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path).close()
    with pytest.raises(TrainingError, match=r'data\.shards: \["a"\] -> \["b"\]'):
        open_run(tmp_path, data="b")


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    first = open_run(tmp_path)
    with pytest.raises(TrainingError, match="another run is working in this folder"):
        open_run(tmp_path)
    first.close()
    open_run(tmp_path).close()


def test_only_the_newest_states_are_kept(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for step in range(5):
        run.save_state(step, {}, keep=2)
    assert [p.name for p in list_states(tmp_path)] == ["state-00000003.pt", "state-00000004.pt"]
    run.close()


def test_nan_stops_the_run_and_saves_batch_and_state_before_it(clip_folder: Path, tmp_path: Path) -> None:
    task = train_task(clip_folder)
    run = open_run(tmp_path)
    with torch.no_grad():
        next(task.model.generator.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 0: .*mse.* is NaN or infinite"):
        run_loop(task, run, QUIET, World())
    batch = torch.load(tmp_path / "bad-batch-00000000.pt", weights_only=True)
    assert torch.equal(batch["state"]["beta"], task.load_batch(0).state.beta)
    assert load_state(list_states(tmp_path)[0])["step"] == 0
    run.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, 1, {"value": torch.ones(2)})
    link = tmp_path / ".state-00000002.pt.tmp"
    link.symlink_to("/dev/full")  # a device that is always full
    monkeypatch.setattr(files, "temporary_beside", lambda path: link)
    with pytest.raises(OutputError, match=r"cannot be written .* The last good state is state-00000001\.pt"):
        save_state(tmp_path, 2, {"value": torch.ones(2)})
    assert [p.name for p in list_states(tmp_path)] == ["state-00000001.pt"]
    assert load_state(list_states(tmp_path)[0])["step"] == 1


COMMAND = "import sys; from export3d.cli.train import pretrain_main; sys.exit(pretrain_main(sys.argv[1:]))"


def start_pretraining(clip_folder: Path, output: Path, steps: int, *more: str) -> subprocess.Popen[bytes]:
    arguments = ["--data", str(clip_folder), "--preset", "tiny", "-o", str(output), "--steps", str(steps)]
    every = ["--state-every", "1", "--log-every", "1", "--sheet-every", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, *every, *more], env=environment, stderr=subprocess.PIPE
    )


def wait_for_state(output: Path, process: subprocess.Popen[bytes], count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        found = list_states(output) if output.is_dir() else []
        if found and int(found[-1].stem.split("-")[1]) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no state {count} appeared; exit code {process.poll()}")


def test_killing_with_9_and_sigterm_loses_at_most_the_steps_since_the_last_state(
    clip_folder: Path, tmp_path: Path
) -> None:
    steps = 14
    straight = start_pretraining(clip_folder, tmp_path / "straight", steps)
    killed = start_pretraining(clip_folder, tmp_path / "killed", steps)
    wait_for_state(tmp_path / "killed", killed, 3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    at_kill = int(list_states(tmp_path / "killed")[-1].stem.split("-")[1])
    again = start_pretraining(clip_folder, tmp_path / "killed", steps)
    wait_for_state(tmp_path / "killed", again, at_kill + 3)
    again.send_signal(signal.SIGTERM)
    assert again.wait() in (0, 143)  # 0 if the signal came after the last step
    last = start_pretraining(clip_folder, tmp_path / "killed", steps)
    _, text = last.communicate()
    assert last.returncode == 0, text.decode()
    straight.communicate()
    a, b = (load_state(list_states(tmp_path / name)[-1]) for name in ("straight", "killed"))
    assert a["step"] == b["step"] == steps
    assert_same_state(a, b)


def test_of_two_processes_at_once_in_one_folder_one_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    straight = start_pretraining(clip_folder, tmp_path / "straight", 6)
    both = [start_pretraining(clip_folder, tmp_path / "both", 6) for _ in range(2)]
    texts = {process.communicate()[1].decode(): process.returncode for process in both}
    straight.communicate()
    assert min(texts.values()) == 0  # a second one that came too late found it finished
    assert all("another run is working in this folder" in text for text, code in texts.items() if code)
    a, b = (load_state(list_states(tmp_path / name)[-1]) for name in ("straight", "both"))
    assert_same_state(a, b)


@pytest.mark.parametrize("late", ["missing", "older"])
def test_a_finished_run_whose_model_was_lost_gets_it_from_its_state(
    clip_folder: Path, tmp_path: Path, late: str
) -> None:
    """The run died, or the disk was full, between the last state and the model."""
    run = open_run(tmp_path / "run")
    options = replace(QUIET, export_every=train_task(clip_folder).total_steps)
    finished = run_loop(train_task(clip_folder), run, options, World())
    models = sorted(run.path.glob("model*.safetensors"))
    assert len(models) == 2
    contents = [read_checkpoint(path, KIND).sha256 for path in models]
    for path in models:
        if late == "missing":
            path.unlink()
        else:
            path.write_bytes(b"of an earlier state")
            os.utime(path, ns=(1, 1))
    again = run_loop(train_task(clip_folder), run, options, World())
    run.close()
    assert again.finished and again.step == finished.step
    assert [read_checkpoint(path, KIND).sha256 for path in models] == contents


def test_a_model_written_while_the_clock_was_set_back_is_not_taken_for_an_old_one(
    clip_folder: Path, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run")
    task = train_task(clip_folder)
    export = task.export

    def export_an_hour_ago(*arguments: Any, **named: Any) -> None:
        export(*arguments, **named)
        os.utime(run.path / "model.safetensors", ns=(1, 1))

    task.export = export_an_hour_ago
    run_loop(task, run, QUIET, World())
    before = (run.path / "model.safetensors").stat().st_ino
    run_loop(train_task(clip_folder), run, QUIET, World())
    run.close()
    assert (run.path / "model.safetensors").stat().st_ino == before
