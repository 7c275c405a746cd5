"""Deep3DFaceRecon: layout of the 257 numbers, golden cameras, the 224 crop, loading a checkpoint of its structure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.errors import CheckpointError, UsageError
from export3d.evaluation.metrics.pictures import apd
from export3d.tracking.alignment import STANDARD_POINTS, Crop, crop_transform
from export3d.tracking.deep3d import (
    NETWORK_ALIGNMENT,
    Coefficients,
    Deep3DModel,
    ReconstructionNetwork,
    load_network,
    network_input,
    pose_numbers,
)
from export3d.tracking.faces import ObservingModel
from export3d.tracking.standin import face_from_landmarks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the published structure: the state under `net_recon`, beside optimiser state."""
    torch.manual_seed(0)
    network = ReconstructionNetwork()
    with torch.no_grad():
        for layer in network.final_layers:
            layer.weight.mul_(0.01)
            layer.bias.normal_(std=0.1)
    path = tmp_path_factory.mktemp("deep3d") / "epoch_20.pth"
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"net_recon": network.state_dict(), "opt_00": optimiser}, path)
    return path


def landmarks_at(x: float, y: float, unit: float) -> np.ndarray:
    """68 points whose five alignment points are the standard face, `unit` pixels per model unit, centred at (x, y)."""
    points = np.zeros((68, 2))
    image = STANDARD_POINTS[:, :2] * [unit, -unit] + [x, y]
    for indices, point in zip(((36, 39), (42, 45), (30,), (48,), (54,)), image, strict=True):
        points[list(indices)] = point
    return points.astype(np.float32)


def test_the_257_numbers_split_as_published() -> None:
    parts = Coefficients.from_vector(torch.arange(257.0)[None])
    assert parts.identity[0, [0, -1]].tolist() == [0, 79]
    assert parts.expression[0, [0, -1]].tolist() == [80, 143]
    assert parts.texture[0, [0, -1]].tolist() == [144, 223]
    assert parts.angles[0].tolist() == [224, 225, 226]
    assert parts.light[0, [0, -1]].tolist() == [227, 253]
    assert parts.translation[0].tolist() == [254, 255, 256]
    with pytest.raises(ValueError, match=r"coefficients must have shape \(\*, 257\); got \(1, 256\)"):
        Coefficients.from_vector(torch.zeros(1, 256))


@pytest.mark.parametrize("change", range(6))
def test_apd_counts_each_of_the_six_numbers_of_deep3d_as_it_stands(change: int) -> None:
    pose = torch.tensor([[0.1, -0.2, 0.05, 0.02, -0.03, 0.4]], dtype=torch.float64)
    moved = pose.clone()
    moved[0, change] += 0.3
    read = [
        pose_numbers(Camera.from_deep3d(p[:, :3], p[:, 3:], "exact").to_vector().float().numpy()) for p in (pose, moved)
    ]
    assert np.allclose(read[0], pose.numpy(), atol=1e-5) and np.allclose(read[1], moved.numpy(), atol=1e-5)
    distance = apd(read[1], read[0])
    assert distance.apd[0] == pytest.approx(0.05, abs=1e-5)  # 0.3 / 6
    assert (distance.translation[0] > 0.09) == (change >= 3)  # 0.3 / 3


def test_the_golden_turned_coefficients_give_the_published_camera() -> None:
    vector = torch.zeros(1, 257, dtype=torch.float64)
    vector[0, 224:227] = torch.tensor([0.1, -0.2, 0.05])
    vector[0, 254:257] = torch.tensor([0.02, -0.03, 0.4])
    parts = Coefficients.from_vector(vector)
    expected = torch.tensor(
        [
            [0.978842, -0.048983, -0.198669],
            [-0.069539, -0.992769, -0.097843],
            [-0.192440, 0.109588, -0.975170],
        ],
        dtype=torch.float64,
    )
    positions = {
        "orig": (0.500818, 0.263169, 2.640061),
        "cor": (0.533996, 0.280604, 2.806750),
        "exact": (0.510062, 0.262027, 2.527793),
    }
    for mode, position in positions.items():
        pose = Camera.from_deep3d(parts.angles, parts.translation, mode).cam_to_world[0]
        assert (pose[:3, :3] - expected).abs().max() < 1e-6
        assert (pose[:3, 3] - torch.tensor(position, dtype=torch.float64)).abs().max() < 1e-6


def test_the_golden_frontal_coefficients_give_the_published_camera() -> None:
    pose = Camera.from_deep3d(torch.zeros(1, 3).double(), torch.zeros(1, 3).double()).cam_to_world[0]
    assert torch.equal(pose[:3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)))
    expected = torch.tensor([0.0, 0.005662, 2.699994], dtype=torch.float64)
    assert (pose[:3, 3] - expected).abs().max() < 1e-6


