"""Measures of identity and expression: hand-computed codes, known maps, and the command on clips of the procedural head."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.cli import main
from export3d.configs import config_to_dict
from export3d.data import ClipDataset, ShardWriter
from export3d.evaluation.figures.expression_figure import identity_colors, scatter
from export3d.evaluation.scores.expression_content import (
    CodeRow,
    cross_fitted,
    measure_code,
    nearest_half,
    pooled_r2,
    quadratic_features,
    r2_per_mode,
    ridge,
    verdicts,
)
from export3d.evaluation.scores.expression_sample import ExpressionSample, draw_sample, sample_of_clips
from export3d.expression.lebs import LeBS, LeBSConfig
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips
from export3d.heads.shape.procedural import procedural_head
from export3d.training.phases.pretrain_config import TINY_PRETRAIN


def _sample(people: int = 8, frames: int = 40, modes: int = 3) -> ExpressionSample:
    """beta-hat = [true expression, a place of the person far from all others]."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(people * frames, modes))
    identity = np.repeat(np.arange(people), frames)
    place = 10.0 * rng.normal(size=(people, 2))[identity]
    return ExpressionSample(beta=np.concatenate([truth, place], axis=1), truth=truth, identity=identity, clip=identity)


def test_the_second_half_finds_the_first_half_of_the_same_person() -> None:
    # Halves' means: clip 0: 0 and 1, clip 1: 10 and 9 (the odd middle frame belongs to the second half), clip 2: 20
    # and 2. 1 is nearest to 0, 9 to 10, 2 to 0 (not 20): 2 of 3.
    code = np.array([0.0, 1, 10, 8, 10, 20, 2])[:, None]
    clip = np.array([0, 0, 1, 1, 1, 2, 2])
    assert nearest_half(code, clip, clip) == pytest.approx(2 / 3)
    # If clips 0 and 2 show the same person, finding either one is right.
    assert nearest_half(code, clip, np.where(clip == 2, 0, clip)) == 1.0


@pytest.mark.parametrize("shape", [(40, 3), (6, 12)])
def test_ridge_solves_the_normal_equations_both_ways(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x, y, x_new = rng.normal(size=shape) + 3, rng.normal(size=(shape[0], 2)), rng.normal(size=(5, shape[1]))
    centred = x - x.mean(0)
    penalty = 0.1 * (centred**2).sum() / shape[1]
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(shape[1]), centred.T @ (y - y.mean(0)))
    assert ridge(x, y, x_new, (0.1,))[0] == pytest.approx(y.mean(0) + (x_new - x.mean(0)) @ weights)


def test_r2_is_one_for_the_truth_and_zero_for_the_mean() -> None:
    truth = np.array([[0.0, 0], [2, 4], [0, 0], [2, 4]])
    identity = np.array([0, 0, 1, 1])
    half = np.array([[0.0, 2], [2, 2], [0, 2], [2, 2]])  # mode 0 exact, mode 1 its mean
    assert r2_per_mode(truth, half, identity).tolist() == [1.0, 0.0]
    # Deviations: mode 0: 4 x 1 = 4; mode 1: 4 x 4 = 16; errors 0 and 16: 1 - 16 / 20.
    assert pooled_r2(truth, half, identity) == pytest.approx(0.2)


def test_a_person_is_never_predicted_by_a_map_that_saw_it() -> None:
    # Truth is a number of the person alone; the code is one-hot per person. A map fitted on others knows nothing.
    identity = np.repeat(np.arange(8), 5)
    code, truth = np.eye(8)[identity], np.random.default_rng(0).normal(size=(8, 1))[identity]
    assert pooled_r2(truth, cross_fitted(code, truth, identity), identity) < 0.05


def test_squares_and_products_are_among_the_quadratic_features() -> None:
    code = np.array([[1.0, 2], [-1, -2], [1, -2], [-1, 2]])  # mean 0, spread 1 and 2
    features = quadratic_features(code)
    assert features.shape == (4, 5)  # a, b, aa, ab, bb
    assert features[:, 3] == pytest.approx([1, 1, -1, -1])


def test_a_code_of_expression_and_person_shows_both_and_its_expression_alone_only_one() -> None:
    sample, spread = _sample(), np.array([3.0, 2, 1])
    both = measure_code("both", sample.beta, sample, spread)
    alone = measure_code("alone", sample.truth, sample, spread)
    assert both.identity_1nn == both.identity_1nn_frames == 1.0 and both.between_identity_share > 0.9  # type: ignore[operator]
    assert alone.identity_1nn < 0.6 and alone.between_identity_share < 0.1  # type: ignore[operator]
    assert alone.r2 > 0.99 and both.r2_within > 0.99


def test_modes_count_by_how_far_they_move_the_face() -> None:
    # The code is mode 0 alone, so R^2 is its share of the variance: 9 / (9 + 4 + 1) for unit scores, about 0.643.
    sample = _sample()
    row = measure_code("first", sample.truth[:, :1], sample, np.array([3.0, 2, 1]))
    assert row.r2 == pytest.approx(9 / 14, abs=0.05)
    assert row.r2_per_mode[0] > 0.99 and max(row.r2_per_mode[1:]) < 0.05


