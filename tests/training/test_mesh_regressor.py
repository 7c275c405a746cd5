"""Tests of the mesh network's training: mirror, gain, detections and their file, plain quantities, the whole command."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.cli import main
from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.fitting.detections import Detections, detect_or_load, detect_rendered, joined, origin_of
from export3d.fitting.mesh_regressor import (
    MeshSamples,
    MeshTraining,
    calibrated_gain,
    mesh_samples,
    mirror_indices,
    mirrored_samples,
    train_mesh,
    within,
)
from export3d.fitting.options import RegressorOptions
from export3d.fitting.regressor_build import build_regressor
from export3d.fitting.regressor_report import QUANTITIES, fit_probe, quantities, read
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.heads.shape.procedural import procedural_head
from export3d.tracking.faces import ExtractorInfo, Face
from export3d.tracking.mesh_regressor import MeshConfig
from export3d.tracking.regressor import LandmarkRegressor, pose_from_camera
from export3d.tracking.standin import face_from_landmarks

SIZE = 16
FRAMES = 4


class ExactTracker:
    """Answers with a clip's exact points, and a mesh made of them, in the order of the data set's frames."""

    def __init__(self, dataset: ClipDataset, *, lost: tuple[int, ...] = (), mesh: bool = True) -> None:
        self.info = ExtractorInfo("exact", "1", "", "")
        arrays = [dataset.arrays(i)["landmarks"] for i in range(len(dataset))]
        self._points = np.concatenate(arrays) * dataset.size
        self._lost, self._mesh, self.calls = lost, mesh, 0

    def detect(self, frame: np.ndarray, near: Face | None = None) -> list[Face]:
        number, self.calls = self.calls, self.calls + 1
        if number in self._lost:
            return []
        points = self._points[number].astype(np.float32)
        mesh = np.concatenate([points[np.arange(478) % 68], (np.arange(478)[:, None] % 68) * 0.05], axis=1)
        return [replace(face_from_landmarks(points), mesh=mesh.astype(np.float32) if self._mesh else None)]

    def reset(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rendered") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)  # the procedural head, wherever the tests run
        render_clips(path, ClipsConfig(identities=5, frames=FRAMES, size=SIZE, supersample=1))
    return path


@pytest.fixture(scope="module")
def dataset(folder):
    return ClipDataset(folder)


@pytest.fixture(scope="module")
def detections(dataset):
    return detect_rendered(dataset, ExactTracker(dataset))


def test_detections_are_the_trackers_points_beside_the_truth(dataset, detections):
    assert len(detections.clip) == 5 * FRAMES and detections.has_mesh and detections.found.all()
    assert np.allclose(detections.found_landmarks, detections.true_landmarks, atol=1e-5)
    assert np.allclose(detections.mesh[:, :68, :2], detections.true_landmarks, atol=1e-5)
    assert np.array_equal(detections.true_weights[FRAMES : 2 * FRAMES], dataset.arrays(1)["weights"])
    assert list(detections.part(held_out=True).clip) == [0] * FRAMES
    assert set(detections.part(held_out=False).clip) == {1, 2, 3, 4}


def test_frames_without_a_face_are_counted_but_not_kept(dataset):
    seen = detect_rendered(dataset, ExactTracker(dataset, lost=(2, 5)))
    assert len(seen.found) == 5 * FRAMES and len(seen.clip) == 5 * FRAMES - 2
    assert list(np.nonzero(~seen.found)[0]) == [2, 5]
    with pytest.raises(DataError, match="found no face in any"):
        detect_rendered(dataset, ExactTracker(dataset, lost=tuple(range(5 * FRAMES))))


def test_people_of_two_data_sets_keep_apart(detections):
    both = joined([detections, detections])
    assert len(np.unique(both.clip)) == 10 and len(both.mesh) == 2 * len(detections.mesh)
    without = replace(detections, mesh=detections.mesh[:0])
    assert not joined([detections, without]).has_mesh


def test_detections_are_read_from_their_file_the_second_time(dataset, tmp_path):
    first, second = ExactTracker(dataset), ExactTracker(dataset)
    made = detect_or_load(dataset, first, tmp_path)
    back = detect_or_load(dataset, second, tmp_path)
    assert first.calls == 5 * FRAMES and second.calls == 0
    assert all(np.array_equal(getattr(made, f.name), getattr(back, f.name)) for f in fields(Detections))


def test_files_of_other_detections_are_refused(dataset, detections, tmp_path):
    path = tmp_path / "d.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        Detections.load(path, "a")
    detections.save(path, "a")
    with pytest.raises(DataError, match="other clips or by another tracker"):
        Detections.load(path, "b")
    tracker = ExactTracker(dataset)
    origin = origin_of(dataset, tracker)
    tracker.info = replace(tracker.info, version="2")
    assert origin_of(dataset, tracker) != origin


def test_the_samples_answer_for_the_crop_of_the_found_points(dataset, detections):
    from export3d.fitting.crops import fit_points_alignment

    extractor = LinearExtractor.load(dataset.folder / "extractor.safetensors")
    samples = mesh_samples(detections, extractor, fit_points_alignment(detections.found_landmarks))
    cameras = Camera.from_vector(torch.from_numpy(detections.true_camera))
    points = extractor.fitted_points(torch.from_numpy(detections.true_landmarks), cameras)
    from export3d.tracking.regressor import camera_from_pose

    seen = camera_from_pose(samples.pose).project(points)[0]
    # The fit comes within a pixel of 256 of the exact points, and the fold adds a fraction.
    assert float((seen - samples.mesh[:, :68, :2]).norm(dim=-1).mean()) * 256.0 < 2.0
    assert torch.equal(samples.beta, extractor.fit(torch.from_numpy(detections.true_landmarks), cameras))


def symmetric_template() -> torch.Tensor:
    half = torch.rand(239, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.02, 0.0, 0.0])
    return torch.cat([half, half * torch.tensor([-1.0, 1.0, 1.0])])


def test_the_mirror_of_a_symmetric_mesh_swaps_its_halves_even_if_it_looks_aside():
    template = symmetric_template()
    angle = torch.tensor(0.02)
    turn = torch.tensor([[angle.cos(), 0.0, angle.sin()], [0.0, 1.0, 0.0], [-angle.sin(), 0.0, angle.cos()]])
    wanted = torch.cat([torch.arange(239, 478), torch.arange(239)])
    assert torch.equal(mirror_indices(template), wanted)
    assert (mirror_indices(template @ turn.T + 0.5) == wanted).float().mean() > 0.99


def test_mirrored_samples_have_mirrored_cameras_and_two_mirrors_change_nothing():
    generator = torch.Generator().manual_seed(1)
    angles = torch.randn(3, 4, generator=generator) * 0.3
    camera = Camera.look_at_head(*angles, torch.randn(4, 3, generator=generator) * 0.05)
    samples = MeshSamples(
        torch.rand(4, 478, 3, generator=generator),
        pose_from_camera(camera),
        torch.randn(4, 64),
        torch.arange(4),
        torch.randn(4, 64),
    )
    indices = torch.cat([torch.arange(239, 478), torch.arange(239)])
    once = mirrored_samples(samples, indices)
    assert torch.allclose(once.pose, pose_from_camera(camera.mirrored()), atol=1e-5)
    assert torch.equal(once.beta, samples.beta_mirror) and not set(once.person.tolist()) & set(samples.person.tolist())
    twice = mirrored_samples(once, indices)
    assert torch.allclose(twice.mesh, samples.mesh, atol=1e-6) and torch.equal(twice.person, samples.person)


def test_the_gain_of_a_shrunk_answer_matches_the_spread_or_stops_at_its_cost():
    generator = torch.Generator().manual_seed(2)
    truth = torch.randn(20000, 64, generator=generator)
    person = torch.arange(20000) % 50
    noise = torch.randn(20000, 64, generator=generator)
    told = truth.clone()
    told[:, 0] = 0.5 * truth[:, 0]  # correlation 1: the gain that undoes it is free
    told[:, 1] = 0.5 * truth[:, 1] + 0.5 * noise[:, 1]  # a regression with R^2 0.5: sd 0.71, full gain 1.41
    told[:, 2] = 2.0 * truth[:, 2]  # never shrunk further
    gain = calibrated_gain(told, truth, person, 0.02)
    assert gain[0] == pytest.approx(2.0, rel=0.01) and gain[3] == pytest.approx(1.0, rel=0.01) and gain[2] == 1.0
    # (g - 1)^2 * 0.5 = 0.02 gives g = 1.2.
    assert gain[1] == pytest.approx(1.2, abs=0.02)
    assert calibrated_gain(told, truth, person, 0.5)[1] == pytest.approx(2.0**0.5, abs=0.02)


def test_what_belongs_to_a_person_does_not_count_within():
    values = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    assert within(values, torch.tensor([7, 7, 2, 2])).flatten().tolist() == [-1.0, 1.0, -5.0, 5.0]


def test_the_network_learns_what_the_mesh_shows():
    generator = torch.Generator().manual_seed(3)
    people, frames = 30, 20
    count = people * frames
    state = torch.randn(count, 2, generator=generator)
    base = symmetric_template() * 0.3 + 0.5
    mesh = base.repeat(count, 1, 1)
    mesh[:, 100:140, 1] += 0.02 * state[:, :1]
    mesh[:, 339:379, 1] += 0.02 * state[:, :1]
    mesh = mesh + 0.001 * torch.randn(mesh.shape, generator=generator)
    camera = Camera.look_at_head(0.1 * state[:, 1])
    beta = torch.zeros(count, 64)
    beta[:, 0] = state[:, 0]
    samples = MeshSamples(mesh, pose_from_camera(camera), beta, torch.arange(count) // frames, beta)
    settings = MeshTraining(epochs=40, batch=64, noise=0.02, face_offset=0.0)
    losses = []
    config = MeshConfig(components=8, hidden=16, dropout=0.0)
    net = train_mesh(samples, config, settings, progress=lambda *step: losses.append(step))
    assert [step[0] for step in losses] == list(range(1, 41)) and losses[-1][2] < 0.6 * losses[0][2]
    with torch.no_grad():
        told = net(mesh)[1][:, 0]
    assert float((told - beta[:, 0]).square().mean()) < 0.1
    again = train_mesh(samples, config, settings)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


def test_plain_quantities_by_hand_and_their_probe():
    weights = np.zeros((1, 53), np.float32)
    weights[0, EXPRESSION_NAMES.index("eyeBlink_L")] = 1.0
    weights[0, EXPRESSION_NAMES.index("jawOpen")] = 0.4
    found = dict(zip(QUANTITIES, quantities(weights)[0], strict=True))
    assert found["blink"] == pytest.approx(0.5) and found["jaw_open"] == pytest.approx(0.4) and found["smile"] == 0.0
    rng = np.random.default_rng(0)
    many = rng.random((500, 53))
    beta = np.zeros((500, 64))
    beta[:, :53] = 3.0 * many - 1.0
    assert np.abs(read(beta, fit_probe(beta, many)) - quantities(many)).max() < 0.05


@pytest.mark.parametrize(
    ("values", "text"),
    [({"epochs": 0}, "must be positive"), ({"noise": -1.0}, "not negative"), ({"gain_cost": 1.0}, "gain_cost")],
)
def test_impossible_settings_are_refused(values, text):
    with pytest.raises(ValueError, match=text):
        MeshTraining(**values)


def test_both_networks_are_trained_measured_and_written(folder, dataset, tmp_path, monkeypatch):
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    options = RegressorOptions(
        output=tmp_path / "r.safetensors",
        data=(folder,),
        report=tmp_path / "r.json",
        identities=12,
        frames=4,
        epochs=1,
    )
    build_regressor(options, mesh=MeshTraining(epochs=1), tracker=ExactTracker(dataset), command="typed")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["command"] == "typed" and stored["seed"] == 0 and len(stored["date"]) == 10
    assert stored["training"]["mesh"]["people"] == 4 and stored["face_tracker"]["people"] == 1
    assert set(stored["face_tracker"]["read_by"]) == {"points", "mesh"}
    assert [row["quantity"] for row in stored["face_tracker"]["quantities"]] == list(QUANTITIES)
    back = LandmarkRegressor.load(tmp_path / "r.safetensors")
    assert back.info.sha256 == stored["sha256"] and back.mesh_net is not None


def test_a_tracker_without_meshes_gives_a_regressor_of_points_only(folder, dataset, tmp_path, monkeypatch):
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    target, report = tmp_path / "r.safetensors", tmp_path / "r.json"
    options = RegressorOptions(output=target, data=(folder,), report=report, identities=12, frames=4, epochs=1)
    build_regressor(options, tracker=ExactTracker(dataset, mesh=False))
    assert "mesh" not in json.loads(report.read_text())["training"]
    assert LandmarkRegressor.load(tmp_path / "r.safetensors").mesh_net is None


def test_the_command_refuses_test_clips_without_clips_and_a_missing_folder(folder, tmp_path, capsys):
    start = ["train-regressor", "-o", str(tmp_path / "r.safetensors")]
    assert main([*start, "--test-data", str(folder)]) == 2
    assert "give that too" in capsys.readouterr().err.replace("\n", " ")
    assert main([*start, "--data", str(folder), "--detections", str(tmp_path / "no")]) == 30
    assert "no such folder" in capsys.readouterr().err.replace("\n", " ")


def test_clips_of_another_head_model_are_refused(folder, tmp_path, monkeypatch):
    from export3d.fitting import regressor_build

    other = LinearExtractor.build(procedural_head(), ExtractorConfig(statistics_identities=5, statistics_frames=2))
    monkeypatch.setattr(regressor_build.LinearExtractor, "build", staticmethod(lambda head: other))
    with pytest.raises(DataError, match="same head model"):
        build_regressor(RegressorOptions(output=tmp_path / "r.safetensors", data=(folder,), identities=2))
