"""evaluation/metrics/dlib_identity.py: the centre is taken off, frames without a face are NaN, a missing package is named."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from export3d.errors import MissingExtraError
from export3d.evaluation.metrics import dlib_identity
from export3d.evaluation.metrics.backends import FaceMeasures
from export3d.evaluation.metrics.dlib_identity import DlibIdentity


def oval(centre: float, radius: float) -> np.ndarray:
    """68 points around a centre, ``(68, 2)`` pixels."""
    turn = 2.0 * np.pi * np.arange(68) / 68
    return centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


class Faces:
    """Landmarks of one drawn face in pixels of a 256-pixel picture; black frames have none."""

    def measure(self, frames: np.ndarray) -> FaceMeasures:
        found = frames.reshape(len(frames), -1).any(axis=1)
        landmarks = np.where(found[:, None, None], oval(128.0, 64.0), np.nan)
        return FaceMeasures(
            landmarks=landmarks, expression=np.zeros((len(frames), 64)), pose=np.zeros((len(frames), 6))
        )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[np.ndarray]:
    """A `dlib` without weights: the descriptor is the number of the call; keeps the points it was given."""
    given: list[np.ndarray] = []
    weights = tmp_path / "network.dat"
    weights.write_bytes(b"weights")

    def chip(frame: np.ndarray, face: SimpleNamespace, size: int, padding: float) -> np.ndarray:
        given.append(np.array(face.points))
        return np.zeros((size, size, 3), np.uint8)

    network = SimpleNamespace(compute_face_descriptor=lambda _: [float(len(given))] * 128)
    module = SimpleNamespace(
        face_recognition_model_v1=lambda path: network,
        point=lambda x, y: (x, y),
        rectangle=lambda *sides: sides,
        full_object_detection=lambda box, points: SimpleNamespace(box=box, points=points),
        get_face_chip=chip,
    )
    monkeypatch.setitem(sys.modules, "dlib", module)
    monkeypatch.setattr(dlib_identity, "weights_path", lambda: weights)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.3.0")
    return given


def test_the_mean_of_people_is_taken_off_and_a_frame_without_a_face_is_nan(stand_in: list[np.ndarray]) -> None:
    frames = np.zeros((3, 128, 128, 3), np.uint8)
    frames[[0, 2]] = 90
    identity = DlibIdentity(Faces())  # type: ignore[arg-type]
    found = identity.embeddings(frames)
    centre = dlib_identity._CENTRE
    assert found.shape == (3, 128) and np.isnan(found[1]).all()
    assert np.allclose(found[0], 1.0 - centre) and np.allclose(found[2], 2.0 - centre)
    assert np.linalg.norm(centre) == pytest.approx(1.335, abs=0.01)
    assert len(identity.info.sha256) == 64


def test_the_points_are_in_pixels_of_the_frame_itself(stand_in: list[np.ndarray]) -> None:
    DlibIdentity(Faces()).embeddings(np.full((1, 128, 128, 3), 90, np.uint8))  # type: ignore[arg-type]
    assert np.abs(stand_in[0] - oval(64.0, 32.0)).max() <= 1.0


def test_a_missing_package_is_named_with_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingExtraError, match=r"dlib-bin and face-recognition-models.*export3d\[identity\]"):
        DlibIdentity(Faces())  # type: ignore[arg-type]


def test_one_photo_twice_is_one_person() -> None:
    pytest.importorskip("dlib")
    from skimage import data

    photo = data.astronaut()[:256, 100:356]
    found = DlibIdentity(Faces()).embeddings(np.stack([photo, photo]))  # type: ignore[arg-type]
    assert np.allclose(found[0], found[1], atol=1e-4)
