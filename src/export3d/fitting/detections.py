"""What a face tracker finds in rendered clips, beside the truth; kept in a file, since looking takes minutes (Sec. 4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.fitting.options import MAX_FRAMES
from export3d.reading import reading
from export3d.tensor_files import read_tensor_file, write_sealed
from export3d.tracking.faces import FaceTracker

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""

HELD_OUT_EVERY = 5
"""Every fifth person of the rendered clips is kept for measuring where there are no other clips for that."""

FORMAT = "export3d-detections"
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Detections:
    """A face tracker's points on rendered frames, beside the truth; only frames with a face, except `asked_yaw`."""

    found_landmarks: np.ndarray
    """``(N, 68, 2)`` in [0, 1] of the frame, the tracker's."""
    mesh: np.ndarray
    """``(N, 478, 3)`` in units of the frame's side, the tracker's; of no rows where it gives none."""
    scores: np.ndarray
    """``(N, 52)`` expression scores, the tracker's; of no rows where it gives none."""
    true_landmarks: np.ndarray
    """``(N, 68, 2)`` in [0, 1] of the frame, exact."""
    true_camera: np.ndarray
    """``(N, 25)``."""
    true_beta: np.ndarray
    """``(N, 64)``, the clips' beta."""
    true_weights: np.ndarray
    """``(N, 53)``, the weights of the expression's shapes."""
    asked_yaw: np.ndarray
    """``(M,)`` radians, of every frame that was looked at."""
    found: np.ndarray
    """``(M,)`` bool."""
    clip: np.ndarray
    """``(N,)`` which clip, that is which person, each frame with a face is from."""

    def part(self, *, held_out: bool) -> Detections:
        """The frames of every fifth person (held out), or of the others; `asked_yaw` and `found` stay whole."""
        chosen = (self.clip % HELD_OUT_EVERY == 0) == held_out
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        whole = ("asked_yaw", "found")
        return Detections(**{k: v if k in whole or not len(v) else v[chosen] for k, v in values.items()})

    @property
    def has_mesh(self) -> bool:
        """Whether the tracker gave dense meshes."""
        return len(self.mesh) == len(self.found_landmarks)

    def true_angles(self) -> np.ndarray:
        """``(N, 3)`` yaw, pitch, roll in radians."""
        return Camera.from_vector(torch.from_numpy(self.true_camera)).head_angles().numpy()

    def save(self, path: Path, origin: str) -> None:
        """Write a safetensors file; `origin` says what they are detections of (:func:`origin_of`)."""
        metadata = {"format": FORMAT, "version": str(VERSION), "origin": origin}
        write_sealed(path, metadata, {field.name: getattr(self, field.name) for field in fields(self)})

    @staticmethod
    def load(path: Path, origin: str) -> Detections:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: Damaged, another format, or detections of other clips or by another tracker.
        """
        metadata, tensors = read_tensor_file(
            path,
            kind="detections",
            format_name=FORMAT,
            version=str(VERSION),
            error=DataError,
            remedy="Remove it, to detect anew.",
        )
        if metadata.get("origin") != origin:
            raise DataError(f"{path}: it holds detections of other clips or by another tracker. Remove or rename it.")
        with reading(path, "not all arrays of detections are there", DataError, "Remove it."):
            return Detections(**tensors)


def origin_of(dataset: ClipDataset, tracker: FaceTracker, max_frames: int = MAX_FRAMES) -> str:
    """A hash of the clips' checksums, the tracker's name and version, and how many frames are looked at."""
    facts = [dataset.facts(), tracker.info.name, tracker.info.version, tracker.info.sha256, max_frames]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def detect_or_load(
    dataset: ClipDataset,
    tracker: FaceTracker,
    folder: Path | None,
    progress: Progress | None = None,
    max_frames: int = MAX_FRAMES,
) -> Detections:
    """What an earlier run left in `folder`; else the tracker's detections, which are then kept there (if it is given)."""
    if folder is None:
        return detect_rendered(dataset, tracker, max_frames=max_frames, progress=progress)
    origin = origin_of(dataset, tracker, max_frames)
    path = folder / f"detections-{origin[:16]}.safetensors"
    if path.exists():
        return Detections.load(path, origin)
    found = detect_rendered(dataset, tracker, max_frames=max_frames, progress=progress)
    found.save(path, origin)
    return found


