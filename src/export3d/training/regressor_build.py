"""The bundled regressor from nothing: heads, alignment, network, MediaPipe's offsets, measured errors (Sec. 4, data)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.files import write_atomically
from export3d.heads.extractor import LinearExtractor
from export3d.heads.model_file import load_head
from export3d.heads.splits import SPLITS
from export3d.tracking.alignment import Alignment, Crop, crop_transform
from export3d.tracking.faces import FaceTracker
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.regressor import LandmarkRegressor, RegressorConfig, pose_from_camera
from export3d.training.regressor import (
    REFERENCE_SIZE,
    RegressorTraining,
    Samples,
    TrackerErrors,
    draw_samples,
    fit_alignment,
    fit_points_alignment,
    make_regressor,
    measure,
    repeat_fit_r2,
    train_regressor,
)

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""

YAW_EDGES_DEG = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
FRONTAL_RAD = 0.35
"""Offsets are learned from frames within 20 degrees; beyond, MediaPipe's jaw follows the outline of the face."""

HELD_OUT_HEADS = 80
"""People that the errors are measured on (fewer where fewer are trained on)."""

HELD_OUT_EVERY = 5
"""Every fifth person of the rendered clips is kept for measuring."""

MAX_FRAMES = 1200


@dataclass(frozen=True)
class RegressorReport:
    """What the training gave."""

    results: dict[str, object]
    r2_first_10: float
    angle_deg: float

    def line(self, path: Path) -> str:
        """The one line for the command's end."""
        return f"{path}: beta R2 (first 10 modes) {self.r2_first_10:.3f}, camera error {self.angle_deg:.2f} degrees"


@dataclass(frozen=True)
class Detections:
    """A face tracker's points on rendered frames, beside the truth; only frames with a face, except `asked_yaw`."""

    found_landmarks: np.ndarray
    """``(N, 68, 2)`` in [0, 1] of the frame, the tracker's."""
    true_landmarks: np.ndarray
    """``(N, 68, 2)`` in [0, 1] of the frame, exact."""
    true_camera: np.ndarray
    """``(N, 25)``."""
    true_beta: np.ndarray
    """``(N, 64)``, the clips' beta."""
    asked_yaw: np.ndarray
    """``(M,)`` radians, of every frame that was looked at."""
    found: np.ndarray
    """``(M,)`` bool."""
    clip: np.ndarray
    """``(N,)`` which clip, that is which person, each frame with a face is from."""

    def part(self, *, held_out: bool) -> Detections:
        """The frames of every fifth person (held out), or of the others; `asked_yaw` and `found` stay whole."""
        chosen = (self.clip % HELD_OUT_EVERY == 0) == held_out
        return replace(
            self,
            found_landmarks=self.found_landmarks[chosen],
            true_landmarks=self.true_landmarks[chosen],
            true_camera=self.true_camera[chosen],
            true_beta=self.true_beta[chosen],
            clip=self.clip[chosen],
        )

    def true_angles(self) -> np.ndarray:
        """``(N, 3)`` yaw, pitch, roll in radians."""
        return Camera.from_vector(torch.from_numpy(self.true_camera)).head_angles().numpy()


