"""CLeBS pre-training: it learns, its files load, and its report measures what it says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export3d.data import ClipDataset
from export3d.errors import CheckpointError, TrainingError
from export3d.expression.lebs import LeBS, LeBSConfig
from export3d.images import to_tensor_of
from export3d.training.loop.distributed import World
from export3d.training.loop.optimizers import scaled_rate
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.expression_report import (
    ExpressionTable,
    between_share,
    chance_1nn,
    expression_report,
    identity_1nn,
    linear_r2,
    with_products,
    without_mean,
)
from export3d.training.phases.pretrain import PretrainTask, shape_targets
from export3d.training.phases.pretrain_config import PRETRAIN_PRESETS, TINY_PRETRAIN
from export3d.training.phases.pretrain_files import load_expression, load_face_network


@pytest.fixture
def task(clip_folder: Path) -> PretrainTask:
    data, held_out = (ClipDataset(clip_folder, split=split) for split in ("train", "val"))
    return PretrainTask(TINY_PRETRAIN, data, World(), held_out=held_out)


def test_the_loss_starts_near_chance_and_falls_on_a_repeated_batch(clip_folder: Path) -> None:
    config = replace(TINY_PRETRAIN, include_positive=True, steps=1000, learning_rate=3e-3)
    task = PretrainTask(config, ClipDataset(clip_folder, split="train"), World())
    batch = task.load_batch(0)
    losses = [float(task.step(step, batch)["contrastive"]) for step in range(40)]
    # Random cosines divided by 0.07 scatter the start around ln 4 = 1.386.
    assert losses[0] < 6 * math.log(4)
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_of_a_step_is_equation_1_of_each_clip_alone_at_the_asked_temperature(clip_folder: Path) -> None:
    config = replace(TINY_PRETRAIN, temperature=0.5)
    task = PretrainTask(config, ClipDataset(clip_folder, split="train"), World())
    batch = task.load_batch(0)
    images, shape = to_tensor_of(batch.images), shape_targets(batch)
    with torch.no_grad():
        encoder, wanted = task.module.image_encoder.eval(), torch.zeros(())
        task.module.eval()
        together = task.module(images, batch.beta, shape)["contrastive"]
        for clip in range(config.clips):
            own = encoder.codes_and_shape(images[clip])[0], task.module.expression(batch.beta[clip])
            cosine = F.normalize(own[1], dim=1) @ F.normalize(own[0], dim=1).T
            others = (cosine / 0.5).exp().fill_diagonal_(0.0).sum(dim=1)
            wanted = wanted + (others.log() - cosine.diagonal() / 0.5).mean() / config.clips
    assert together.item() == pytest.approx(wanted.item(), abs=1e-4)


@pytest.mark.parametrize("size", [24, 50])
def test_frames_of_another_size_are_brought_to_the_image_encoders(
    small_clip_folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    task = PretrainTask(TINY_PRETRAIN, ClipDataset(small_clip_folders[size]), World())
    seen: list[torch.Size] = []
    encode = task.module.image_encoder.codes_and_shape
    monkeypatch.setattr(task.module.image_encoder, "codes_and_shape", lambda x: seen.append(x.shape) or encode(x))
    task.step(0, task.load_batch(0))
    assert seen == [(8, 3, 32, 32)]


def test_under_bf16_the_basis_the_cosines_and_the_loss_stay_float32(clip_folder: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        task = PretrainTask(
            replace(TINY_PRETRAIN, precision=precision), ClipDataset(clip_folder, split="train"), World()
        )
        batch = task.load_batch(0)
        terms = task.step(0, batch)
        assert terms["total"].dtype == torch.float32
        found[precision] = terms["contrastive"].item()
    assert found["bf16"] != found["fp32"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.2)


def test_the_rate_of_the_paper_grows_as_the_root_of_the_number_of_clips() -> None:
    paper = PRETRAIN_PRESETS["paper"]
    assert scaled_rate(paper.learning_rate, 32, paper.rate_clips) == pytest.approx(2e-4)  # 1e-4 * sqrt(32 / 8)
    assert scaled_rate(paper.learning_rate, paper.clips, paper.rate_clips) == 1e-4
    assert scaled_rate(1e-3, 6, PRETRAIN_PRESETS["portrait"].rate_clips) == 1e-3


def test_the_basis_stays_orthonormal_while_it_is_trained(task: PretrainTask) -> None:
    before = task.module.expression.basis.detach().clone()
    for step in range(3):
        task.step(step, task.load_batch(step))
    basis = task.module.expression.basis.detach()
    assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5)
    assert not torch.allclose(basis, before)


def test_exported_codes_equal_the_trained_ones_up_to_one_constant(task: PretrainTask, tmp_path: Path) -> None:
    for step in range(2):
        task.step(step, task.load_batch(step))
    run = RunFolder(tmp_path, "pretrain", {}, {})
    task.export(run, 2, numbered=False)
    task.export(run, 2, numbered=True)
    run.close()
    expression, notes = load_expression(tmp_path)
    beta = torch.randn(5, 64)
    with torch.no_grad():
        trained, frozen = task.module.expression(beta), expression(beta)
    scale = task.coefficient_scale()
    assert torch.allclose(frozen, scale * trained, atol=1e-5)
    assert notes["step"] == 2
    assert notes["extractor"]["name"] == "random"
    assert not any(p.requires_grad for p in expression.parameters())
    assert (tmp_path / "expression-00000002.safetensors").is_file()
    network, digest = load_face_network(tmp_path)
    assert len(digest) == 64
    assert not network.training


def test_the_exported_coefficients_have_a_root_mean_square_of_one(task: PretrainTask) -> None:
    task.step(0, task.load_batch(0))
    frozen = task.module.expression.frozen(task.coefficient_scale())
    dataset = ClipDataset(task._store.dataset.folder, split="train")
    beta = torch.cat([torch.from_numpy(dataset.arrays(i)["beta"].copy()) for i in range(len(dataset))])
    assert frozen.coefficients(beta).square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-4)


def test_the_report_names_chance_beside_what_was_measured(task: PretrainTask, tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "pretrain", {}, {})
    report = task.report(0, run)
    run.close()
    assert report["chance_contrastive"] == pytest.approx(math.log(3))  # 4 frames, positive left out
    assert report["chance_retrieval"] == 0.25
    for name in ("held_out_contrastive", "held_out_retrieval", "identity_1nn_beta", "r2_code", "coefficient_norm_mean"):
        assert math.isfinite(report[name])
    assert task.module.training  # measuring leaves it training


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expression\.safetensors: no such checkpoint"):
        load_expression(tmp_path)


def test_data_of_another_space_is_refused(clip_folder: Path) -> None:
    config = replace(TINY_PRETRAIN, expression=replace(TINY_PRETRAIN.expression, space="bfm64"))
    with pytest.raises(TrainingError, match="expects 'bfm64'"):
        PretrainTask(config, ClipDataset(clip_folder), World())


def test_the_paper_preset_holds_the_numbers_of_the_paper() -> None:
    paper = PRETRAIN_PRESETS["paper"]
    assert (paper.steps, paper.frames_per_clip, paper.temperature) == (60_000, 33, 0.07)
    assert (paper.learning_rate, paper.include_positive, paper.symmetric) == (1e-4, False, False)
    printed = ("frames_per_clip", "temperature", "include_positive", "symmetric")
    assert all(getattr(PRETRAIN_PRESETS["paper-small"], name) == getattr(paper, name) for name in printed)
    assert (paper.expression.dim, paper.expression.num_basis) == (256, 10)
    assert paper.landmark_weight == 0


def table(beta: np.ndarray, codes: np.ndarray, identity: list[int], truth: np.ndarray | None) -> ExpressionTable:
    groups = np.array(identity)
    return ExpressionTable(beta=beta, coefficients=codes, identity=groups, clip=groups, truth=truth)


def test_nearest_neighbour_accuracy_by_hand() -> None:
    codes = np.array([[0.0], [0.1], [5.0], [5.1], [0.2]])
    # Nearest: 0 -> 1, 1 -> 0 or 4 (both 0.1; the first is taken), 2 -> 3, 3 -> 2, 4 -> 1.
    assert identity_1nn(codes, np.array([0, 0, 1, 1, 1])) == pytest.approx(4 / 5)
    # Chance: (2 * 1 + 3 * 2) / (5 * 4) = 0.4.
    assert chance_1nn(np.array([0, 0, 1, 1, 1])) == pytest.approx(0.4)


def test_between_share_is_one_for_constant_clips_and_zero_for_equal_means() -> None:
    identity = np.array([0, 0, 1, 1])
    assert between_share(np.array([[1.0], [1.0], [3.0], [3.0]]), identity) == pytest.approx(1.0)
    assert between_share(np.array([[-1.0], [1.0], [-1.0], [1.0]]), identity) == pytest.approx(0.0)
    # Means -1 and 1, deviations 1: between 4 * 1, within 4 * 1: share 0.5.
    assert between_share(np.array([[-2.0], [0.0], [0.0], [2.0]]), identity) == pytest.approx(0.5)


def test_removing_the_mean_of_each_group() -> None:
    values = np.array([[1.0], [3.0], [10.0]])
    assert without_mean(values, np.array([0, 0, 1]))[:, 0].tolist() == [-1.0, 1.0, 0.0]


def test_linear_r2_is_one_for_a_linear_truth_and_zero_for_a_constant_guess() -> None:
    rng = np.random.default_rng(0)
    x, x_new = rng.normal(size=(200, 4)), rng.normal(size=(100, 4))
    map_ = rng.normal(size=(4, 3))
    assert linear_r2(x, x @ map_ + 2.0, x_new, x_new @ map_ + 2.0) == pytest.approx(1.0, abs=1e-4)
    useless = rng.normal(size=(200, 1))
    assert abs(linear_r2(useless, x, rng.normal(size=(100, 1)), x_new)) < 0.06


def test_reduced_rank_keeps_the_strongest_outputs_only() -> None:
    rng = np.random.default_rng(0)
    x, x_new = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2))
    strength = np.array([3.0, 1.0])
    # Of the variance 9 + 1, rank 1 can explain the stronger output: 0.9.
    assert linear_r2(x, x * strength, x_new, x_new * strength, rank=1) == pytest.approx(0.9, abs=0.02)
    assert linear_r2(x, x * strength, x_new, x_new * strength, rank=2) == pytest.approx(1.0, abs=1e-3)


def test_products_by_hand() -> None:
    assert with_products(np.array([[2.0, 3.0]])).tolist() == [[2.0, 3.0, 4.0, 6.0, 9.0]]


def test_the_report_tells_a_code_without_identity_from_an_entangled_one() -> None:
    rng = np.random.default_rng(1)
    identity = [i for i in range(20) for _ in range(15)]

    def clips() -> ExpressionTable:
        truth = rng.normal(size=(300, 2))
        offset = 6.0 * rng.normal(size=(20, 2))[identity]
        return table(truth + offset, truth, identity, truth)

    report = expression_report(clips(), clips())
    assert report["identity_1nn_beta"] > 0.8
    assert report["identity_1nn_code"] < 0.15
    assert report["identity_1nn_chance"] == pytest.approx(14 / 299)
    assert report["r2_code"] > 0.99
    assert report["r2_beta_centred"] > 0.8 > report["r2_beta"]
    assert report["between_share_beta"] > 0.9 > 0.1 > report["between_share_code"]


def test_pretraining_needs_a_trainable_basis() -> None:
    with pytest.raises(ValueError, match=r"expression\.pretrained false"):
        replace(TINY_PRETRAIN, expression=LeBSConfig(dim=32, pretrained=True))
    assert isinstance(LeBS(TINY_PRETRAIN.expression).basis, torch.Tensor)
