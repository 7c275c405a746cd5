"""Scores against exact truth: hand-computed regions, and the command on clips of the procedural head."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.cli import main
from export3d.data import ClipDataset
from export3d.evaluation.figures.layout import SheetRow, lay_out
from export3d.evaluation.scores.synthetic import Truth, _sharpness, masked_psnr, score_synthetic
from export3d.model import PRESETS, Export3D
from export3d.portrait import PORTRAIT_PRESETS, build_model, save_model
from export3d.rendering.fused import binding
from export3d.tracking import Crop
from export3d.tracking.tracker import TrackedFrame, lost_frame


@pytest.fixture(scope="module")
def model() -> Export3D:
    torch.manual_seed(0)
    return Export3D(PRESETS["tiny"]).eval().requires_grad_(False)


def test_an_error_outside_the_mask_does_not_count() -> None:
    truth = np.zeros((4, 4, 3), np.uint8)
    image = truth.copy()
    image[0] = 255  # outside
    image[3] = 51  # inside: error 51 = 255 / 5 on all masked pixels, so PSNR = 20 log10(5)
    mask = np.zeros((4, 4), bool)
    mask[3] = True
    assert masked_psnr(image, truth, mask) == pytest.approx(20 * np.log10(5.0))


def test_a_blurred_picture_is_less_sharp_and_a_flat_one_not_at_all() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    blurred = np.array(Image.fromarray(noise).resize((8, 8), Image.Resampling.BOX).resize((16, 16)))
    assert _sharpness(np.full((16, 16, 3), 90, np.uint8), mask) == 0.0
    assert 0.0 < _sharpness(blurred, mask) < 0.5 * _sharpness(noise, mask)


def test_the_truth_scores_perfectly_against_itself(clips: Path) -> None:
    dataset = ClipDataset(clips)
    truth = Truth.read(dataset, 0, 1)
    depth = torch.from_numpy(truth.depth)[None, None]
    _, ssim, foreground, mouth, eyes, depth_error, sharpness = truth.score(truth.frame, depth)
    assert ssim == pytest.approx(1.0)
    assert min(foreground, mouth, eyes) > 100  # the error is floored at 1e-6, which is 108 dB
    assert depth_error == 0.0
    assert sharpness == pytest.approx(1.0)


def test_every_variant_is_scored_and_copying_has_no_depth(clips: Path, model: Export3D) -> None:
    scores = score_synthetic(model, ClipDataset(clips))
    variants = {"model", "source_expression", "random_expression", "other_leak", "source_camera", "copy_source"}
    assert set(scores) == variants
    assert np.isnan(scores["copy_source"].depth)
    assert scores["model"].depth > 0.0
    assert scores["model"].foreground != scores["source_camera"].foreground


def test_a_row_of_the_papers_tables_scores_the_same_alone_and_by_either_renderer(
    clips: Path, model: Export3D, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ClipDataset(clips)
    every, brief = score_synthetic(model, dataset), score_synthetic(model, dataset, brief=True)
    assert set(brief) == {"model", "copy_source"} and brief["model"] == every["model"]
    monkeypatch.setenv(binding.VARIABLE, "0")
    plain = score_synthetic(model, dataset, brief=True)
    assert asdict(plain["model"]) == pytest.approx(asdict(brief["model"]), abs=1e-3)


def test_a_model_with_a_neck_is_also_scored_with_the_portraits_torso(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClipDataset, "in_room", lambda self, index: True)
    torch.manual_seed(0)
    model = build_model(PORTRAIT_PRESETS["tiny-portrait"]).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    scores = score_synthetic(model, ClipDataset(clips))
    assert scores["source_turn"].foreground != scores["model"].foreground


def test_the_command_writes_scores_and_a_sheet(clips: Path, model: Export3D, tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.safetensors", model)
    arguments = ["quality", "--data", str(clips), "--model", str(tmp_path / "tiny.safetensors")]
    arguments += ["-o", str(tmp_path / "q.json"), "--sheet", str(tmp_path / "q.png"), "--rows", "2"]
    assert main(arguments) == 0
    stored = json.loads((tmp_path / "q.json").read_text())
    assert stored["clips"] == 2
    assert stored["frames"] == 6
    assert stored["command"].startswith("export3d quality --data")
    height, width, _ = lay_out(["one"] * 8, [_grey_row(8)] * 2, with_legend=True).shape
    assert Image.open(tmp_path / "q.png").size == (width, height)


class Seer:
    """A tracker that reads the truth off the clip, with the head a tenth farther away."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset, self.shift = dataset, 0.1

    def reset(self) -> None:
        pass

    def frame(self, image: np.ndarray) -> TrackedFrame:
        size = self._dataset.size
        for index in range(len(self._dataset)):
            for time in range(self._dataset.num_frames(index)):
                if np.array_equal(image, self._dataset.frame(index, time)):
                    arrays = self._dataset.arrays(index)
                    camera = arrays["camera"][time].copy()
                    camera[[3, 7, 11]] *= 1.0 + self.shift
                    read = {"beta": arrays["beta"][time], "camera": camera, "gaze": arrays["gaze"][time]}
                    crop = Crop(size / 2, size / 2, size)
                    return replace(lost_frame(), found=True, crop=crop, **read)
        return lost_frame()


def test_a_tracker_that_reads_the_truth_scores_as_the_truth_and_each_part_is_exchanged(
    clips: Path, model: Export3D
) -> None:
    dataset = ClipDataset(clips)
    seer = Seer(dataset)
    scores = score_synthetic(model, dataset, clips=1, tracker=seer)  # type: ignore[arg-type]
    rows = {"tracked", "tracked_true_camera", "tracked_true_expression", "tracked_true_gaze", "tracked_true_torso"}
    assert rows < set(scores)
    assert scores["tracked_true_camera"].psnr != pytest.approx(scores["tracked"].psnr, abs=1e-4)
    seer.shift = 0.0
    exact = score_synthetic(model, dataset, clips=1, brief=True, tracker=seer)  # type: ignore[arg-type]
    assert set(exact) == {"model", "copy_source", "tracked"}
    assert exact["tracked"].psnr == pytest.approx(scores["tracked_true_camera"].psnr, abs=1e-3)


def _grey_row(columns: int) -> SheetRow:
    return SheetRow(label="", tiles=[np.full((32, 32, 3), 128, np.uint8)] * columns)


def test_more_clips_than_the_data_set_holds_are_refused(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--data", str(clips), "--clips", "99"]) == 2
    assert "--clips: expected 1 to" in capsys.readouterr().err
