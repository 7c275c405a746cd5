"""Tests of the fit of the mouth's map on made-up detections: changes count, levels do not; the report; what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from export3d.camera import Camera
from export3d.errors import DataError
from export3d.fitting.detections import Detections
from export3d.fitting.mouth import build_mouth_map, fit_mouth_map
from export3d.fitting.options import FitOptions
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.mouth import MOUTH_WEIGHTS, facing_front, mouth_features

PEOPLE, FRAMES = 10, 20
JAW = EXPRESSION_NAMES.index("jawOpen")
LOWER = (14, 17, 152, 178, 402)
DOWN = 0.08  # scene units at a weight of 1


def made_up(seed: int, *, chins: float = 0.0) -> Detections:
    """Heads whose lower lips and chins go down with the jaw; each person's are lower by up to `chins`."""
    rng = np.random.default_rng(seed)
    clip = np.arange(PEOPLE * FRAMES, dtype=np.int64) // FRAMES
    weights = np.zeros((len(clip), len(EXPRESSION_NAMES)), np.float32)
    weights[:, JAW] = rng.uniform(0.0, 1.0, len(clip))
    mesh = np.repeat(HeadFit.load().template[None] * np.array([1.0, -1.0, -1.0], np.float32), len(clip), axis=0)
    low = DOWN * weights[:, JAW] + rng.uniform(0.0, chins, PEOPLE)[clip] if chins else DOWN * weights[:, JAW]
    mesh[:, list(LOWER), 1] += low[:, None].astype(np.float32)
    points = np.zeros((len(clip), 68, 2), np.float32)
    return Detections(
        found_landmarks=points,
        mesh=mesh.astype(np.float32),
        scores=np.zeros((len(clip), 52), np.float32),
        true_landmarks=points,
        true_camera=Camera.look_at_head(0.0).to_vector().numpy().repeat(len(clip), axis=0),
        true_beta=np.zeros((len(clip), 64), np.float32),
        true_weights=weights,
        asked_yaw=np.zeros(len(clip), np.float32),
        found=np.ones(len(clip), bool),
        clip=clip,
    )


@pytest.mark.parametrize("chins", [0.0, 0.1])
def test_the_change_of_a_jaw_is_found_whatever_chins_people_have(chins):
    mouth, others = fit_mouth_map(made_up(0, chins=chins)), made_up(1)
    told = mouth_features(facing_front(others.mesh), others.scores) @ mouth.weight + mouth.bias
    jaw, truth = told[:, MOUTH_WEIGHTS.index("jawOpen")], others.true_weights[:, JAW]
    assert np.polyfit(truth, jaw, 1)[0] == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(truth, jaw)[0, 1] > 0.99
    assert np.abs(told[:, MOUTH_WEIGHTS.index("mouthPucker")]).max() < 0.01  # nobody puckers


def test_a_ridge_shrinks_what_is_read():
    others = made_up(1)
    free, held = (
        (mouth_features(facing_front(others.mesh), others.scores) @ fit_mouth_map(made_up(0), ridge).weight)
        .std(axis=0)
        .max()
        for ridge in (1e-6, 1e3)
    )
    assert free > 0.2 and held < 0.2 * free


def test_the_report_holds_command_date_and_what_was_measured(answers, tmp_path, named):
    answers["a"] = made_up(0)
    output, report = tmp_path / "m.safetensors", tmp_path / "m.json"
    options = FitOptions(output=output, data=(tmp_path / "a",), report=report)
    line = build_mouth_map(options, command="export3d x", tracker=named)
    facts = json.loads(report.read_text())
    assert facts["command"] == "export3d x" and len(facts["date"]) == 10
    assert (facts["fitted_to"]["people"], facts["measured_on"]["people"]) == (8, 2)
    rows = {row["weight"]: row for row in facts["rows"]}
    assert tuple(rows) == MOUTH_WEIGHTS and rows["jawOpen"]["r2_within_clips"] > 0.95
    assert f"jawOpen {rows['jawOpen']['r2_within_clips']:.3f}" in line and output.exists()


@pytest.mark.parametrize("missing", ["mesh", "scores"])
def test_a_tracker_without_mesh_or_scores_is_refused(answers, tmp_path, named, missing):
    seen = made_up(0)
    answers["a"] = replace(seen, **{missing: getattr(seen, missing)[:0]})
    options = FitOptions(output=tmp_path / "m.safetensors", data=(tmp_path / "a",), test_data=tmp_path / "a")
    with pytest.raises(DataError, match="'given' gives no mesh or no expression scores"):
        build_mouth_map(options, tracker=named)
