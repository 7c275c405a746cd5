"""identity/crops.py and the ArcFace adapter: the five-point similarity to the 112 template, without any weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from export3d.errors import CheckpointError, MissingExtraError
from export3d.evaluation.metrics import outside
from export3d.evaluation.metrics.backends import FaceMeasures
from export3d.evaluation.metrics.outside import ArcFace, FaceAlignmentBackend, largest_face
from export3d.identity.crops import TEMPLATE, crop_faces, fit_similarity, five_points
from export3d.tracking.faces import ExtractorInfo

INFO = ExtractorInfo("test", "1", "", "")


class GivenFaces:
    """Landmarks that are known beforehand."""

    info = landmark_info = INFO

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = landmarks

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        count = len(frames)
        return FaceMeasures(landmarks=self.landmarks, expression=np.zeros((count, 64)), pose=np.zeros((count, 6)))


def _landmarks(points: np.ndarray) -> np.ndarray:
    """``(68, 2)`` landmarks whose five points are `points` ``(5, 2)``."""
    out = np.zeros((68, 2))
    out[36:42], out[42:48] = points[0], points[1]
    out[30], out[48], out[54] = points[2:]
    return out


def _template_at_256() -> np.ndarray:
    """Landmarks ``(1, 68, 2)``, pixels at 256, of a face that fills a 112-pixel frame as the template does."""
    return _landmarks((TEMPLATE + 0.5) * 256 / 112)[None]


def test_the_template_is_the_published_one() -> None:
    assert TEMPLATE.tolist() == [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]


def test_the_five_points_are_eye_middles_nose_tip_and_mouth_corners() -> None:
    points = np.arange(136.0).reshape(1, 68, 2)
    # Eye 36..41: x = 72, 74, ..., 82, mean 77; eye 42..47: 84 ... 94, mean 89; the others are points 30, 48, 54.
    assert five_points(points)[0].tolist() == [[77, 78], [89, 90], [60, 61], [96, 97], [108, 109]]


def test_a_known_similarity_is_found_exactly() -> None:
    angle, scale = np.radians(25), 1.7
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = TEMPLATE @ matrix.T + [5.0, -3.0]
    found = fit_similarity(TEMPLATE, moved)
    assert found[:, :2] == pytest.approx(matrix) and found[:, 2] == pytest.approx([5.0, -3.0])


def test_the_similarity_is_the_least_squares_one() -> None:
    """No nearby rotation, scale or shift fits noisy points better."""
    rng = np.random.default_rng(0)
    target = TEMPLATE + rng.normal(0, 3, TEMPLATE.shape)
    best = fit_similarity(TEMPLATE, target)

    def error(a: float, b: float, x: float, y: float) -> float:
        fitted = TEMPLATE @ np.array([[a, -b], [b, a]]).T + [x, y]
        return float(((fitted - target) ** 2).sum())

    at = np.array([best[0, 0], best[1, 0], best[0, 2], best[1, 2]])
    for step in 1e-3 * np.vstack([np.eye(4), -np.eye(4)]):
        assert error(*(at + step)) > error(*at)


def test_points_in_one_place_have_no_similarity() -> None:
    with pytest.raises(ValueError, match="lie in one place"):
        fit_similarity(np.ones((5, 2)), TEMPLATE)


def test_a_face_that_sits_as_the_template_does_is_copied_pixel_for_pixel() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    assert np.abs(crop_faces(frame, _template_at_256()).astype(int) - frame).max() <= 1


def test_a_shifted_face_is_carried_back() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    moved = np.roll(frame, (7, 4), axis=(1, 2))  # 7 down, 4 right
    crop = crop_faces(moved, _template_at_256() + np.array([4, 7]) * 256 / 112)
    assert np.abs(crop[:, :100, :100].astype(int) - frame[:, :100, :100]).max() <= 1


def test_a_frame_without_a_face_gives_a_black_crop_and_no_embedding() -> None:
    frames = np.full((2, 112, 112, 3), 255, np.uint8)
    landmarks = np.concatenate([_template_at_256(), np.full((1, 68, 2), np.nan)])
    assert crop_faces(frames, landmarks)[1].max() == 0
    embedded = ArcFace(lambda x: x.mean(axis=(2, 3)), INFO, GivenFaces(landmarks)).embeddings(frames)
    assert np.isnan(embedded[1]).all() and np.isfinite(embedded[0]).all()


def test_arcface_gets_rgb_between_minus_one_and_one() -> None:
    frames = np.zeros((1, 112, 112, 3), np.uint8)
    frames[..., 0], frames[..., 1] = 255, 51  # 255 -> 1; 51 -> 2 * 0.2 - 1 = -0.6; 0 -> -1
    embedded = ArcFace(lambda x: x[:, :, 56, 56], INFO, GivenFaces(_template_at_256())).embeddings(frames)
    assert embedded[0] == pytest.approx([1.0, -0.6, -1.0], abs=1e-6)


def test_embeddings_in_batches_are_those_of_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_BATCH", 2)
    frames = np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None].repeat(112, 1).repeat(112, 2).repeat(3, 3)
    sizes: list[int] = []

    def network(inputs: np.ndarray) -> np.ndarray:
        sizes.append(len(inputs))
        return inputs[:, :, 56, 56]

    embedded = ArcFace(network, INFO, GivenFaces(_template_at_256().repeat(5, 0))).embeddings(frames)
    assert sizes == [2, 2, 1]
    assert embedded[:, 0] == pytest.approx(np.arange(0, 250, 50) / 127.5 - 1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["TWO_D", "_2D"])  # renamed in 1.4
def test_face_alignments_points_are_carried_to_256_pixels_beside_the_other_measures(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    points = np.random.default_rng(0).uniform(10, 50, (68, 2))
    asked: dict[str, object] = {}

    class Network:
        def __init__(self, kind: str, **options: object) -> None:
            asked.update(kind=kind, **options)

        def get_landmarks_from_image(self, frame: np.ndarray) -> list[np.ndarray] | None:
            return [points / 2, points] if frame.any() else None

    module = SimpleNamespace(LandmarksType=SimpleNamespace(**{name: "flat"}), FaceAlignment=Network)
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.4")
    backend = FaceAlignmentBackend(GivenFaces(_template_at_256().repeat(2, 0)))
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    frames[0] = 9
    found, base = backend.measure(frames), GivenFaces(_template_at_256().repeat(2, 0)).measure(frames)
    assert asked == {"kind": "flat", "device": "cpu", "flip_input": False}
    assert found.landmarks[0] == pytest.approx(4.0 * points) and np.isnan(found.landmarks[1]).all()
    assert np.array_equal(found.expression, base.expression) and np.array_equal(found.pose, base.pose)


def test_of_several_faces_the_largest_counts() -> None:
    small = np.random.default_rng(0).uniform(0, 10, (68, 2))
    assert np.array_equal(largest_face([small, 3 * small]), 3 * small)
    assert np.isnan(largest_face(None)).all()


@pytest.mark.skipif(importlib.util.find_spec("face_alignment") is not None, reason="face-alignment is installed")
def test_a_missing_face_alignment_is_explained() -> None:
    with pytest.raises(MissingExtraError, match="pip install face-alignment"):
        FaceAlignmentBackend(GivenFaces(_template_at_256()))


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="onnxruntime is installed")
def test_a_missing_onnxruntime_is_explained_and_a_missing_file_comes_first(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        ArcFace.from_onnx(tmp_path / "gone.onnx", GivenFaces(_template_at_256()))
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match="pip install onnxruntime"):
        ArcFace.from_onnx(tmp_path / "w.onnx", GivenFaces(_template_at_256()))
