"""Tests of the regressor's training on the procedural head: geometry of crops, disturbance, learning, its command."""

import json

import numpy as np
import pytest
import torch

from export3d.camera import Camera, rotation_angle_deg
from export3d.cli import main
from export3d.fitting.crops import fit_points_alignment, fold_crop
from export3d.fitting.regressor import (
    make_regressor,
    measure,
    train_regressor,
)
from export3d.fitting.samples import (
    RegressorTraining,
    Samples,
    TrackerErrors,
    disturb,
    draw_samples,
)
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.shape.procedural import procedural_head
from export3d.tracking.alignment import EG3D_ALIGNMENT, crop_squares
from export3d.tracking.regressor import LandmarkRegressor, RegressorConfig, pose_from_camera

QUIET = RegressorTraining(noise_px=(0.0, 0.0), face_offset_px=0.0, missing_share=0.0, aligned_share=1.0)


@pytest.fixture(scope="module")
def extractor() -> LinearExtractor:
    return LinearExtractor.build(procedural_head(), ExtractorConfig(statistics_identities=20, statistics_frames=6))


@pytest.fixture(scope="module")
def samples(extractor) -> Samples:
    return draw_samples(procedural_head(), extractor, range(40), 8)


def test_samples_are_a_function_of_their_seeds(extractor, samples):
    again = draw_samples(procedural_head(), extractor, range(2, 4), 8)
    assert torch.equal(again.points, samples.points[16:32])
    assert torch.equal(again.beta, samples.beta[16:32])
    assert torch.equal(again.camera.to_vector(), samples.camera.to_vector()[16:32])
    assert samples.beta.shape == (320, 64) and samples.landmarks.shape == (320, 68, 2)


def test_the_noisy_fit_scatters_around_the_exact_one(extractor, samples):
    noisy = draw_samples(procedural_head(), extractor, range(40), 8, noisy_fit=True)
    assert torch.equal(noisy.points, samples.points)
    difference = noisy.beta - samples.beta
    assert 0.01 < float(difference.std()) < 2.0
    assert float(difference.mean().abs()) < 0.05


def test_the_fitted_alignment_leaves_the_frames_of_the_clips_as_they_are(samples):
    squares = crop_squares(samples.landmarks.numpy(), fit_points_alignment(samples.landmarks.numpy()))
    assert np.abs(squares.mean(axis=0) - [0.5, 0.5, 1.0]).max() < 0.02
    # EG3D's own alignment does not: it shows the face larger and puts another point at the centre.
    assert crop_squares(samples.landmarks.numpy(), EG3D_ALIGNMENT)[:, 2].mean() < 0.95


def test_the_fitted_alignment_follows_the_head_when_it_turns(samples):
    squares = torch.from_numpy(crop_squares(samples.landmarks.numpy(), fit_points_alignment(samples.landmarks.numpy())))
    centre = pose_from_camera(samples.camera)[:, 6:8] / 2.7 * samples.camera.intrinsics[:, 0, 0, None] + 0.5
    # The crop's centre is where the world origin is seen, at any yaw, up to the shape of the face.
    assert float((squares[:, :2] - centre).abs().mean()) < 0.02


def test_folding_reprojects_the_crop_within_a_fraction_of_a_pixel(samples):
    rng = np.random.default_rng(0)
    squares = torch.from_numpy(np.array([0.5, 0.5, 1.0]) + rng.normal(size=(320, 3)) * [0.06, 0.06, 0.08]).float()
    folded = fold_crop(samples.camera, squares, samples.points)
    wanted = (samples.landmarks - squares[:, None, :2]) / squares[:, None, 2:] + 0.5
    error = (folded.project(samples.points)[0] - wanted).norm(dim=-1) * 256.0
    assert float(error.mean()) < 0.3 and float(error.max()) < 2.0
    assert torch.equal(folded.intrinsics, samples.camera.intrinsics)


def test_folding_the_whole_picture_changes_nothing(samples):
    whole = torch.tensor([0.5, 0.5, 1.0]).expand(len(samples), 3)
    folded = fold_crop(samples.camera, whole, samples.points)
    assert torch.allclose(folded.to_vector(), samples.camera.to_vector(), atol=1e-3)


def test_a_crop_of_half_the_side_halves_the_distance(samples):
    half = torch.tensor([0.5, 0.5, 0.5]).expand(len(samples), 3)
    folded = fold_crop(samples.camera, half, samples.points)
    ratio = pose_from_camera(folded)[:, 8] / pose_from_camera(samples.camera)[:, 8]
    assert float((ratio - 0.5).abs().max()) < 0.03
    assert float(rotation_angle_deg(folded, samples.camera).max()) < 0.05


def test_a_shifted_crop_turns_the_camera_by_the_angle_of_the_shift(samples):
    # 0.05 of the picture at focal length 4.2647 is atan(0.05 / 4.2647) = 0.672 degrees.
    shifted = torch.tensor([0.55, 0.5, 1.0]).expand(len(samples), 3)
    angle = rotation_angle_deg(fold_crop(samples.camera, shifted, samples.points), samples.camera)
    assert torch.allclose(angle, torch.full_like(angle, 0.672), atol=0.02)