def test_the_verdicts_follow_from_the_rows() -> None:
    def row(name: str, hit: float, r2: float) -> CodeRow:
        return CodeRow(
            code=name,
            numbers=1,
            between_identity_share=0.0,
            identity_1nn=hit,
            identity_1nn_frames=0.0,
            r2=r2,
            r2_leading=0.0,
            r2_within=-r2,
            r2_quadratic=r2,
            r2_per_mode=[],
        )

    rows = [row("beta-hat minus clip mean", 0.0, 0.5), row("beta' (lambda)", 0.05, 0.6)]
    found = verdicts(rows, chance=0.02)  # 0.05 is 2.5 times chance
    assert found == {
        "identity_near_chance": False,
        "expression_kept_linear": True,
        "expression_kept_within": False,
        "expression_kept_quadratic": True,
    }
    assert verdicts(rows, chance=0.025)["identity_near_chance"]


def test_every_point_of_the_figure_has_its_person_s_colour() -> None:
    colors = identity_colors(3)
    assert len(np.unique(colors, axis=0)) == 3
    panel = scatter(np.array([[0.0, 0], [1, 0], [0, 1]]), colors, "three")
    found = {tuple(pixel) for pixel in panel.reshape(-1, 3)}
    assert all(tuple(color) in found for color in colors)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "clips"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
        config = ClipsConfig(identities=4, frames=4, size=16, supersample=1, quality="fast", split="test")
        render_clips(folder, config, extractor_config=ExtractorConfig(statistics_identities=16, statistics_frames=16))
    return folder


@pytest.fixture
def run_folder(clips: Path, tmp_path: Path) -> Path:
    """A run folder with a random frozen encoder, as `export3d pretrain` would leave it."""
    from export3d.checkpoint import write_checkpoint
    from export3d.expression.image_encoder import ImageEncoder
    from export3d.training.phases.pretrain_files import (
        EXPRESSION_FILE,
        EXPRESSION_KIND,
        FACE_NETWORK_FILE,
        FACE_NETWORK_KIND,
    )

    expression = LeBS(LeBSConfig(dim=32, hidden=16, pretrained=False)).frozen()
    encoder = ImageEncoder(TINY_PRETRAIN.image_encoder)
    extra = {"extractor": ClipDataset(clips).extractor, "step": 3, "pretrain": config_to_dict(TINY_PRETRAIN)}
    for name, kind, part in (
        (EXPRESSION_FILE, EXPRESSION_KIND, expression),
        (FACE_NETWORK_FILE, FACE_NETWORK_KIND, encoder),
    ):
        write_checkpoint(tmp_path / name, part.state_dict(), kind=kind, config=config_to_dict(part.config), extra=extra)
    return tmp_path


def test_drawn_people_have_the_expressions_of_rendered_clips(clips: Path) -> None:
    stored = sample_of_clips(ClipDataset(clips))
    extractor = LinearExtractor.load(clips / "extractor.safetensors")
    drawn = draw_sample(procedural_head(), extractor, identities=4, frames=4)
    assert drawn.truth == pytest.approx(stored.truth, abs=1e-4)  # the same seeds give the same motion
    leading = np.corrcoef(drawn.beta[:, :4].ravel(), stored.beta[:, :4].ravel())[0, 1]
    assert leading > 0.9  # the noise alone differs; it drowns only the small modes


def test_the_command_writes_numbers_and_figure(
    clips: Path, run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    out, figure = run_folder / "c.json", run_folder / "c.png"
    command = ["measure-expression", "--expression", str(run_folder), "--data", str(clips), "-o", str(out)]
    assert main([*command, "--identities", "6", "--frames", "10", "--figure", str(figure)]) == 0
    facts = json.loads(out.read_text())
    assert facts["sample"] == {"identities": 6, "frames": 60, "drawn_without_rendering": True}
    assert facts["chance"]["identity_1nn"] == pytest.approx(1 / 6)
    assert [row["code"] for row in facts["rows"]][:3] == ["beta-hat", "beta-hat minus clip mean", "beta' (lambda)"]
    assert facts["contrast"]["train_retrieval"] is None  # the folder has no log
    assert facts["contrast"]["clips"] == 4 and facts["contrast"]["frames_per_clip"] == 4
    assert facts["contrast"]["loss_at_chance"] == pytest.approx(np.log(3))
    assert Image.open(figure).size == (1040, 554)
    assert "identity_near_chance: " in capsys.readouterr().out


def test_clips_of_the_train_split_are_refused(
    clips: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = ClipDataset(clips).clip(0)
    with ShardWriter(tmp_path / "t") as writer:
        writer.write(replace(clip, meta={**clip.meta, "split": "train"}))
    shutil.copy(clips / "extractor.safetensors", tmp_path / "t")
    assert main(["measure-expression", "--expression", str(run_folder), "--data", str(tmp_path / "t")]) == 24
    assert "never saw" in " ".join(capsys.readouterr().err.split())


def test_a_run_of_another_extractor_is_refused(
    clips: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LinearExtractor.build(
        procedural_head(), ExtractorConfig(noise_px=2.0, statistics_identities=2, statistics_frames=2)
    ).save(tmp_path / "extractor.safetensors")
    shutil.copytree(clips, tmp_path / "other")
    shutil.copy(tmp_path / "extractor.safetensors", tmp_path / "other")
    assert main(["measure-expression", "--expression", str(run_folder), "--data", str(tmp_path / "other")]) == 24
    assert "Measure with clips of the same head model" in " ".join(capsys.readouterr().err.split())
