"""Tests of the gaze map's fit on made-up detections: what the scores mean is found again; the command's errors."""

import json
from dataclasses import replace

import numpy as np
import pytest

from export3d.camera import Camera
from export3d.cli import main
from export3d.errors import DataError
from export3d.fitting.detections import Detections
from export3d.fitting.gaze import build_gaze_map, fit_gaze_map, measure_gaze
from export3d.fitting.options import FitOptions
from export3d.heads.clips.motion import expression_weights, gaze_to_weights
from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.tracking.gaze import GazeMap

PEOPLE, FRAMES = 5, 40
COUNT = PEOPLE * FRAMES


def made_up(gaze: np.ndarray, seed: int = 0, *, closed: bool = False) -> Detections:
    """Eye scores of 1.5 per radian that the eyes look that way, each from 0 on, and a little noise."""
    rng = np.random.default_rng(seed)
    place = {name: index for index, name in enumerate(BLENDSHAPE_NAMES)}
    scores = rng.uniform(0.0, 1e-4, (len(gaze), 52))
    for side, out in (("Left", 1.0), ("Right", -1.0)):
        scores[:, place[f"eyeLookOut{side}"]] += np.clip(1.5 * out * gaze[:, 0], 0.0, None)
        scores[:, place[f"eyeLookIn{side}"]] += np.clip(-1.5 * out * gaze[:, 0], 0.0, None)
        scores[:, place[f"eyeLookUp{side}"]] += np.clip(1.5 * gaze[:, 1], 0.0, None)
        scores[:, place[f"eyeLookDown{side}"]] += np.clip(-1.5 * gaze[:, 1], 0.0, None)
        scores[:, place[f"eyeBlink{side}"]] += 0.9 * closed
    weights = np.zeros((len(gaze), 53), np.float32)
    for name, values in gaze_to_weights(gaze).items():
        weights += np.outer(values, expression_weights({name: 1.0})).astype(np.float32)
    camera = Camera.look_at_head(0.0).to_vector().numpy().repeat(len(gaze), axis=0)
    points = np.zeros((len(gaze), 68, 2), np.float32)
    return Detections(
        found_landmarks=points,
        mesh=np.zeros((0, 478, 3), np.float32),
        scores=scores.astype(np.float32),
        true_landmarks=points,
        true_camera=camera,
        true_beta=np.zeros((len(gaze), 64), np.float32),
        true_weights=weights,
        asked_yaw=np.zeros(len(gaze), np.float32),
        found=np.ones(len(gaze), bool),
        clip=np.arange(len(gaze), dtype=np.int64) // FRAMES,
    )


@pytest.fixture(scope="module")
def gaze() -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.4, 0.4, (COUNT, 2))


def test_the_fit_finds_what_the_scores_mean(gaze):
    found = fit_gaze_map(made_up(gaze), ridge=1e-6)
    others = np.random.default_rng(2).uniform(-0.4, 0.4, (COUNT, 2))
    rows = measure_gaze(found, made_up(others, seed=3), np.zeros((COUNT, 2)))
    assert [row["gaze"] for row in rows] == ["sideways", "up and down"]
    for row in rows:
        assert row["r2"] > 0.95 and row["r2_within_clips"] > 0.95 and row["slope"] == pytest.approx(1.0, abs=0.05)
        # What always says 0 explains nothing, up to the mean of the sample.
        assert row["r2_of_head_pose_alone"] == pytest.approx(0.0, abs=0.02)


def test_a_ridge_shrinks_the_answers_towards_the_mean(gaze):
    seen = made_up(gaze)
    mean = np.array([0.0, gaze[:, 1].mean()])
    free, held = (fit_gaze_map(seen, ridge) for ridge in (1e-6, 1e3))
    far, near = (np.abs([fitted.read(row) - mean for row in seen.scores[:20]]).mean() for fitted in (free, held))
    assert far > 0.1 and near < 0.05 * far


def test_frames_with_closed_eyes_alone_are_refused(gaze):
    with pytest.raises(DataError, match="no rendered frame has open eyes"):
        fit_gaze_map(made_up(gaze, closed=True))


def test_the_report_holds_command_date_and_what_was_measured(answers, tmp_path, named, gaze):
    answers["a"] = made_up(gaze)
    output, report = tmp_path / "g.safetensors", tmp_path / "g.json"
    options = FitOptions(output=output, data=(tmp_path / "a",), report=report)
    line = build_gaze_map(options, command="export3d x", tracker=named)
    facts = json.loads(report.read_text())
    assert facts["command"] == "export3d x" and len(facts["date"]) == 10
    # every fifth of five people is kept to measure on
    assert (facts["fitted_to"]["people"], facts["measured_on"]["people"], facts["measured_on"]["frames"]) == (4, 1, 40)
    assert facts["rows"][0]["r2"] > 0.9
    assert f"sideways {facts['rows'][0]['r2']:.3f}" in line and np.isfinite(GazeMap.load(output).weight).all()


def test_a_tracker_without_scores_is_refused(answers, tmp_path, named, gaze):
    answers["a"] = replace(made_up(gaze), scores=np.zeros((0, 52), np.float32))
    options = FitOptions(output=tmp_path / "g.safetensors", data=(tmp_path / "a",), test_data=tmp_path / "a")
    with pytest.raises(DataError, match="'given' gives no expression scores"):
        build_gaze_map(options, tracker=named)


@pytest.mark.parametrize("command", ["train-gaze", "train-mouth", "train-camera"])
@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["-o", "g.json", "--data", "a"], 2, "must end in .safetensors"),
        (["-o", "missing/g.safetensors", "--data", "a"], 30, "does not exist"),
        (["-o", "g.safetensors", "--data", "a", "--report", "r.txt"], 2, "must end in .json"),
        (["-o", "g.safetensors", "--data", "a", "--detections", "missing"], 30, "no such folder"),
    ],
)
def test_bad_options_are_refused_before_the_work(tmp_path, monkeypatch, capsys, command, options, code, text):
    monkeypatch.chdir(tmp_path)
    assert main([command, *options]) == code
    assert text in capsys.readouterr().err