def build_regressor(
    output: Path,
    settings: RegressorTraining,
    *,
    head_model: Path | None = None,
    data: Path | None = None,
    report_path: Path | None = None,
    progress: Progress | None = None,
) -> RegressorReport:
    """Draw heads, train, learn the face tracker's offsets where rendered clips are given, measure, and save."""
    head = load_head(head_model)
    extractor = LinearExtractor.build(head)
    tell = progress or (lambda stage, done, total: None)
    dataset = None if data is None else ClipDataset(data)
    detections = None
    if dataset is not None and data is not None:
        _check_extractor(dataset, extractor, data)
        detections = detect_rendered(dataset, MediaPipeTracker(), progress=tell)
    tracker = None if detections is None else tracker_errors(detections.part(held_out=False))
    seeds = SPLITS["train"][: settings.identities]
    samples = draw_samples(
        head, extractor, seeds, settings.frames, progress=lambda done, n: tell("drawing heads", done, n)
    )
    config = RegressorConfig(alignment=fit_alignment(samples), expression_space=extractor.info["expression_space"])
    net = train_regressor(
        samples, config, settings, tracker=tracker, progress=lambda done, n, loss: tell("training", done, n)
    )
    notes: dict[str, object] = {"head_model": head.name, "extractor": extractor.info, **asdict(settings)}
    regressor = make_regressor(net, notes, tracker)
    unseen = SPLITS["validation"][: min(HELD_OUT_HEADS, settings.identities)]
    held_out = draw_samples(head, extractor, unseen, settings.frames, noisy_fit=True)
    results: dict[str, object] = {"training": notes, "held_out": _held_out(regressor, extractor, held_out)}
    if dataset is not None and detections is not None:
        seen = {"clips": len(dataset), "frame_px": dataset.size}
        results["mediapipe"] = seen | measure_detections(regressor, detections)
    results["alignment"] = {"rescale": regressor.alignment.rescale, "origin": list(regressor.alignment.origin)}
    results["sha256"] = regressor.save(output)
    if report_path is not None:
        write_atomically(report_path, (json.dumps(results, indent=1) + "\n").encode())
    exact = measure(regressor, held_out, 1.0, aligned=True)
    return RegressorReport(results, exact.beta_r2_first_10, exact.angle_error_deg_mean)


