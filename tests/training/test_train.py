"""Phases 1 and 2: ablations learn, the curriculum switches on time, mean planes follow Eq. 12, guards refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export3d.data import ClipDataset
from export3d.errors import TrainingError, UsageError
from export3d.expression.lebs import LeBS
from export3d.model import ABLATIONS, ablation
from export3d.model.config import TINY
from export3d.portrait import PORTRAIT_PRESETS, PortraitModel, build_model, load_model, save_model
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.windows import cut, focus_weight, shrink_depth, trim
from export3d.training.loop.distributed import World
from export3d.training.loop.run_folder import RunFolder
from export3d.training.losses.terms import LossWeights
from export3d.training.phases.config import TINY_TRAIN, TRAIN_PRESETS, TrainConfig
from export3d.training.phases.train import TrainTask
from export3d.training.phases.train_inputs import check_same_extractor, install_expression

PHASE1 = replace(TINY_TRAIN, samples=200, adversarial=replace(TINY_TRAIN.adversarial, samples=0))


def make_task(folder: Path, config: TrainConfig) -> TrainTask:
    torch.manual_seed(5)
    expression = LeBS(config.model.expression) if config.model.expression.pretrained else None
    return TrainTask(config, ClipDataset(folder, split="train"), World(), expression=expression)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_ablation_lowers_its_loss_in_20_steps(clip_folder: Path, name: str) -> None:
    config = replace(PHASE1, model=ablation(TINY, name), learning_rate=3e-3)
    task = make_task(clip_folder, config)
    batch = task.load_batch(0)
    losses = [float(task.step(step, batch)["total"]) for step in range(20)]
    assert losses[-1] < 0.6 * losses[0], losses
    trained = any(p.requires_grad for p in task.model.expression.parameters())
    assert trained == (not config.model.expression.pretrained)


def test_mean_planes_follow_equation_12_from_the_output_before_the_sum(clip_folder: Path) -> None:
    task = make_task(clip_folder, replace(PHASE1, jitter=False))
    expected = torch.zeros_like(task.model.mean_planes.mean)
    decay = task.config.model.triplane.decay
    for step in range(3):
        batch = task.load_batch(step)
        with torch.no_grad():  # the generator's output with the weights before the step
            from export3d.images import to_tensor_of

            planes = task.model.planes(task.model.encode(to_tensor_of(batch.source)), batch.state.beta)
        task.step(step, batch)
        expected = decay * expected + (1.0 - decay) * planes.mean(dim=0)
    assert torch.allclose(task.model.mean_planes.mean, expected, atol=1e-6)
    assert expected.abs().max() > 0


def test_a_frozen_expression_encoder_does_not_move(clip_folder: Path) -> None:
    task = make_task(clip_folder, PHASE1)
    before = {name: value.clone() for name, value in task.model.expression.state_dict().items()}
    task.step(0, task.load_batch(0))
    assert all(torch.equal(value, before[name]) for name, value in task.model.expression.state_dict().items())


def full_options() -> TrainConfig:
    """Every option of the `portrait` preset at tiny sizes."""
    weights = LossWeights(
        perceptual_raw=0, perceptual=0, l1_raw=1, l1=1, gradient_raw=1, gradient=1, depth=1, opacity=1, matte=1
    )
    return replace(
        PHASE1,
        samples=20,
        model=PORTRAIT_PRESETS["tiny-portrait"],
        weights=weights,
        sampling=replace(PHASE1.sampling, window=4, frontal_share=0.5),
        augment=AugmentConfig(
            other_background=0.3, flat_background=0.3, color_gain=0.2, gamma=0.2, mirror=0.5, noise=0.05
        ),
        coarse_until=0.3,
        coarse_size=4,
        focus=1.0,
        edge_px=1,
        clip_gradient=1.0,
        weight_mean=0.99,
        warmup_steps=2,
        decay_from=0.5,
    )


def test_every_option_of_the_portrait_preset_trains_and_every_term_is_finite(clip_folder: Path) -> None:
    task = make_task(clip_folder, full_options())
    seen: set[str] = set()
    for step in range(10):
        metrics = task.step(step, task.load_batch(step))
        assert all(torch.isfinite(value) for value in metrics.values())
        seen |= metrics.keys()
    assert {"l1", "l1_raw", "gradient", "depth", "opacity", "matte", "mse"} <= seen


def test_the_curriculum_switches_at_the_stated_shares(clip_folder: Path) -> None:
    task = make_task(clip_folder, full_options())  # 10 steps in phase 1
    views = [task.view(step) for step in range(10)]
    assert [v.coarse_size for v in views] == [4] * 3 + [None] * 7
    rates = [task.rate(step) for step in range(10)]
    # Warm-up over 2 steps, constant to half of the run, then half a cosine towards the floor.
    assert rates[0] == pytest.approx(0.5e-3)
    assert rates[1:6] == pytest.approx([1e-3] * 5)
    assert rates[6] > rates[7] > rates[8] > rates[9] > 1e-3 * task.config.decay_floor


def test_the_first_stage_reads_portraits_only_and_moves_nothing_else(clip_folder: Path) -> None:
    config = replace(full_options(), portrait_until=0.2)  # 2 of 10 steps
    task = make_task(clip_folder, config)
    assert [task.view(step).portrait_only for step in range(4)] == [True, True, False, False]
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    metrics = task.step(0, task.load_batch(0))
    assert set(metrics) == {"matte", "total", "gradient_norm"}
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("reader.matte.") for name in changed)
    # The parts that were left alone start as gently as those: two warm-up steps each.
    rates = [task.rate(step) for step in range(5)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 0.5e-3, 1e-3, 1e-3])
    assert "mse_raw" in task.step(2, task.load_batch(2))


def plain_task(folder: Path, config: TrainConfig) -> TrainTask:
    """A task on clips without truth: the maps to single weights cannot be fitted there, so a model that has them goes on."""
    torch.manual_seed(5)
    model = build_model(config.model)
    assert isinstance(model, PortraitModel)
    for part in model.cues.shapes:
        part.set_map(torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
    encoder = LeBS(config.model.expression)
    return TrainTask(config, ClipDataset(folder), World(), expression=encoder, start=model.state_dict())


def test_the_first_stage_refuses_clips_that_have_nothing_for_it(plain_clip_folder: Path) -> None:
    config = replace(full_options(), portrait_until=0.2)
    task = plain_task(plain_clip_folder, config)
    with pytest.raises(TrainingError, match=r"nothing can be learned from portraits alone.*set portrait_until to 0"):
        task.step(0, task.load_batch(0))


@pytest.mark.parametrize("size", [24, 50])
@pytest.mark.parametrize("window", [None, 4])
def test_clips_of_another_size_than_the_models_are_resized(
    small_clip_folders: dict[int, Path], size: int, window: int | None
) -> None:
    config = replace(PHASE1, sampling=replace(PHASE1.sampling, window=window))
    task = make_task(small_clip_folders[size], config)
    assert torch.isfinite(task.step(0, task.load_batch(0))["total"])


def test_the_rate_grows_as_the_root_of_the_batch_where_the_preset_says_so(clip_folder: Path) -> None:
    given = replace(PHASE1, batch=8, samples=80, rate_batch=2, learning_rate=1e-3)
    adversarial = replace(given.adversarial, samples=8, learning_rate=1e-5)
    task = make_task(clip_folder, replace(given, adversarial=adversarial))
    assert task.rate(0) == pytest.approx(2e-3)  # 1e-3 * sqrt(8 / 2)
    assert task.adversary is not None
    assert task.adversary._optimizer.param_groups[0]["lr"] == pytest.approx(2e-5)
    assert make_task(clip_folder, replace(given, rate_batch=0)).rate(0) == pytest.approx(1e-3)


def test_the_first_stage_needs_a_model_that_reads_portraits() -> None:
    with pytest.raises(ValueError, match="portrait_until needs the portrait model"):
        replace(PHASE1, portrait_until=0.1)


def test_clips_without_masks_train_too(plain_clip_folder: Path) -> None:
    task = plain_task(plain_clip_folder, full_options())
    metrics = task.step(5, task.load_batch(5))
    assert "depth" not in metrics and "opacity" not in metrics and "matte" not in metrics


def test_the_exported_model_is_the_running_mean_and_loads_strictly(clip_folder: Path, tmp_path: Path) -> None:
    task = make_task(clip_folder, replace(PHASE1, weight_mean=0.5))
    for step in range(3):
        task.step(step, task.load_batch(step))
    run = RunFolder(tmp_path, "train", {}, {})
    task.export(run, 3, numbered=False)
    run.close()
    model = load_model(tmp_path / "model.safetensors")
    name = "generator.to_planes.weight"
    assert task.weight_mean is not None
    assert torch.equal(model.state_dict()[name], task.weight_mean.values[name])
    assert not torch.equal(model.state_dict()[name], task.model.state_dict()[name])


def test_under_bf16_the_renderer_and_the_losses_stay_float32(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export3d.model import export3d as forward
    from export3d.model.decoder import RadianceDecoder

    seen: list[tuple[torch.dtype, bool]] = []
    density = RadianceDecoder.density

    def watched(self: RadianceDecoder, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((features.dtype, torch.is_autocast_enabled("cpu")))
        return density(self, features)

    monkeypatch.setattr(forward.RadianceDecoder, "density", watched)
    task = make_task(clip_folder, replace(PHASE1, precision="bf16"))
    metrics = task.step(0, task.load_batch(0))
    assert seen and set(seen) == {(torch.float32, False)}
    assert metrics["total"].dtype == torch.float32
    exact = make_task(clip_folder, PHASE1).step(0, task.load_batch(0))
    assert metrics["total"].item() == pytest.approx(exact["total"].item(), rel=0.02)
    assert metrics["total"].item() != exact["total"].item()


def test_a_missing_expression_encoder_is_named(clip_folder: Path) -> None:
    with pytest.raises(UsageError, match="run 'export3d pretrain' and give --expression RUN"):
        TrainTask(PHASE1, ClipDataset(clip_folder), World())


def test_an_expression_encoder_of_another_shape_is_refused_with_the_difference() -> None:
    other = LeBS(replace(TINY.expression, num_basis=4))
    with pytest.raises(TrainingError, match="num_basis: 4 -> 10"):
        install_expression(build_model(TINY), other)


def test_a_trainable_encoder_can_start_from_the_pre_trained_one_and_then_moves(clip_folder: Path) -> None:
    torch.manual_seed(5)
    start = LeBS(TINY.expression).frozen(0.7)
    model = replace(TINY, expression=replace(TINY.expression, pretrained=False))
    config = replace(PHASE1, model=model, expression_rate=0.3)
    task = TrainTask(config, ClipDataset(clip_folder, split="train"), World(), expression=start)
    beta = torch.randn(3, 64)
    assert torch.allclose(task.model.expression(beta), start(beta), atol=1e-5)
    task.step(0, task.load_batch(0))
    task.step(1, task.load_batch(1))
    assert not torch.allclose(task.model.expression(beta), start(beta), atol=1e-5)
    rates = [group["lr"] for group in task._optimizer.param_groups]
    assert rates[1] == pytest.approx(0.3 * rates[0])


def test_upper_and_lower_face_may_be_learned_at_a_rate_of_their_own(clip_folder: Path) -> None:
    config = replace(PHASE1, model=PORTRAIT_PRESETS["tiny-portrait"], face_shapes_rate=6.0)
    task = TrainTask(config, ClipDataset(clip_folder, split="train"), World(), expression=LeBS(TINY.expression))
    assert isinstance(task.model, PortraitModel)
    task.step(0, task.load_batch(0))
    others, shapes = task._optimizer.param_groups
    assert shapes["lr"] == pytest.approx(6.0 * others["lr"])
    cues = task.model.cues
    wanted = [*(part.to_condition.weight for part in cues.shapes), *cues.turn.parameters()]
    assert [id(p) for p in shapes["params"]] == [id(p) for p in wanted]
    together = sum(len(group["params"]) for group in task._optimizer.param_groups)
    assert together == sum(p.requires_grad for p in task.model.parameters())  # each once


def test_training_can_start_from_a_model_and_free_its_frozen_encoder(clip_folder: Path, tmp_path: Path) -> None:
    from export3d.training.phases.train_inputs import start_weights

    task = make_task(clip_folder, PHASE1)
    task.step(0, task.load_batch(0))
    path = tmp_path / "model.safetensors"
    save_model(path, task.model)
    same, digest = start_weights(path, TINY)
    assert len(digest) == 64
    again = TrainTask(PHASE1, ClipDataset(clip_folder), World(), expression=LeBS(TINY.expression), start=same)
    assert all(torch.equal(v, task.model.state_dict()[k]) for k, v in again.model.state_dict().items())
    free = replace(TINY, expression=replace(TINY.expression, pretrained=False))
    weights, _ = start_weights(path, free)
    freed = TrainTask(replace(PHASE1, model=free), ClipDataset(clip_folder), World(), start=weights)
    beta = torch.randn(2, 64)
    assert torch.allclose(freed.model.expression(beta), task.model.expression(beta), atol=1e-5)
    with pytest.raises(TrainingError, match=r"expression\.num_basis: 10 -> 5"):
        start_weights(path, ablation(TINY, "e2e-lebs-n5"))


def test_another_extractor_is_refused_with_the_difference() -> None:
    a = {"name": "linear", "version": "1", "sha256": "00", "expression_space": "ict64"}
    with pytest.raises(TrainingError, match="version: 1 -> 2"):
        check_same_extractor({"extractor": a}, {**a, "version": "2"})
    check_same_extractor({"extractor": a}, dict(a))


def test_data_of_another_expression_space_is_refused(clip_folder: Path) -> None:
    model = replace(TINY, expression=replace(TINY.expression, space="bfm64"))
    with pytest.raises(TrainingError, match="expression space 'ict64'; the configuration expects 'bfm64'"):
        make_task(clip_folder, replace(PHASE1, model=model))


def test_windows_cut_the_same_square_from_the_raw_and_the_final_image() -> None:
    raw = torch.arange(16.0).reshape(1, 1, 4, 4)
    image = raw.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    window = (torch.tensor([1]), torch.tensor([2]), 2)
    assert cut(raw, window)[0, 0].tolist() == [[6.0, 7.0], [10.0, 11.0]]
    assert torch.equal(cut(image, window, 2)[:, :, ::2, ::2], cut(raw, window))


def test_trimming_keeps_the_border_of_the_whole_picture() -> None:
    image = torch.arange(8.0).expand(
        1, 1, 8, 8
    )  # each pixel holds its column; 4 rays of 2 pixels, in a picture of 8 rays
    columns = {0: [0, 1, 2, 3, 4, 5], 2: [1, 2, 3, 4, 5, 6], 4: [2, 3, 4, 5, 6, 7]}
    for left, expected in columns.items():
        window = (torch.tensor([2]), torch.tensor([left]), 4)
        assert trim(image, window, 8, 1)[0, 0].tolist() == [expected] * 6
        across = (window[1], window[0], 4)
        assert trim(image.transpose(2, 3), across, 8, 1)[0, 0, :, 0].tolist() == expected
    whole = (torch.tensor([0]), torch.tensor([0]), 4)
    assert trim(image, whole, 4, 1) is image


def test_shrunk_depth_averages_head_pixels_only() -> None:
    depth = torch.tensor([[2.0, 2.2, 0.0, 0.0], [2.4, 0.0, 0.0, 3.0]])[None, None].repeat(1, 1, 2, 1)
    small, inside = shrink_depth(depth, 2)
    # First cell: three of four pixels, mean (2.0 + 2.2 + 2.4) / 3 = 2.2, counts; second: one of four, does not.
    assert small[0, 0, 0, 0].item() == pytest.approx(2.2)
    assert inside[0, 0, 0].tolist() == [1.0, 0.0]


def test_focus_raises_the_weight_around_the_mouth_and_not_in_the_corner() -> None:
    landmarks = torch.full((1, 68, 2), 0.5)
    landmarks[0, 48:68] = torch.tensor([0.5, 0.8])
    landmarks[0, 48, 0], landmarks[0, 54, 0] = 0.4, 0.6
    weight = focus_weight(landmarks, 20, 2.0)
    assert weight[0, 0, 16, 10] == 3.0
    assert weight[0, 0, 0, 0] == 1.0


def test_focus_holds_the_brow_above_each_eye_and_nothing_between_the_brows() -> None:
    landmarks = torch.full((1, 68, 2), 0.9)
    landmarks[0, 17:22], landmarks[0, 36:42] = torch.tensor([0.2, 0.3]), torch.tensor([0.2, 0.5])
    landmarks[0, 22:27], landmarks[0, 42:48] = torch.tensor([0.7, 0.3]), torch.tensor([0.7, 0.5])
    weight = focus_weight(landmarks, 20, 2.0)[0, 0]
    assert weight[6, 4] == weight[9, 4] == weight[6, 14] == weight[9, 14] == 3.0
    assert weight[6, 9] == weight[14, 4] == 1.0


def test_the_paper_preset_holds_the_numbers_of_the_paper() -> None:
    paper = TRAIN_PRESETS["paper"]
    assert (paper.phase1_steps, paper.phase2_steps, paper.batch) == (300_000, 10_000, 8)
    assert (paper.learning_rate, paper.adversarial.learning_rate) == (1e-4, 1e-5)
    assert (paper.adversarial.weight_rec, paper.adversarial.weight) == (1.0, 0.01)
    assert paper.weights == LossWeights(mse_raw=1, mse=1, perceptual_raw=1, perceptual=1)
    assert paper.augment == AugmentConfig()
    assert paper.sampling.window is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"samples": 1, "batch": 8}, "samples at least one batch"),
        ({"coarse_until": 1.5}, "shares between 0 and 1"),
        ({"weights": LossWeights()}, "perceptual 'none' needs"),
        ({"sampling": replace(TINY_TRAIN.sampling, window=99)}, r"sampling\.window must lie in 1\.\.8"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(TINY_TRAIN, **change)  # type: ignore[arg-type]
