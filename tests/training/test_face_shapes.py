"""fitting/face_shapes.py: the maps from beta to expression weights, and how a run comes to have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.clips import EXTRACTOR

from export3d.data import ClipDataset
from export3d.errors import TrainingError, UsageError
from export3d.expression.lebs import LeBS
from export3d.face_state import mirrored_name
from export3d.fitting.face_shapes import fit_face_shapes
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.model.config import TINY
from export3d.portrait import PORTRAIT_PRESETS, PortraitModel, build_model, save_model
from export3d.portrait.shapes import LOWER_FACE, UPPER_FACE
from export3d.training.loop.distributed import World
from export3d.training.phases.config import TINY_TRAIN
from export3d.training.phases.setup import prepare_training
from export3d.training.phases.train import TrainTask
from export3d.training.phases.train_inputs import expression_of_model

CONFIG = replace(
    TINY_TRAIN,
    model=PORTRAIT_PRESETS["tiny-portrait"],
    adversarial=replace(TINY_TRAIN.adversarial, samples=0),
)


@dataclass
class MadeUp:
    """As much of a clip source as the fit reads: weights that are a linear function of beta."""

    mirrored: bool = False
    true: bool = True
    name: str = "made up"
    keys: tuple[str, ...] = tuple(f"clip_{number}" for number in range(20))

    def __len__(self) -> int:
        return len(self.keys)

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        beta = rng.normal(size=(30, 64)).astype(np.float32)
        weights = np.zeros((30, 53), np.float32)
        weights[:, EXPRESSION_NAMES.index("eyeBlink_L")] = 0.2 + 0.5 * beta[:, 1]
        weights[:, EXPRESSION_NAMES.index("browDown_R")] = -0.3 * beta[:, 2]
        weights[:, EXPRESSION_NAMES.index("mouthLeft")] = 0.4 * beta[:, 3]
        # The mirrored face has the numbers of its two sides in beta exchanged.
        swapped = beta.copy()
        swapped[:, [1, 5, 2, 6, 3, 7]] = beta[:, [5, 1, 6, 2, 7, 3]]
        return {
            "beta": beta,
            **({"weights": weights} if self.true else {}),
            **({"beta_mirror": swapped} if self.mirrored else {}),
        }


def test_the_fit_finds_the_map_that_made_the_weights() -> None:
    weight, bias = fit_face_shapes(MadeUp(), UPPER_FACE)  # type: ignore[arg-type]
    blink, brow = UPPER_FACE.index("eyeBlink_L"), UPPER_FACE.index("browDown_R")
    assert weight[1, blink].item() == pytest.approx(0.5, abs=0.01)
    assert bias[blink].item() == pytest.approx(0.2, abs=0.01)
    assert weight[2, brow].item() == pytest.approx(-0.3, abs=0.01)
    weight[1, blink] = weight[2, brow] = 0.0
    assert weight.abs().max() < 0.01


def test_mirrored_frames_teach_the_other_side() -> None:
    weight, _ = fit_face_shapes(MadeUp(mirrored=True), (*UPPER_FACE, *LOWER_FACE))  # type: ignore[arg-type]
    right = UPPER_FACE.index("eyeBlink_R")
    assert weight[5, right].item() > 0.15
    assert weight[1, right].abs().item() < 0.05
    right = len(UPPER_FACE) + LOWER_FACE.index("mouthRight")
    assert weight[7, right].item() > 0.12
    assert weight[3, right].abs().item() < 0.05


@pytest.mark.parametrize(
    ("name", "mirror"),
    [
        ("browDown_L", "browDown_R"),
        ("browDown_R", "browDown_L"),
        ("jawLeft", "jawRight"),
        ("mouthFunnel", "mouthFunnel"),
    ],
)
def test_a_mirrored_face_exchanges_left_and_right(name: str, mirror: str) -> None:
    assert mirrored_name(name) == mirror


def test_clips_without_true_weights_are_refused_with_what_to_do() -> None:
    what = r"clip_0 has no true expression weights.*--start"
    with pytest.raises(TrainingError, match=what):
        fit_face_shapes(MadeUp(true=False), UPPER_FACE)  # type: ignore[arg-type]


def test_a_run_fits_the_map_once_and_a_start_that_has_one_keeps_it(clip_folder: Path) -> None:
    clips = ClipDataset(clip_folder, split="train")
    fresh = TrainTask(CONFIG, clips, World(), expression=LeBS(CONFIG.model.expression)).model
    assert isinstance(fresh, PortraitModel)
    assert [part.names for part in fresh.cues.shapes] == [UPPER_FACE, LOWER_FACE]
    for part in fresh.cues.shapes:
        assert torch.equal(part.weight, fit_face_shapes(clips, part.names)[0])
    model = build_model(CONFIG.model)
    assert isinstance(model, PortraitModel)
    model.cues.upper.set_map(torch.randn(64, 10), torch.randn(10))  # the lower face is still to be fitted
    task = TrainTask(CONFIG, clips, World(), expression=LeBS(CONFIG.model.expression), start=model.state_dict())
    trained = task.model
    assert isinstance(trained, PortraitModel)
    assert torch.equal(trained.cues.upper.weight, model.cues.upper.weight)
    assert torch.equal(trained.cues.lower.weight, fit_face_shapes(clips, LOWER_FACE)[0])
    for step in range(3):  # at first EAdaLN itself begins at zero
        task.step(step, task.load_batch(step))
    assert torch.equal(trained.cues.upper.weight, model.cues.upper.weight)
    for part in trained.cues.shapes:
        assert part.to_condition.weight.any()  # began at zero


def test_without_an_expression_run_the_frozen_encoder_of_the_start_goes_on(tmp_path: Path) -> None:
    config = replace(CONFIG, model=TINY)
    model = build_model(TINY)
    path = tmp_path / "start.safetensors"
    save_model(path, model, extra={"extractor": EXTRACTOR})
    setup = prepare_training(config, "full", EXTRACTOR, start=path)
    assert setup.expression is not None
    for name, value in model.expression.state_dict().items():
        assert torch.equal(setup.expression.state_dict()[name], value)
    with pytest.raises(TrainingError, match="another extractor"):
        prepare_training(config, "full", {**EXTRACTOR, "sha256": "1" * 64}, start=path)


def test_a_start_without_a_frozen_encoder_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    save_model(path, build_model(replace(TINY, expression=replace(TINY.expression, pretrained=False))))
    with pytest.raises(UsageError, match="no frozen expression encoder; give one with --expression"):
        expression_of_model(path)