def detect_rendered(
    dataset: ClipDataset, tracker: FaceTracker, *, max_frames: int = MAX_FRAMES, progress: Progress | None = None
) -> Detections:
    """Run a face tracker on rendered frames, a few of each clip, each looked at anew."""
    if len(dataset) == 0:
        raise DataError("train-regressor: the data set has no clips. Render some: export3d heads render")
    per_clip = max(1, max_frames // len(dataset))
    clips = np.linspace(0, len(dataset) - 1, min(len(dataset), max_frames)).astype(int)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    origin: list[int] = []
    yaws, found = [], []
    for done, index in enumerate(clips):
        arrays = dataset.arrays(index)
        count = dataset.num_frames(index)
        yaw = Camera.from_vector(torch.from_numpy(arrays["camera"])).head_angles()[:, 0].numpy()
        for frame in np.unique(np.linspace(0, count - 1, min(per_clip, count)).astype(int)):
            image = dataset.frame(index, int(frame))
            tracker.reset()
            faces = tracker.detect(image)
            yaws.append(yaw[frame])
            found.append(bool(faces))
            if faces:
                face = max(faces, key=lambda candidate: candidate.area_px)
                points = face.landmarks_px / np.array([image.shape[1], image.shape[0]], dtype=np.float32)
                truth = (arrays["landmarks"][frame], arrays["camera"][frame], arrays["beta"][frame])
                rows.append((points, *truth))
                origin.append(int(index))
        if progress:
            progress("looking at rendered heads", done + 1, len(clips))
    if not rows:
        raise DataError("train-regressor: the face tracker found no face in any rendered frame of this data set.")
    points, landmarks, camera, beta = (np.stack(column) for column in zip(*rows, strict=True))
    return Detections(points, landmarks, camera, beta, np.array(yaws), np.array(found), np.array(origin))


def tracker_errors(detections: Detections) -> TrackerErrors:
    """A face tracker's errors on rendered frames, its own alignment and its mean offsets.

    The alignment is fitted to the tracker's points, so that a crop made from them is on average the frame of the clip;
    the offsets are the mean differences of the points in that crop over near-frontal frames.
    """
    alignment = fit_points_alignment(detections.found_landmarks)
    yaw = detections.true_angles()[:, 0]
    frontal = np.abs(yaw) < FRONTAL_RAD
    found, truth = _to_crops(detections.found_landmarks, detections.true_landmarks, alignment)
    offsets = (found - truth)[frontal if frontal.any() else slice(None)].mean(axis=0).astype(np.float32)
    order = np.argsort(yaw, kind="stable")
    errors = (detections.found_landmarks - detections.true_landmarks)[order].astype(np.float64)
    return TrackerErrors(yaw[order], errors, alignment, offsets)


def measure_detections(regressor: LandmarkRegressor, detections: Detections) -> dict[str, object]:
    """How well tracker and regressor together read rendered frames of heads whose errors were not trained on."""
    asked = np.abs(np.rad2deg(detections.asked_yaw))
    ranges = {}
    for low, high in pairwise(YAW_EDGES_DEG):
        inside = (asked >= low) & (asked < high)
        if inside.any():
            share = float(detections.found[inside].mean())
            ranges[f"{low:.0f}-{high:.0f}"] = {"frames": int(inside.sum()), "found": round(share, 4)}
    unseen = detections.part(held_out=True)
    found, truth = _to_crops(unseen.found_landmarks, unseen.true_landmarks, regressor.alignment)
    beta, p = regressor.coefficients(found)
    camera = Camera.from_vector(torch.from_numpy(p))
    angles = camera.head_angles().rad2deg().numpy()
    wanted = np.rad2deg(unseen.true_angles())
    names = ("yaw", "pitch", "roll")
    before = np.linalg.norm(found - truth, axis=-1).mean() * REFERENCE_SIZE
    after = np.linalg.norm(found - regressor.offsets - truth, axis=-1).mean() * REFERENCE_SIZE
    r2 = 1.0 - ((beta - unseen.true_beta) ** 2).sum(axis=0) / (
        (unseen.true_beta - unseen.true_beta.mean(axis=0)) ** 2
    ).sum(axis=0)
    origin = pose_from_camera(camera)[:, 6:].numpy()
    return {
        "frames": len(detections.found),
        "found_share": _rounded(detections.found.mean()),
        "found_by_yaw_deg": ranges,
        "held_out_frames": len(found),
        "correlation": {n: _rounded(np.corrcoef(angles[:, i], wanted[:, i])[0, 1]) for i, n in enumerate(names)},
        "slope": {n: _rounded(np.polyfit(wanted[:, i], angles[:, i], 1)[0]) for i, n in enumerate(names)},
        "error_deg_mean": {n: _rounded(np.abs(angles[:, i] - wanted[:, i]).mean()) for i, n in enumerate(names)},
        "point_error_px_before_offsets": _rounded(before),
        "point_error_px_after_offsets": _rounded(after),
        "beta_r2_per_mode": [_rounded(value) for value in r2],
        "beta_r2_first_10": _rounded(r2[:10].mean()),
        "beta_mean_square": _rounded((beta**2).mean()),
        "origin_mean": [_rounded(value) for value in origin.mean(axis=0)],
        "origin_sd": [_rounded(value) for value in origin.std(axis=0)],
    }


def _held_out(regressor: LandmarkRegressor, extractor: LinearExtractor, samples: Samples) -> dict[str, object]:
    rows = [measure(regressor, samples, noise, aligned=a).as_dict() for a in (False, True) for noise in (0.5, 1.0, 2.0)]
    return {"frames": len(samples), "rows": rows, "fit_repeated_r2_per_mode": repeat_fit_r2(extractor, samples)}


def _check_extractor(dataset: ClipDataset, extractor: LinearExtractor, folder: Path) -> None:
    made, mine = dataset.extractor.get("sha256"), extractor.info["sha256"]
    if made != mine:
        raise DataError(
            f"{folder}: its coefficients were made by the extractor {str(made)[:12]}; the head model given here makes "
            f"{mine[:12]}. Render the clips and train the regressor with the same head model."
        )


def _to_crops(found: np.ndarray, truth: np.ndarray, alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of points in the crops that the found points give."""
    pairs = []
    for points, exact in zip(found, truth, strict=True):
        crop: Crop = crop_transform(points, alignment)
        pairs.append((crop.to_crop(points), crop.to_crop(exact)))
    first, second = zip(*pairs, strict=True)
    return np.stack(first), np.stack(second)


def _rounded(value: float) -> float:
    return round(float(value), 4)
