"""evaluation/scores/scoring.py: which metrics a pair gets, tables over clips, and the files that are written."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from export3d.errors import DataError, OutputError
from export3d.evaluation.metrics.backends import TrackerBackend
from export3d.evaluation.scores.protocol import Pair
from export3d.evaluation.scores.scoring import (
    METRICS,
    SAME_IDENTITY_ONLY,
    ClipScores,
    score_clip,
    score_table,
    write_frames_csv,
)
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients
from export3d.tracking.tracker import Tracker

SAME = Pair(kind="same", source_clip="a", source_frame=1, driving_clip="a")
CROSS = Pair(kind="cross", source_clip="a", source_frame=1, driving_clip="b")


class MeanColour:
    """An identity back end without weights: the mean colour of the frame; black frames have no face."""

    info = ExtractorInfo("mean-colour", "1", "", "")

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        mean = frames.mean(axis=(1, 2))
        return np.where(mean.sum(axis=1, keepdims=True) > 0, mean, np.nan)


class MeanDifference:
    """A picture distance without weights: the mean absolute difference over 255."""

    label = "pictures (mean difference)"
    facts = {"name": "mean-difference", "version": "1", "sha256": ""}  # noqa: RUF012

    def distances(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        return np.abs(generated.astype(float) - true).mean(axis=(1, 2, 3)) / 255


def _frames(count: int = 4, side: int = 64) -> np.ndarray:
    photo = skimage.data.astronaut()
    return np.stack([photo[10 + i : 10 + i + side, 200 : 200 + side] for i in range(count)])


def _landmarks() -> np.ndarray:
    """A plausible face in a 64-pixel frame."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([32 + 14 * np.cos(angle), 32 + 18 * np.sin(angle)], axis=1)
    points[36:42], points[42:48] = [25.0, 27.0], [39.0, 27.0]
    points[36:42, 0] += np.array([-2, -1, 1, 2, 1, -1])
    points[42:48, 0] += np.array([-2, -1, 1, 2, 1, -1])
    points[30], points[48], points[54] = [32.0, 34.0], [27.0, 42.0], [37.0, 42.0]
    return points


def _backend(*frames: list[np.ndarray]) -> TrackerBackend:
    return TrackerBackend(Tracker(GivenLandmarks(frames), MeasuredCoefficients()))


def test_a_same_identity_pair_gets_every_metric_in_the_order_of_the_tables() -> None:
    frames = _frames()
    scores = score_clip(
        SAME, frames[1], frames, frames, _backend([_landmarks()]), identities=MeanColour(), pictures=MeanDifference()
    )
    assert list(scores.values) == list(METRICS)[:13]  # the rest needs a model, or truth
    assert all(len(values) == 4 for values in scores.values.values())


def test_the_driving_clip_itself_scores_perfectly() -> None:
    frames = _frames()
    scores = score_clip(SAME, frames[1], frames, frames, _backend([_landmarks()]), identities=MeanColour()).values
    assert np.isinf(scores["psnr"]).all() and scores["ssim_gaussian"] == pytest.approx([1.0] * 4)
    for name in ("akd", "aed", "apd"):
        assert scores[name] == pytest.approx([0.0] * 4)
    assert scores["csim_driving"] == pytest.approx([1.0] * 4) and scores["csim_source"][1] == pytest.approx(1.0)
    assert scores["flicker_excess"][1:3] == pytest.approx([0.0, 0.0]) and np.isnan(scores["flicker"][[0, 3]]).all()


def test_a_cross_identity_pair_has_no_metric_that_needs_the_true_frame() -> None:
    frames = _frames()
    scores = score_clip(
        CROSS, frames[1], frames, frames, _backend([_landmarks()]), identities=MeanColour(), pictures=MeanDifference()
    )
    assert not set(SAME_IDENTITY_ONLY) & set(scores.values)
    assert {"csim_source", "aed", "apd"} <= set(scores.values)