def test_undisturbed_views_agree_with_their_cameras(samples):
    for share in (0.0, 1.0):
        settings = RegressorTraining(noise_px=(0.0, 0.0), face_offset_px=0.0, missing_share=0.0, aligned_share=share)
        views = disturb(samples, fit_points_alignment(samples.landmarks.numpy()), settings, np.random.default_rng(0))
        error = (views.camera.project(samples.points)[0] - views.landmarks).norm(dim=-1) * 256.0
        assert float(error.mean()) < 0.3
        assert (views.present == 1).all()


def test_noise_and_missing_points_are_as_asked(samples):
    settings = RegressorTraining(noise_px=(1.5, 1.5), face_offset_px=0.0, missing_share=1.0, aligned_share=0.0)
    views = disturb(samples, EG3D_ALIGNMENT, settings, np.random.default_rng(0))
    noise = (views.landmarks - samples.landmarks) * 256.0
    assert float(noise.std()) == pytest.approx(1.5, rel=0.02)
    assert float(views.present.mean()) == pytest.approx(0.8, abs=0.02)  # shares uniform in 0..0.4


def test_tracker_errors_are_drawn_at_about_the_same_yaw():
    yaw = np.linspace(-0.6, 0.6, 200)
    errors = np.broadcast_to(yaw[:, None, None], (200, 68, 2))  # the error tells its own yaw
    tracker = TrackerErrors(yaw, np.array(errors), EG3D_ALIGNMENT, np.zeros((68, 2), np.float32))
    asked = np.array([-2.0, -0.3, 0.0, 0.45, 2.0])
    drawn = tracker.draw(asked, np.random.default_rng(0))[:, 0, 0]
    assert np.abs(drawn - np.clip(asked, -0.6, 0.6)).max() < 0.05


def test_a_tracker_with_a_constant_error_is_undone_by_its_offsets(samples):
    shift = np.random.default_rng(5).normal(size=(68, 2)) * 2.0 / 256.0
    found = samples.landmarks.numpy() + shift
    alignment = fit_points_alignment(found)
    squares = crop_squares(found, alignment)
    offsets = (shift[None] / squares[:, None, 2:]).mean(axis=0).astype(np.float32)
    yaw = samples.camera.head_angles()[:, 0].numpy()
    tracker = TrackerErrors(np.sort(yaw), np.tile(shift, (len(yaw), 1, 1)), alignment, offsets)
    settings = RegressorTraining(
        noise_px=(0.0, 0.0), face_offset_px=0.0, missing_share=0.0, aligned_share=1.0, tracker_share=1.0
    )
    views = disturb(samples, EG3D_ALIGNMENT, settings, np.random.default_rng(0), tracker)
    error = (views.camera.project(samples.points)[0] - views.landmarks).norm(dim=-1) * 256.0
    assert float(error.mean()) < 0.6


def test_the_network_learns_the_camera_and_the_expression(extractor, samples):
    alignment = fit_points_alignment(samples.landmarks.numpy())
    settings = RegressorTraining(epochs=40, batch=64, missing_share=0.0, noise_px=(0.0, 0.5), face_offset_px=0.0)
    losses = []
    net = train_regressor(
        samples, RegressorConfig(hidden=64, alignment=alignment), settings, progress=lambda *step: losses.append(step)
    )
    assert [step[0] for step in losses] == list(range(1, 41)) and losses[-1][2] < 0.5 * losses[0][2]
    unseen = draw_samples(procedural_head(), extractor, range(1000, 1010), 8)
    errors = measure(make_regressor(net, {}), unseen, 0.0, aligned=True)
    spread = rotation_angle_deg(unseen.camera, Camera.look_at_head(torch.zeros(len(unseen))))
    assert errors.angle_error_deg_mean < 0.3 * float(spread.mean())
    assert errors.beta_r2_per_mode[0] > 0.1  # few heads: little carries over to others
    assert errors.distance_mean == pytest.approx(2.7, abs=0.15)


def test_training_twice_gives_the_same_network(samples):
    settings = RegressorTraining(epochs=2, batch=64)
    config = RegressorConfig(hidden=8, alignment=EG3D_ALIGNMENT)
    first, second = (train_regressor(samples, config, settings) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        RegressorTraining(epochs=0)


def test_the_command_writes_a_regressor_and_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    output, report = tmp_path / "r.safetensors", tmp_path / "r.json"
    arguments = ["train-regressor", "-o", str(output), "--report", str(report), "--identities", "12", "--frames", "4"]
    assert main([*arguments, "--epochs", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: beta R2")
    results = json.loads(report.read_text())
    assert results["sha256"] == LandmarkRegressor.load(output).info.sha256
    rows = results["held_out"]["rows"]
    assert len(rows) == 6 and len(rows[0]["beta_r2_per_mode"]) == 64 and rows[0]["angle_error_deg_mean"] > 0.0


@pytest.mark.parametrize(
    ("output", "code", "text"), [("r.txt", 2, "must end in .safetensors"), ("no/r.safetensors", 30, "does not exist")]
)
def test_the_command_refuses_bad_outputs_before_it_works(tmp_path, capsys, output, code, text):
    assert main(["train-regressor", "-o", str(tmp_path / output)]) == code
    assert text in capsys.readouterr().err.replace("\n", " ")