def test_the_224_crop_puts_a_frontal_face_where_the_facts_say() -> None:
    # Deep3DFaceRecon's five points, scaled to 256:
    # eyes (91.7, 94.2), (164.1, 94.2), nose (128.4, 133.4), mouth (98.6, 172.5), (157.0, 172.4)
    # They hold to half a pixel at 256; the crop of the standard points themselves has scale 102 * 256 / 224 = 116.57.
    points = landmarks_at(300.0, 200.0, 80.0)
    crop = crop_transform(points, NETWORK_ALIGNMENT)
    placed = crop.to_crop(points)[[36, 42, 30, 48, 54]] * 256
    expected = np.array([(91.7, 94.2), (164.1, 94.2), (128.4, 133.4), (98.6, 172.5), (157.0, 172.4)])
    assert np.abs(placed - expected).max() < 0.2


def test_the_network_input_shows_the_fitted_square() -> None:
    # 51 px per unit: the frame is doubled. A white dot of 4 px at the standard face's origin ends in the centre.
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[98:102, 148:152] = 255
    picture = network_input(frame, landmarks_at(150.0, 100.0, 51.0))
    assert picture.shape == (224, 224, 3)
    weights = picture[..., 0].astype(float)
    rows, columns = np.mgrid[:224, :224] + 0.5
    centre = (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
    # corners are truncated to whole pixels, so half a pixel plus one is the most that they may be off
    assert np.abs(np.array(centre) - 112).max() < 1.5


def test_the_network_input_equals_resizing_the_whole_frame() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for unit in (30.0, 102.0, 140.0):  # the square reaches outside the frame, fits, and lies inside
        points = landmarks_at(55.0, 40.0, unit)
        crop = crop_transform(points, NETWORK_ALIGNMENT)
        scale = 224 / crop.side
        whole = Image.fromarray(frame).resize((int(120 * scale), int(90 * scale)), Image.Resampling.BICUBIC)
        left = int(whole.width / 2 - 112 + (crop.center_x - 60) * scale)
        top = int(whole.height / 2 - 112 + (crop.center_y - 45) * scale)
        slow = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
        fast = network_input(frame, points).astype(int)
        assert np.abs(slow - fast).max() <= 1


def test_outside_the_frame_is_black() -> None:
    picture = network_input(np.full((64, 64, 3), 255, np.uint8), landmarks_at(32.0, 32.0, 100.0))
    assert (picture[0] == 0).all() and (picture[112, 112] == 255).all()
    far = network_input(np.full((64, 64, 3), 255, np.uint8), landmarks_at(-3000.0, 32.0, 100.0))
    assert (far == 0).all()


def test_a_checkpoint_of_the_published_structure_gives_beta_and_camera(checkpoint: Path) -> None:
    model = Deep3DModel(checkpoint)
    assert isinstance(model, ObservingModel)
    assert model.info.expression_space == "bfm64"
    assert model.info.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    frame = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    points = landmarks_at(150.0, 150.0, 90.0)
    beta, camera = model.observe(frame, face_from_landmarks(points), Crop(150.0, 150.0, 210.0))
    state = torch.load(checkpoint, weights_only=True)["net_recon"]
    network = ReconstructionNetwork().eval()
    network.load_state_dict(state)
    image = torch.from_numpy(network_input(frame, points)).permute(2, 0, 1)[None] / 255.0
    with torch.no_grad():
        vector = network(image)
    assert vector.shape == (1, 257)
    assert np.allclose(beta, vector[0, 80:144].numpy(), atol=1e-6) and np.abs(beta).max() > 0.01
    expected = Camera.from_deep3d(vector[:, 224:227], vector[:, 254:257]).to_vector()[0]
    assert np.allclose(camera, expected.numpy(), atol=1e-5)
    assert camera.dtype == np.float32 and beta.dtype == np.float32


def test_wrong_checkpoints_are_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such Deep3DFaceRecon checkpoint"):
        load_network(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load_network(tmp_path / "text.pth")
    torch.save({"generator": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="an entry 'net_recon'; got generator"):
        load_network(tmp_path / "other.pth")
    state = torch.load(checkpoint, weights_only=True)["net_recon"]
    removed = {k: v for k, v in state.items() if k != "final_layers.6.bias"}
    torch.save({"net_recon": removed}, tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match=r"1 entries missing \(final_layers\.6\.bias\)"):
        load_network(tmp_path / "missing.pth")
    torch.save({"net_recon": {**state, "final_layers.1.bias": torch.zeros(50)}}, tmp_path / "shape.pth")
    with pytest.raises(CheckpointError, match=r"'final_layers\.1\.bias' must have shape \(64,\); got \(50,\)"):
        load_network(tmp_path / "shape.pth")
    with pytest.raises(UsageError, match="position_mode"):
        Deep3DModel(checkpoint, position_mode="original")