@pytest.mark.parametrize("pair", [SAME, CROSS])
def test_csim_source_compares_with_the_portrait_and_csim_driving_with_the_driver(pair: Pair) -> None:
    source, generated = np.full((16, 16, 3), (200, 0, 0), np.uint8), np.full((3, 16, 16, 3), (100, 100, 0), np.uint8)
    driving = np.full((3, 16, 16, 3), (0, 0, 50), np.uint8)
    scores = score_clip(pair, source, generated, driving, identities=MeanColour()).values
    assert scores["csim_source"] == pytest.approx([0.5**0.5] * 3)  # (1, 1, 0) and (1, 0, 0)
    assert pair is CROSS or scores["csim_driving"] == pytest.approx([0.0] * 3)


def test_without_back_ends_only_the_picture_is_scored() -> None:
    frames = _frames()
    assert set(score_clip(SAME, frames[0], frames, frames).values) == {
        *("psnr", "ssim_gaussian", "ssim_uniform", "flicker", "flicker_excess")
    }


def test_the_tracker_back_end_gives_landmarks_in_pixels_of_a_256_pixel_image() -> None:
    measures = _backend([_landmarks()]).measure(_frames(2))
    assert measures.landmarks[1] == pytest.approx(_landmarks() * 4, abs=1e-3)  # 64 -> 256 pixels
    assert measures.expression.shape == (2, 64) and measures.pose.shape == (2, 6)
    assert _backend([_landmarks()]).landmark_info.name == "given-landmarks"


def test_a_frame_without_a_face_is_nan_in_every_measure_and_counted() -> None:
    backend = _backend([_landmarks()], [])  # every second frame has no face
    measures = backend.measure(_frames())
    assert np.isnan(measures.landmarks[[1, 3]]).all() and not np.isnan(measures.landmarks[[0, 2]]).any()
    frames = _frames()
    table = score_table([score_clip(SAME, frames[0], frames, frames, backend)])
    akd_row = next(row for row in table if row.metric == "akd")
    assert (akd_row.frames, akd_row.missing) == (2, 2)


def test_clips_of_different_length_are_named() -> None:
    frames = _frames()
    with pytest.raises(ValueError, match=r"generated \(3, 64, 64, 3\) and driving \(4, 64, 64, 3\)"):
        score_clip(SAME, frames[0], frames[:3], frames)


def _scores(pair: Pair, values: list[float]) -> ClipScores:
    return ClipScores(pair=pair, values={"aed": np.array(values)})


def test_each_clip_counts_once_however_long_it_is() -> None:
    # Clip means 1 and 3: 2, not the mean over frames, (1 * 4 + 3) / 5 = 1.4.
    (row,) = score_table([_scores(CROSS, [1.0] * 4), _scores(CROSS, [3.0])])
    assert row.interval.mean == 2.0 and row.interval.clips == 2 and row.frames == 5
    assert (row.interval.low, row.interval.high) == (1.0, 3.0)


def test_a_clip_without_any_face_is_counted_as_missing() -> None:
    (row,) = score_table([_scores(CROSS, [1.0]), _scores(CROSS, [math.nan, math.nan])])
    assert (row.interval.mean, row.interval.clips, row.interval.missing, row.missing) == (1.0, 1, 1, 2)


def test_tables_do_not_mix_the_two_protocols_and_are_not_empty() -> None:
    with pytest.raises(DataError, match="cannot share a table"):
        score_table([_scores(SAME, [1.0]), _scores(CROSS, [1.0])])
    with pytest.raises(DataError, match="no clip was scored"):
        score_table([])


def test_the_csv_has_one_line_per_frame_and_empty_cells_for_missing_values(tmp_path: Path) -> None:
    write_frames_csv(tmp_path / "f.csv", [_scores(CROSS, [0.5, math.nan])])
    rows = list(csv.DictReader((tmp_path / "f.csv").open()))
    assert [(r["kind"], r["driving_clip"], r["frame"], r["aed"]) for r in rows] == [
        ("cross", "b", "0", "0.5"),
        ("cross", "b", "1", ""),
    ]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"f\.csv: cannot be written"):
        write_frames_csv(tmp_path / "gone" / "f.csv", [])
