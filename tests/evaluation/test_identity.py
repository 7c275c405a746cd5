"""The offline identity network: its verification scores by hand, its file, its training command, the bundled weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.checkpoint import write_checkpoint
from export3d.cli import main
from export3d.configs import config_to_dict
from export3d.data import ClipDataset
from export3d.errors import CheckpointError, DataError
from export3d.evaluation.metrics.backends import FaceMeasures
from export3d.evaluation.metrics.pictures import csim
from export3d.fitting.identity import IdentityTraining, train_identity, verify
from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips
from export3d.identity.network import (
    KIND,
    IdentityConfig,
    IdentityNet,
    IdentityNetwork,
    bundled_identity,
    save_identity,
)
from export3d.tracking.faces import ExtractorInfo

SMALL = IdentityConfig(size=32, stem=4, widths=(8, 8), dim=8)


class StoredFaces:
    """The exact landmarks of the clip that is looked at."""

    info = landmark_info = ExtractorInfo("stored", "1", "", "")

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = landmarks

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        rest = {"expression": np.zeros((len(frames), 64)), "pose": np.zeros((len(frames), 6))}
        return FaceMeasures(landmarks=self.landmarks[: len(frames)], **rest)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "clips"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
        render_clips(folder, ClipsConfig(identities=6, frames=2, size=32, supersample=1, quality="fast"))
    return folder


def test_perfectly_separate_people_are_always_told_apart() -> None:
    embeddings = np.repeat(np.eye(4), 3, axis=0)
    scores = verify(embeddings, np.repeat(np.arange(4), 3))
    # Each half has 2 people: 2 * 3 pairs of one person, as many of two.
    assert (scores.accuracy, scores.auc, scores.pairs, scores.identities) == (1.0, 1.0, 24, 4)
    assert (scores.same_mean, scores.different_mean) == (1.0, 0.0)


def test_embeddings_that_do_not_know_the_person_are_at_chance() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = verify(vectors, np.repeat(np.arange(20), 20))
    assert 0.47 < scores.accuracy < 0.53 and 0.47 < scores.auc < 0.53


def test_the_threshold_of_one_half_is_applied_to_the_other() -> None:
    """Two halves with shifted cosines: a threshold fitted on the pairs it judges would be right every time."""
    angle = np.radians(40)
    tight = [[1, 0, 0, 0], [np.cos(angle), np.sin(angle), 0, 0]]
    vectors = np.array([*tight, *np.roll(tight, 2, axis=1), *tight, *np.roll(tight, 2, axis=1)])
    scores = verify(vectors, np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert scores.accuracy <= 1.0 and scores.pairs == 8


def test_verification_without_two_frames_of_a_person_is_refused() -> None:
    with pytest.raises(DataError, match="two frames of each of two people"):
        verify(np.eye(4), np.arange(4))


def test_training_lowers_the_loss_and_the_file_comes_back(heads: Path, tmp_path: Path) -> None:
    path = tmp_path / "id.safetensors"
    facts = train_identity(ClipDataset(heads), path, IdentityTraining(epochs=3, batch=4), config=SMALL)
    assert facts["identities"] == 2 and facts["verification"]["identities"] == 4
    dataset = ClipDataset(heads)
    frames = np.stack([dataset.frame(0, t) for t in range(2)])
    network = IdentityNetwork.load(path, StoredFaces(dataset.arrays(0)["landmarks"] * 256))
    embedded = network.embeddings(frames)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert csim(embedded, embedded[0])[0] == pytest.approx(1.0)
    assert network.facts["verification"] == facts["verification"]


def test_the_same_seed_trains_the_same_network(heads: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_identity(ClipDataset(heads), tmp_path / f"{name}.safetensors", IdentityTraining(epochs=1), config=SMALL)
    faces = StoredFaces(np.zeros((1, 68, 2)))
    a, b = (IdentityNetwork.load(tmp_path / f"{n}.safetensors", faces).net.state_dict() for n in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_corners_of_the_crop_do_not_count() -> None:
    torch.manual_seed(0)
    net = IdentityNet(SMALL).eval()
    crops = torch.rand(1, 3, 32, 32) * 2 - 1
    changed, face = crops.clone(), crops.clone()
    changed[..., :3, :3] = 1.0
    face[..., 14:18, 14:18] = 1.0
    assert torch.equal(net(crops), net(changed))
    assert not torch.allclose(net(crops), net(face))


def test_a_network_without_its_measured_accuracy_is_refused(tmp_path: Path) -> None:
    net = IdentityNet(SMALL)
    with pytest.raises(ValueError, match="must hold 'verification'"):
        save_identity(tmp_path / "n.safetensors", net, {})
    write_checkpoint(tmp_path / "n.safetensors", net.state_dict(), kind=KIND, config=config_to_dict(SMALL))
    with pytest.raises(CheckpointError, match="accuracy on held-out identities is not stored"):
        IdentityNetwork.load(tmp_path / "n.safetensors", StoredFaces(np.zeros((1, 68, 2))))


def test_people_of_the_training_set_cannot_be_held_out(heads: Path, tmp_path: Path) -> None:
    data = ClipDataset(heads)
    with pytest.raises(DataError, match="is in the training data too"):
        train_identity(data, tmp_path / "n.safetensors", IdentityTraining(), held_out=data, config=SMALL)


def test_the_command_trains_and_reports(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, report = tmp_path / "id.safetensors", tmp_path / "id.json"
    arguments = ["train-identity", "--data", str(heads), "-o", str(target), "--report", str(report)]
    assert main([*arguments, "--epochs", "1"]) == 0
    assert "verification on 4 held-out identities: accuracy" in capsys.readouterr().out
    assert json.loads(report.read_text())["verification"]["pairs"] > 0
    assert main(["train-identity", "--data", str(heads), "-o", str(tmp_path / "id.pt")]) == 2


@pytest.mark.skipif(not bundled_identity().is_file(), reason="this installation has no identity network")
def test_the_bundled_network_is_small_and_was_measured_on_unseen_people() -> None:
    network = IdentityNetwork.load(None, StoredFaces(np.zeros((1, 68, 2))))
    assert bundled_identity().stat().st_size <= 1_500_000
    assert network.facts["verification"]["accuracy"] >= 0.9
    assert network.facts["verification"]["identities"] >= 20
