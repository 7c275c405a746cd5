"""training/phases/detail.py: the detail network learns alone, at several sizes, from a pool of kept passes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export3d.data import ClipDataset
from export3d.errors import TrainingError, UsageError
from export3d.portrait import PortraitModel, build_model, load_model, save_model
from export3d.training.batches.augment import AugmentConfig
from export3d.training.loop.distributed import World
from export3d.training.loop.run_folder import RunFolder
from export3d.training.loop.state import list_states, load_state, save_state
from export3d.training.losses.terms import LossWeights
from export3d.training.phases.config import TRAIN_PRESETS
from export3d.training.phases.detail import DetailTask
from export3d.training.phases.setup import prepare_training

_SPEC = importlib.util.spec_from_file_location("detail_clips", Path(__file__).with_name("clips.py"))
assert _SPEC is not None and _SPEC.loader is not None
clips = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clips)

TINY = TRAIN_PRESETS["tiny-portrait"]
MODEL = TINY.model
CONFIG = replace(
    TINY,
    model=replace(
        MODEL, renderer=replace(MODEL.renderer, raw_size=16), superres=replace(MODEL.superres, start_size=None)
    ),
    samples=60,
    batch=4,
    learning_rate=5e-3,
    detail_size=(32, 64),
    detail_pool=3,
    sampling=replace(TINY.sampling, raw_size=16, window=12),
    weights=LossWeights(
        mse=0.0, mse_raw=0.0, perceptual=0.0, perceptual_raw=0.0, l1=1.0, gradient=1.0, texture=1.0, opacity=1.0
    ),
    augment=AugmentConfig(mirror=0.5, flat_background=0.3),
    focus=1.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of 64 pixels."""
    return clips.write_clips(tmp_path_factory.mktemp("large") / "data", clips=3, size=64)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that shows something."""
    torch.manual_seed(3)
    model = build_model(CONFIG.model)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    assert isinstance(model, PortraitModel)
    for tensor in (model.detail.out.weight, model.detail.out.bias):
        assert tensor is not None
        tensor.data.zero_()
    for part in model.cues.shapes:
        part.set_map(0.01 * torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_model(path, model, extra={"extractor": clips.EXTRACTOR})
    return path


def _task(folder: Path, start: Path | None, **changes: Any) -> DetailTask:
    dataset = ClipDataset(folder, split="train")
    task = prepare_training(replace(CONFIG, **changes), "full", dataset.extractor, start=start).task(dataset, World())
    assert isinstance(task, DetailTask)
    return task


def test_only_the_detail_network_moves_and_its_loss_falls(folder: Path, start: Path) -> None:
    task = _task(folder, start, detail_size=(64,))
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    probe = task.load_batch(1000)
    with torch.no_grad():
        first = task.terms(probe)
    for step in range(task.total_steps):
        task.step(step, task.load_batch(step))
    with torch.no_grad():
        last = task.terms(probe)
    assert set(last) == {"l1", "gradient", "texture", "opacity", "total"} and last["total"] < 0.995 * first["total"]
    moved = {name.split(".")[0] for name, t in task.model.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"detail"}


def test_steps_draw_their_size_and_show_as_many_pixels_at_each(folder: Path, start: Path) -> None:
    task = _task(folder, start)
    shown = {(batch.size, batch.window[2]) for batch in map(task.load_batch, range(8))}
    assert shown == {(32, 12), (64, 6)}


def test_resumption_goes_on_bit_for_bit(folder: Path, start: Path, tmp_path: Path) -> None:
    whole = _task(folder, start, weight_mean=0.9)
    for step in range(4):
        whole.step(step, whole.load_batch(step))
    first = _task(folder, start, weight_mean=0.9)
    for step in range(2):
        first.step(step, first.load_batch(step))
    save_state(tmp_path, 2, first.state())
    second = _task(folder, start, weight_mean=0.9)
    second.load_state(load_state(list_states(tmp_path)[0]))
    for step in range(2, 4):
        second.step(step, second.load_batch(step))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert whole.weight_mean is not None and second.weight_mean is not None
    assert all(torch.equal(t, second.weight_mean.values[name]) for name, t in whole.weight_mean.values.items())


def test_the_exported_model_holds_the_running_mean_and_training_goes_on_without_it(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    task = _task(folder, start, weight_mean=0.9)
    for step in range(3):
        task.step(step, task.load_batch(step))
    own = task.model.detail.out.weight.clone()
    run = RunFolder(tmp_path / "run", "train", {}, {})
    task.export(run, 3, numbered=False)
    run.close()
    loaded = load_model(tmp_path / "run" / "model.safetensors")
    assert isinstance(loaded, PortraitModel) and task.weight_mean is not None
    assert torch.equal(loaded.detail.out.weight, task.weight_mean.values["out.weight"])
    assert torch.equal(task.model.detail.out.weight, own) and not torch.equal(own, loaded.detail.out.weight)


def test_what_it_cannot_train_on_is_named(folder: Path, start: Path, clip_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--detail-size: trains a part of a trained model; give --start MODEL"):
        _task(folder, None, model=replace(CONFIG.model, expression=replace(CONFIG.model.expression, pretrained=False)))
    with pytest.raises(UsageError, match=r"--detail-size 64: the clips of .* have 32 pixels"):
        _task(clip_folder, start)
    with pytest.raises(ValueError, match=r"detail_size must be multiples of 32 .* got \(40,\) and 3"):
        replace(CONFIG, detail_size=(40,))
    with pytest.raises(
        ValueError, match=r"sampling\.window of 8 rays at size 32 is 4 rays at 64; expected more than 4"
    ):
        replace(CONFIG, sampling=replace(CONFIG.sampling, window=8))
    with pytest.raises(ValueError, match="detail_size needs the portrait model"):
        replace(TRAIN_PRESETS["tiny"], detail_size=(64,))


def test_clips_without_masks_are_refused(start: Path, tmp_path: Path) -> None:
    folder = clips.write_clips(tmp_path / "data", clips=2, size=64, truth=False)
    with pytest.raises(TrainingError, match="every clip needs masks of the head"):
        _task(folder, start).load_batch(0)
