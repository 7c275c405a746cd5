"""`export3d evaluate` on clips of the procedural head: tables, baselines, frames from elsewhere, resuming, exact truth."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.cli import main
from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.evaluation.metrics.backends import FaceMeasures, RememberedFaces, TrackerBackend
from export3d.evaluation.metrics.truth import ClipTruth, read_truth, score_truth
from export3d.evaluation.scores.protocol import Pair, write_pairs
from export3d.evaluation.scores.run import choose_pairs
from export3d.evaluation.scores.scoring import ClipScores
from export3d.evaluation.scores.tables import make_tables
from export3d.model import PRESETS, Export3D
from export3d.portrait import save_model
from export3d.tracking import Tracker
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, Export3D(PRESETS["tiny"]))
    return path


@pytest.fixture(scope="module")
def done(clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with saved frames and without face metrics; tests do not change it."""
    folder = tmp_path_factory.mktemp("done")
    arguments = ["--data", str(clips), "--model", str(model), "--landmarks", "none", "--save-frames"]
    assert main(["evaluate", *arguments, "-o", str(folder)]) == 0
    return folder


def _table(folder: Path) -> dict:
    return json.loads((folder / "table.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def _mean(folder: Path, kind: str, method: str, metric: str) -> float:
    (row,) = [r for r in _table(folder)["tables"][kind][method] if r["metric"] == metric]
    return float(row["interval"]["mean"])


def test_every_table_holds_the_model_and_the_trivial_baselines(done: Path) -> None:
    content = _table(done)
    assert content["format"] == "export3d-evaluation"
    for kind in ("same", "cross"):
        assert list(content["tables"][kind]) == ["model", "copy_source", "mean_face", "driving"]
    assert content["facts"]["pairs"] == {"same": 2, "cross": 2}
    assert content["facts"]["maker"]["sha256"] and content["facts"]["versions"]["torch"]
    text = (done / "table.md").read_text()
    assert "## Same identity (2 pairs)" in text and "PSNR (dB) ↑" in text and "none: no metric of faces" in text


def test_the_driving_frames_are_the_upper_bound_and_a_copy_is_not(done: Path) -> None:
    assert _mean(done, "same", "driving", "psnr") == math.inf
    assert _mean(done, "same", "driving", "ssim_gaussian") == pytest.approx(1.0)
    assert math.isfinite(_mean(done, "same", "copy_source", "psnr"))  # its own source frame is left out
    assert _mean(done, "cross", "copy_source", "flicker") == 0.0
    assert _mean(done, "cross", "driving", "flicker_excess") == 0.0


def test_the_csv_has_a_line_for_each_method_and_frame(done: Path) -> None:
    rows = list(csv.DictReader((done / "frames.csv").open()))
    assert len(rows) == 4 * 4 * 3  # methods x pairs x frames
    copied = [
        r for r in rows if r["method"] == "copy_source" and r["kind"] == "same" and r["frame"] == r["source_frame"]
    ]
    assert [r["psnr"] for r in copied] == ["inf", "inf"]


def test_two_views_are_compared_for_the_model_alone(done: Path) -> None:
    tables = _table(done)["tables"]
    for kind in ("same", "cross"):
        for method, rows in tables[kind].items():
            names = {row["metric"] for row in rows}
            assert {"view_error", "view_shared"} <= names if method == "model" else not {"view_error"} & names
    assert 0.0 <= _mean(done, "same", "model", "view_shared") <= 1.0
    assert "Two views, part seen by both" in (done / "table.md").read_text()


def test_depth_is_scored_for_the_model_in_same_identity_only(done: Path) -> None:
    metrics = {k: {r["metric"] for r in m["model"]} for k, m in _table(done)["tables"].items()}
    assert "depth_error" in metrics["same"] and "depth_error" not in metrics["cross"]
    assert "psnr" not in metrics["cross"]


def test_saved_frames_scored_as_predictions_give_the_models_scores(clips: Path, done: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(clips), "--landmarks", "none", "--predictions", str(done / "frames")]
    assert main(["evaluate", *arguments, "-o", str(tmp_path)]) == 0
    assert "predictions" in _table(tmp_path)["tables"]["same"]
    assert "view_error" not in {row["metric"] for row in _table(tmp_path)["tables"]["same"]["predictions"]}
    for metric in ("psnr", "ssim_uniform"):
        assert _mean(tmp_path, "same", "predictions", metric) == pytest.approx(_mean(done, "same", "model", metric))


def _white_frames(root: Path, clips: Path, protocol: str) -> None:
    dataset = ClipDataset(clips)
    white = Image.fromarray(np.full((32, 32, 3), 255, np.uint8))
    for pair in choose_pairs(dataset, protocol):  # type: ignore[arg-type]
        name = pair.source_clip if pair.kind == "same" else f"{pair.source_clip}--by--{pair.driving_clip}"
        (root / pair.kind / name).mkdir(parents=True)
        for t in range(3):
            white.save(root / pair.kind / name / f"{t:06d}.png")


def test_missing_and_surplus_predictions_are_named_with_the_exit_code_of_bad_data(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "p"
    _white_frames(root, clips, "same")
    first, second = sorted((root / "same").iterdir())
    (first / "000001.png").unlink()
    (second / "000003.png").write_bytes(b"")
    arguments = ["evaluate", "--data", str(clips), "--predictions", str(root), "--protocol", "same"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 24
    message = capsys.readouterr().err
    assert f"1 missing: same/{first.name}/000001.png" in message
    assert f"1 too many: same/{second.name}/000003.png" in message
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_goes_on_and_changed_frames_are_scored_again(clips: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "p", tmp_path / "out"
    _white_frames(root, clips, "both")
    arguments = ["evaluate", "--data", str(clips), "--predictions", str(root), "--landmarks", "none", "-o", str(out)]
    assert main([*arguments, "--protocol", "same"]) == 0
    before = _mean(out, "same", "predictions", "psnr")
    assert main([*arguments, "--protocol", "both"]) == 0
    assert _table(out)["facts"]["times"]["pairs_taken_from_an_earlier_run"] == 2
    folder = sorted((root / "same").iterdir())[0]
    for path in folder.iterdir():
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
    assert main(arguments) == 0
    assert _table(out)["facts"]["times"]["pairs_taken_from_an_earlier_run"] == 3
    assert _mean(out, "same", "predictions", "psnr") != before


def test_a_folder_with_other_settings_is_refused(
    clips: Path, done: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (done / "table.json").read_bytes()
    arguments = ["evaluate", "--data", str(clips), "--model", str(model), "--landmarks", "none", "-o", str(done)]
    assert main([*arguments, "--seed", "5"]) == 30
    assert "results of other settings (different: seed)" in " ".join(capsys.readouterr().err.split())
    assert (done / "table.json").read_bytes() == before


def test_a_short_run_with_the_real_tracker_counts_frames_without_a_face(
    clips: Path, model: Path, tmp_path: Path
) -> None:
    """The smoke run: one pair of each kind, MediaPipe, the bundled networks where they are there."""
    pytest.importorskip("mediapipe")
    arguments = ["evaluate", "--data", str(clips), "--model", str(model), "--clips", "1", "--identity", "none"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    (row,) = [r for r in _table(tmp_path)["tables"]["same"]["model"] if r["metric"] == "aed"]
    assert row["frames"] + row["missing"] == 2  # three frames, the source left out
    backends = _table(tmp_path)["facts"]["backends"]
    assert backends["landmarks (AKD)"]["name"].startswith("mediapipe")
    assert len(backends["expression and pose (AED, APD)"]["sha256"]) == 64


def test_model_and_predictions_together_and_unknown_networks_are_usage_errors(clips: Path, tmp_path: Path) -> None:
    base = ["evaluate", "--data", str(clips), "-o", str(tmp_path / "o")]
    assert main([*base, "--model", "m.safetensors", "--predictions", "p"]) == 2
    assert main([*base, "--clips", "0"]) == 2
    assert main([*base, "--predictions", str(tmp_path), "--landmarks", "none", "--identity", "x.onnx"]) == 24


def test_fixed_pairs_are_taken_from_their_file_and_twins_are_refused(clips: Path, tmp_path: Path) -> None:
    dataset = ClipDataset(clips)
    a, b = dataset.keys
    pairs = [Pair(kind="cross", source_clip=b, source_frame=2, driving_clip=a)]
    write_pairs(tmp_path / "p.json", pairs)
    assert choose_pairs(dataset, "both", pairs_file=tmp_path / "p.json") == pairs
    with pytest.raises(DataError, match="no pair of protocol 'same'"):
        choose_pairs(dataset, "same", pairs_file=tmp_path / "p.json")
    write_pairs(tmp_path / "p.json", [*pairs, Pair(kind="cross", source_clip=b, source_frame=0, driving_clip=a)])
    with pytest.raises(DataError, match="list each pair of clips once"):
        choose_pairs(dataset, "both", pairs_file=tmp_path / "p.json")


def test_the_pairs_can_be_had_without_a_model(clips: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "--data", str(clips), "--pairs-only", "-o", str(tmp_path / "r")]) == 0
    stored = json.loads((tmp_path / "r" / "pairs.json").read_text())["pairs"]
    assert [pair["kind"] for pair in stored] == ["same", "same", "cross", "cross"]
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["pairs.json"]


def test_the_source_frame_is_left_out_of_the_same_identity_mean() -> None:
    pair = Pair(kind="same", source_clip="a", source_frame=1, driving_clip="a")
    tables = make_tables([ClipScores(pair=pair, values={"psnr": np.array([10.0, math.inf, 20.0])})])
    assert tables["same"]["model"][0].interval.mean == 15.0
    with pytest.raises(DataError, match="no clip was scored"):
        make_tables([])


def _truth(frames: int = 2) -> ClipTruth:
    camera = Camera.look_at_head(torch.tensor([0.2, -0.1][:frames]), 0.1, -0.05).to_vector().numpy()
    depth = np.zeros((frames, 8, 8), np.float32)
    depth[:, 2:6, 2:6] = 2.5
    return ClipTruth(camera=camera, beta=np.ones((frames, 64)), expression_space="ict64", depth=depth)


def test_errors_against_the_truth_are_the_known_ones() -> None:
    pose = np.zeros((2, 6))
    pose[:, :3] = [[0.2, 0.1, -0.05], [-0.1 + math.radians(7), 0.1, -0.05]]
    measured = FaceMeasures(landmarks=np.zeros((2, 68, 2)), expression=np.full((2, 64), 1.25), pose=pose)
    depth = np.full((2, 8, 8), 2.6, np.float32)
    values = score_truth(_truth(), measured=measured, expression_space="ict64", depth=depth, same_identity=True)
    assert values["depth_error"] == pytest.approx([0.1, 0.1], abs=1e-6)  # outside the head nothing counts
    assert values["camera_angle_error"] == pytest.approx([0.0, 7.0], abs=1e-4)  # yaw alone: the angle itself
    assert values["expression_error"] == pytest.approx([0.25, 0.25])


def test_truth_that_does_not_apply_is_left_out_and_lost_faces_have_no_value() -> None:
    lost = FaceMeasures(
        landmarks=np.full((2, 68, 2), np.nan), expression=np.full((2, 64), np.nan), pose=np.full((2, 6), np.nan)
    )
    values = score_truth(_truth(), measured=lost, expression_space="bfm64", depth=_truth().depth, same_identity=False)
    assert list(values) == ["camera_angle_error"]
    assert np.isnan(values["camera_angle_error"]).all()


def test_the_stored_depth_is_the_truth_of_its_own_clip(clips: Path) -> None:
    truth = read_truth(ClipDataset(clips), 0)
    assert truth is not None and truth.beta.shape == (3, 64)
    values = score_truth(truth, measured=None, expression_space="", depth=truth.depth, same_identity=True)
    assert values["depth_error"].tolist() == [0.0, 0.0, 0.0]


def test_the_same_frames_are_looked_at_once_and_still_clips_in_one_frame() -> None:
    class Counting(GivenLandmarks):
        looks = 0

        def detect(self, frame: np.ndarray, near: object = None) -> list:
            Counting.looks += 1
            return super().detect(frame)

    points = np.random.default_rng(0).uniform(8, 24, (68, 2))
    faces = RememberedFaces(TrackerBackend(Tracker(Counting([[points]]), MeasuredCoefficients())))
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    first = faces.measure(frames)
    assert faces.measure(frames.copy()) is first and Counting.looks == 3
    still = faces.measure(np.repeat(frames[:1], 5, axis=0))
    assert Counting.looks == 4 and still.landmarks.shape == (5, 68, 2)
    assert still.landmarks[4] == pytest.approx(points * 8, rel=1e-5)  # 32 -> 256 pixels
    assert isinstance(faces.info, ExtractorInfo)