def seen_and_unseen(
    datasets: Sequence[ClipDataset],
    test: ClipDataset | None,
    tracker: FaceTracker,
    folder: Path | None,
    progress: Progress | None = None,
    *,
    frames: int = MAX_FRAMES,
) -> tuple[Detections, Detections]:
    """Detections to learn from, and others to measure on: of `test`, else of every fifth person of the data sets."""
    seen = joined([detect_or_load(dataset, tracker, folder, progress, frames) for dataset in datasets])
    if test is not None:
        return seen, detect_or_load(test, tracker, folder, progress, frames)
    return seen.part(held_out=False), seen.part(held_out=True)


def joined(parts: Sequence[Detections]) -> Detections:
    """Detections of several data sets as one; people keep apart."""
    values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Detections)}
    starts = np.cumsum([0, *(int(part.clip.max()) + 1 for part in parts[:-1])])
    values["clip"] = [part.clip + start for part, start in zip(parts, starts, strict=True)]
    for name in ("mesh", "scores"):
        if not all(len(part) == len(points) for part, points in zip(values[name], values["clip"], strict=True)):
            values[name] = [values[name][0][:0]]
    return Detections(**{name: np.concatenate(columns) for name, columns in values.items()})


def detect_rendered(
    dataset: ClipDataset, tracker: FaceTracker, *, max_frames: int = MAX_FRAMES, progress: Progress | None = None
) -> Detections:
    """Run a face tracker on rendered frames, some of each clip, each looked at anew."""
    if len(dataset) == 0:
        raise DataError("train-regressor: the data set has no clips. Render some: export3d heads render")
    per_clip = max(1, max_frames // len(dataset))
    clips = np.linspace(0, len(dataset) - 1, min(len(dataset), max_frames)).astype(int)
    rows: list[tuple[np.ndarray, ...]] = []
    meshes: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    origin: list[int] = []
    yaws, found = [], []
    for done, index in enumerate(clips):
        arrays = dataset.arrays(index)
        if "weights" not in arrays:
            raise DataError(
                f"{dataset.name}: clip {dataset.keys[index]} has no true weights. The regressor learns from synthetic "
                "clips only; render some: export3d heads render"
            )
        count = dataset.num_frames(index)
        yaw = Camera.from_vector(torch.tensor(arrays["camera"])).head_angles()[:, 0].numpy()
        for frame in np.unique(np.linspace(0, count - 1, min(per_clip, count)).astype(int)):
            image = dataset.frame(index, int(frame))
            tracker.reset()
            faces = tracker.detect(image)
            yaws.append(yaw[frame])
            found.append(bool(faces))
            if faces:
                face = max(faces, key=lambda candidate: candidate.area_px)
                truth = (arrays[name][frame] for name in ("landmarks", "camera", "beta", "weights"))
                rows.append((face.landmarks_px / np.float32(image.shape[1]), *truth))
                origin.append(int(index))
                if face.mesh is not None:
                    meshes.append(face.mesh / np.float32(image.shape[1]))
                if face.blendshapes is not None:
                    scores.append(face.blendshapes)
        if progress:
            progress("looking at rendered heads", done + 1, len(clips))
    if not rows:
        raise DataError("train-regressor: the face tracker found no face in any rendered frame of this data set.")
    points, landmarks, camera, beta, weights = (np.stack(column) for column in zip(*rows, strict=True))
    return Detections(
        found_landmarks=points,
        mesh=np.stack(meshes) if len(meshes) == len(rows) else np.zeros((0, 478, 3), np.float32),
        scores=np.stack(scores) if len(scores) == len(rows) else np.zeros((0, 52), np.float32),
        true_landmarks=landmarks,
        true_camera=camera,
        true_beta=beta,
        true_weights=weights,
        asked_yaw=np.array(yaws, dtype=np.float32),
        found=np.array(found),
        clip=np.array(origin, dtype=np.int64),
    )
