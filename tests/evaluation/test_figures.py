"""Figures: what stands in which tile, rows drawn by seed, real clips without truth, and errors that say what is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset, ShardWriter
from export3d.errors import DataError, UsageError
from export3d.evaluation.figures.layout import (
    ERROR_FULL,
    HEADER_PX,
    LABEL_PX,
    LEGEND_PX,
    SheetRow,
    error_levels,
    error_map,
    heat,
    lay_out,
)
from export3d.evaluation.figures.sheets import (
    EXPRESSIONS,
    FAN_DEG,
    ablation_sheet,
    cross_identity_sheet,
    driving_frame,
    error_sheet,
    novel_view_sheet,
    same_identity_sheet,
)
from export3d.evaluation.scores.protocol import (
    ClipFacts,
    Pair,
    cross_identity_pairs,
    dataset_facts,
    same_identity_pairs,
)
from export3d.model import PRESETS, Export3D
from export3d.training.batches.stored_portrait import StoredPortrait, depth_picture, stored_state

SIZE = 32


@pytest.fixture(scope="module")
def model() -> Export3D:
    torch.manual_seed(0)
    return Export3D(PRESETS["tiny"]).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def dataset(clips: Path) -> ClipDataset:
    return ClipDataset(clips)


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = HEADER_PX + row * SIZE, LABEL_PX + column * SIZE
    return sheet[top : top + SIZE, left : left + SIZE]


def driven(dataset: ClipDataset, pair: Pair, seed: int = 0, number: int = 0) -> tuple[int, int]:
    """(clip, frame) that drives a row."""
    index = dataset.keys.index(pair.driving_clip)
    return index, driving_frame(pair, dataset_facts(dataset)[index], seed=seed, number=number)


def test_the_same_identity_sheet_shows_source_truth_output_and_its_error(model: Export3D, dataset: ClipDataset) -> None:
    sheet = same_identity_sheet(model, dataset)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (HEADER_PX + 2 * SIZE + LEGEND_PX, LABEL_PX + 8 * SIZE, 3)
    for row, pair in enumerate(same_identity_pairs(dataset_facts(dataset))):
        index, time = driven(dataset, pair)
        view = StoredPortrait(model, dataset, index, pair.source_frame).drive(index, time)
        assert np.array_equal(tile(sheet, row, 0), dataset.frame(index, pair.source_frame))
        assert np.array_equal(tile(sheet, row, 1), dataset.frame(index, time))
        assert np.array_equal(tile(sheet, row, 2), view.image)
        assert np.array_equal(tile(sheet, row, 3), error_map(view.image, dataset.frame(index, time)))
        assert np.array_equal(tile(sheet, row, 7), depth_picture(view.depth, SIZE))


def test_novel_views_show_the_driving_expression_from_their_own_cameras(model: Export3D, dataset: ClipDataset) -> None:
    sheet = same_identity_sheet(model, dataset, clips=1)
    pair = same_identity_pairs(dataset_facts(dataset))[0]
    index, time = driven(dataset, pair)
    portrait = StoredPortrait(model, dataset, index, pair.source_frame)
    state = stored_state(dataset, index, time)
    for column, yaw in enumerate((-30.0, 0.0, 30.0), start=4):
        camera = Camera.look_at_head(yaw=math.radians(yaw))
        expected = portrait.views(state, [camera])[0].image
        assert np.array_equal(tile(sheet, 0, column), expected)


def test_the_cross_identity_sheet_is_driven_by_the_pairs_of_the_protocol(model: Export3D, dataset: ClipDataset) -> None:
    sheet = cross_identity_sheet(model, dataset, clips=2)
    assert sheet.shape == (HEADER_PX + 2 * SIZE, LABEL_PX + 6 * SIZE, 3)
    for row, pair in enumerate(cross_identity_pairs(dataset_facts(dataset))):
        index, time = driven(dataset, pair)
        assert dataset.keys[index] != pair.source_clip
        assert np.array_equal(tile(sheet, row, 1), dataset.frame(index, time))


def test_the_ablation_sheet_has_one_column_per_model_and_cross_rows_below(
    model: Export3D, dataset: ClipDataset
) -> None:
    torch.manual_seed(1)
    other = Export3D(PRESETS["tiny"]).eval().requires_grad_(False)
    sheet = ablation_sheet({"full": model, "direct-3dmm": other}, dataset, clips=2)
    assert sheet.shape == (HEADER_PX + (2 + 1) * SIZE, LABEL_PX + 4 * SIZE, 3)
    single = same_identity_sheet(other, dataset)
    assert np.array_equal(tile(sheet, 1, 3), tile(single, 1, 2))
    assert not np.array_equal(tile(sheet, 1, 2), tile(sheet, 1, 3))
    assert np.array_equal(tile(sheet, 2, 2), tile(cross_identity_sheet(model, dataset), 0, 2))


def test_the_error_sheet_compares_models_on_the_rows_of_the_ablation_sheet(
    model: Export3D, dataset: ClipDataset
) -> None:
    sheet = error_sheet({"a": model, "b": model}, dataset, clips=2)
    assert sheet.shape == (HEADER_PX + 2 * SIZE + LEGEND_PX, LABEL_PX + 3 * SIZE, 3)
    single = same_identity_sheet(model, dataset)
    assert np.array_equal(tile(sheet, 1, 0), tile(single, 1, 1))
    assert np.array_equal(tile(sheet, 1, 1), tile(single, 1, 3))
    assert np.array_equal(tile(sheet, 1, 1), tile(sheet, 1, 2))


def test_the_novel_view_sheet_has_several_expressions_of_each_source(model: Export3D, dataset: ClipDataset) -> None:
    sheet = novel_view_sheet(model, dataset, clips=1)
    assert sheet.shape == (HEADER_PX + EXPRESSIONS * SIZE, LABEL_PX + (2 + len(FAN_DEG)) * SIZE, 3)
    shown = {tile(sheet, row, 1).tobytes() for row in range(EXPRESSIONS)}
    assert len(shown) == EXPRESSIONS  # the driver has three frames, and no two rows show the same one
    assert np.array_equal(tile(sheet, 0, 0), tile(sheet, 2, 0))


def test_the_same_seed_gives_the_same_figure_and_another_seed_another(model: Export3D, dataset: ClipDataset) -> None:
    first = cross_identity_sheet(model, dataset, seed=3)
    assert np.array_equal(first, cross_identity_sheet(model, dataset, seed=3))
    assert any(not np.array_equal(first, cross_identity_sheet(model, dataset, seed=seed)) for seed in range(3))


def test_a_driving_frame_has_a_face_and_is_not_the_source() -> None:
    facts = ClipFacts(
        key="a",
        identity="a",
        head_angles=np.zeros((5, 3)),
        usable=np.array([True, False, True, True, False]),
    )
    same = Pair(kind="same", source_clip="a", source_frame=2, driving_clip="a")
    drawn = {driving_frame(same, facts, seed=seed) for seed in range(30)}
    assert drawn == {0, 3}
    assert {driving_frame(same, facts, seed=1, number=n) for n in range(2)} == {0, 3}
    alone = replace(facts, usable=np.array([False, False, True, False, False]))
    assert driving_frame(same, alone) == 2  # a clip of one usable frame can only drive itself


def test_clips_without_masks_and_depth_work_too(model: Export3D, dataset: ClipDataset, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "real")
    for index in range(len(dataset)):
        clip = dataset.clip(index)
        arrays = {name: clip.arrays[name] for name in ("beta", "camera", "landmarks", "confidence", "crop")}
        writer.write(replace(clip, arrays=arrays, masks=None, depths=None, background=None))
    writer.close()
    real = ClipDataset(tmp_path / "real")
    assert not real.has(0, "0000.mask.png")
    assert np.array_equal(same_identity_sheet(model, real), same_identity_sheet(model, dataset))
    assert np.array_equal(novel_view_sheet(model, real), novel_view_sheet(model, dataset))


def test_one_person_alone_gives_no_cross_rows(model: Export3D, dataset: ClipDataset, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "one")
    writer.write(dataset.clip(0))
    writer.close()
    one = ClipDataset(tmp_path / "one")
    assert ablation_sheet({"full": model}, one).shape[0] == HEADER_PX + SIZE
    assert novel_view_sheet(model, one, clips=1).shape[0] == HEADER_PX + EXPRESSIONS * SIZE
    with pytest.raises(DataError, match="clips of at least two people; the data set has one"):
        cross_identity_sheet(model, one)


def test_a_perfect_prediction_has_an_error_map_of_zero(dataset: ClipDataset) -> None:
    frame = dataset.frame(0, 0)
    assert not error_levels(frame, frame).any()
    assert not error_map(frame, frame).any()


def test_errors_are_means_over_channels_in_8_bit_levels_without_overflow() -> None:
    black, other = np.zeros((1, 1, 3), np.uint8), np.array([[[255, 3, 0]]], np.uint8)
    assert error_levels(black, other)[0, 0] == error_levels(other, black)[0, 0] == pytest.approx(86.0)  # (255+3+0)/3
    assert np.array_equal(error_map(black, other), heat(np.ones((1, 1))))  # 86 is beyond the scale's end of 64
    half = np.full((1, 1, 3), ERROR_FULL // 2, np.uint8)
    assert np.array_equal(error_map(black, half)[0, 0], (185, 50, 90))  # the middle of five stops


def test_header_label_and_legend_are_written_outside_the_tiles() -> None:
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    sheet = lay_out(["source"], [SheetRow(label="clip_0", tiles=[white])], with_legend=True)
    assert (sheet[:HEADER_PX, LABEL_PX:] < 128).any()
    assert not (sheet[:HEADER_PX, :LABEL_PX] < 255).any()
    assert (sheet[HEADER_PX : HEADER_PX + SIZE, :LABEL_PX] < 128).any()
    assert np.array_equal(tile(sheet, 0, 0), white)
    assert (sheet[HEADER_PX + SIZE :] < 128).any()
    assert not np.array_equal(sheet, lay_out(["output"], [SheetRow(label="clip_0", tiles=[white])], with_legend=True))


def test_long_names_stay_inside_their_column() -> None:
    tiles = [np.full((64, 64, 3), 255, np.uint8)] * 2
    sheet = lay_out(["a_name_without_any_space_that_is_much_too_long", ""], [SheetRow(label="é" * 99, tiles=tiles)])
    assert (sheet[:HEADER_PX, LABEL_PX : LABEL_PX + 64] < 255).any()
    assert (sheet[:, LABEL_PX + 64 :] == 255).all()
    assert (sheet[HEADER_PX:, LABEL_PX:] == 255).all()


def test_near_is_bright_in_the_depth_picture() -> None:
    depth = torch.tensor([[2.5, 2.9], [2.7, 2.9]])[None, None]
    assert depth_picture(depth, 2)[..., 0].tolist() == [[255, 0], [127, 0]]  # (2.9 - 2.7) / 0.4 * 255 = 127.5, cut


def test_a_data_set_without_clips_is_an_error(model: Export3D, dataset: ClipDataset, clips: Path) -> None:
    with pytest.raises(DataError, match="no clip of split val in the data set"):
        same_identity_sheet(model, ClipDataset(clips, split="val"))
    empty = ClipDataset(clips)
    empty._clips = ()
    for make in (same_identity_sheet, cross_identity_sheet, novel_view_sheet):
        with pytest.raises(DataError, match="the data set has no clips; there is nothing to show"):
            make(model, empty)
    for make in (ablation_sheet, error_sheet):
        with pytest.raises(DataError, match="the data set has no clips; there is nothing to show"):
            make({"full": model}, empty)


def test_no_rows_and_no_models_are_errors(model: Export3D, dataset: ClipDataset) -> None:
    with pytest.raises(UsageError, match="at least 1 clip; got 0"):
        same_identity_sheet(model, dataset, clips=0)
    for make in (ablation_sheet, error_sheet):
        with pytest.raises(UsageError, match="at least one model"):
            make({}, dataset)


def test_a_model_of_another_expression_space_is_refused(dataset: ClipDataset) -> None:
    config = PRESETS["tiny"]
    other = Export3D(replace(config, expression=replace(config.expression, space="arkit52"))).eval()
    with pytest.raises(UsageError, match="in the expression space 'ict64', but the model was trained on 'arkit52'"):
        error_sheet({"other": other}, dataset)


def test_rows_of_unequal_tiles_are_refused() -> None:
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match="at least one row"):
        lay_out(["a"], [])
    with pytest.raises(ValueError, match="row 'x': expected 2 tiles of 8 x 8 x 3"):
        lay_out(["a", "b"], [SheetRow(label="x", tiles=[small, large])])
    with pytest.raises(ValueError, match="row 'x': expected 2 tiles"):
        lay_out(["a", "b"], [SheetRow(label="x", tiles=[small])])
