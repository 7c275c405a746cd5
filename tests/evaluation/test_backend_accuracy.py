"""Accuracy of back ends: known displacements, turns and scales of the truth come out as themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.cli import evaluate as command
from export3d.cli import main
from export3d.data import ClipDataset, ShardWriter
from export3d.errors import DataError, UsageError
from export3d.evaluation.metrics.backend_accuracy import (
    expression_r2,
    landmark_errors,
    measure_backends,
    pose_errors,
    r2_of_modes,
)
from export3d.evaluation.metrics.backends import FaceMeasures, camera_pose
from export3d.evaluation.scores.run import Backends
from export3d.tracking.faces import ExtractorInfo


class Truth:
    """A face back end that answers with the truth of one clip after the other, and loses the frames it is told to."""

    landmark_info = ExtractorInfo("truth-landmarks", "1", "", "")

    def __init__(self, dataset: ClipDataset, lost: dict[int, list[int]] | None = None, space: str = "ict64") -> None:
        self.info = ExtractorInfo("truth", "1", "", space)
        self._dataset, self._lost, self._next = dataset, lost or {}, 0

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        arrays = self._dataset.arrays(self._next)
        points, beta, pose = arrays["landmarks"] * 256.0, arrays["beta"] + 0.0, camera_pose(arrays["camera"])
        for values in (points, beta, pose):
            values[self._lost.get(self._next, [])] = np.nan
        self._next += 1
        return FaceMeasures(landmarks=points, expression=beta, pose=pose)


class MeanColour:
    """An identity back end without weights."""

    info = ExtractorInfo("mean-colour", "1", "", "")

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        mean = frames.mean(axis=(1, 2))
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_the_truth_reads_itself_without_error(clips: Path) -> None:
    dataset = ClipDataset(clips)
    done = []
    found = measure_backends(dataset, Backends(faces=Truth(dataset)), on_progress=done.append)
    assert found["faces"] == {"clips": 2, "identities": 2, "frames": 6, "found": 6, "share_found": 1.0}
    assert found["landmarks"]["all"]["mean_px"] == pytest.approx(0.0, abs=1e-3)
    assert found["pose"]["rotation"]["mean_deg"] == pytest.approx(0.0, abs=1e-3)
    assert found["pose"]["yaw"]["r2"] == pytest.approx(1.0)
    assert found["expression"]["means"]["stored beta"]["r2_all"] == pytest.approx(1.0)
    assert found["expression"]["means"]["true beta"]["r2_all"] < 1.0  # the stored beta is a fit, not the truth
    assert found["identity"] is None
    assert sum(row["frames"] for row in found["by_yaw"].values()) == 6
    assert done == [1, 2]
    json.dumps(found, allow_nan=False)


def test_lost_faces_are_counted_and_do_not_enter_the_errors(clips: Path) -> None:
    dataset = ClipDataset(clips)
    found = measure_backends(dataset, Backends(faces=Truth(dataset, {0: [0, 2], 1: [1]})))
    assert (found["faces"]["found"], found["faces"]["share_found"]) == (3, 0.5)
    assert found["landmarks"]["all"]["mean_px"] == pytest.approx(0.0, abs=1e-3)
    everything = {0: [0, 1, 2], 1: [0, 1, 2]}
    with pytest.raises(DataError, match="no face was found in 6 frames"):
        measure_backends(dataset, Backends(faces=Truth(dataset, everything)))


def test_another_expression_space_and_fewer_clips_leave_things_out(clips: Path) -> None:
    dataset = ClipDataset(clips)
    found = measure_backends(dataset, Backends(faces=Truth(dataset, space="bfm64")), clips=1)
    assert found["expression"] is None and found["faces"]["frames"] == 3


def test_four_people_are_enough_for_a_verification(clips: Path, tmp_path: Path) -> None:
    dataset = ClipDataset(clips)
    writer = ShardWriter(tmp_path / "four")
    for number in range(4):
        clip = dataset.clip(0)
        frames = np.full_like(clip.frames, 0)
        frames[..., :] = [(250, 9, 9), (9, 250, 9), (9, 9, 250), (250, 250, 9)][number]
        meta = {**clip.meta, "key": f"p{number}", "identity": f"p{number}"}
        writer.write(replace(clip, key=f"p{number}", frames=frames, meta=meta))
    writer.close()
    four = ClipDataset(tmp_path / "four")
    found = measure_backends(four, Backends(faces=Truth(four), identities=MeanColour()))
    assert found["identity"]["identities"] == 4 and found["identity"]["frames"] == 12
    assert found["identity"]["auc"] == 1.0


def test_a_common_displacement_of_a_point_is_told_from_its_spread() -> None:
    true = np.random.default_rng(0).uniform(0, 256, (10, 68, 2))
    points = true + np.array([3.0, 4.0])  # all moved by 5 px in the same way
    rows = landmark_errors(points, true)
    assert rows["all"] == pytest.approx({"mean_px": 5.0, "p95_px": 5.0, "without_offsets_px": 0.0}, abs=1e-9)
    points[::2, 48:68] += np.array([2.0, 0.0])  # half of the frames: 1 px from the mean in either direction
    assert landmark_errors(points, true)["mouth"]["without_offsets_px"] == pytest.approx(1.0)
    assert landmark_errors(points, true)["eyes"]["without_offsets_px"] == pytest.approx(0.0, abs=1e-9)


def test_angles_are_compared_one_by_one_in_degrees() -> None:
    yaw = torch.tensor([-0.4, 0.0, 0.4])
    camera = Camera.look_at_head(yaw, 0.1, -0.05).to_vector().numpy()
    angles = np.stack([yaw.numpy() + math.radians(3), np.full(3, 0.1), np.full(3, -0.05 - math.radians(1))], axis=1)
    rows = pose_errors(angles, camera)
    assert rows["yaw"]["mean_deg"] == pytest.approx(3.0, abs=1e-3)
    assert rows["yaw"]["bias_deg"] == pytest.approx(3.0, abs=1e-3)
    assert rows["pitch"]["mean_deg"] == pytest.approx(0.0, abs=1e-3)
    assert rows["roll"]["bias_deg"] == pytest.approx(-1.0, abs=1e-3)
    # residual 3 * 3^2 over variance 2 * (0.4 rad in degrees)^2
    assert rows["yaw"]["r2"] == pytest.approx(1 - 27 / (2 * math.degrees(0.4) ** 2), abs=1e-4)
    assert 3.0 < (rows["rotation"]["mean_deg"] or 0.0) < 4.0


def test_a_full_turn_between_two_angles_is_no_error() -> None:
    camera = Camera.look_at_head(0.0, 0.0, math.radians(179.0)).to_vector().numpy()
    rows = pose_errors(np.array([[0.0, 0.0, math.radians(-179.0)]]), camera)
    assert rows["roll"]["mean_deg"] == pytest.approx(2.0, abs=1e-3)


def test_r2_counts_the_scale_and_a_constant_truth_has_none() -> None:
    true = np.array([[1.0, 5.0], [-1.0, 5.0]])
    assert r2_of_modes(0.5 * true, true)[0] == 0.75  # residual 2 * 0.5^2 over variance 2
    assert np.isnan(r2_of_modes(true, true)[1])
    rounding = np.array([[1e-9], [-1e-9]])  # a mode of no variance, stored in floating point
    assert np.isnan(r2_of_modes(true[:, :1], rounding)[0])


def test_identity_in_the_mean_of_a_clip_does_not_count_within_clips() -> None:
    generator = np.random.default_rng(0)
    clip = np.repeat(np.arange(5), 20)
    stored = generator.normal(size=(100, 64))
    read = stored + 10.0 * generator.normal(size=(5, 64))[clip]  # each clip has its own offset
    rows = expression_r2(read, stored, 2.0 * stored, clip)
    means = rows["means"]
    assert means["stored beta"]["r2_all"] < -10
    assert means["stored beta"]["r2_within_clips_all"] == pytest.approx(1.0)
    assert means["true beta"]["r2_within_clips_all"] == pytest.approx(0.75)  # half the scale
    assert means["true beta"]["correlation2_within_clips_leading"] == pytest.approx(1.0)
    assert means["true beta"]["modes"] == 53
    assert [row["mode"] for row in rows["leading_modes"]] == list(range(12))
    assert len(rows["r2_per_mode"]["stored_r2"]) == 64


def test_training_people_clips_without_truth_and_no_faces_are_refused(clips: Path, tmp_path: Path) -> None:
    dataset = ClipDataset(clips)
    clip = dataset.clip(0)
    for name, changed, message in (
        ("train", replace(clip, meta={**clip.meta, "split": "train"}), "is of the train split"),
        (
            "real",
            replace(clip, arrays={k: v for k, v in clip.arrays.items() if k != "true_beta"}),
            "has no true_beta; use synthetic clips",
        ),
    ):
        writer = ShardWriter(tmp_path / name)
        writer.write(changed)
        writer.close()
        data = ClipDataset(tmp_path / name)
        with pytest.raises(DataError, match=message):
            measure_backends(data, Backends(faces=Truth(data)))
    with pytest.raises(UsageError, match="leave --landmarks none out"):
        measure_backends(dataset, Backends())


def test_the_command_writes_a_file_that_says_how_it_was_made(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def given(options: object) -> Iterator[Backends]:
        yield Backends(faces=Truth(ClipDataset(clips)))

    monkeypatch.setattr(command, "_backends", given)
    arguments = ["evaluate", "--data", str(clips), "--backends-only", "-o", str(tmp_path / "r"), "--seed", "7"]
    assert main(arguments) == 0
    stored = json.loads((tmp_path / "r" / "backends.json").read_text())
    assert stored["format"] == "export3d-backend-accuracy" and stored["seed"] == 7
    assert stored["command"].startswith("export3d evaluate --data") and len(stored["date"]) == 10
    assert stored["backends"]["landmarks (AKD)"]["name"] == "truth-landmarks"
    assert "6 of 6 faces of 2 people found" in capsys.readouterr().out


def test_the_command_without_faces_is_a_usage_error(clips: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--data", str(clips), "--backends-only", "--landmarks", "none", "-o", str(tmp_path / "r")]
    assert main(arguments) == 2
    assert not (tmp_path / "r").exists()
