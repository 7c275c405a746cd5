"""The bundled regressor from nothing: heads, alignment, network, MediaPipe's offsets, measured errors (Sec. 4, data)."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.files import measured_now, write_json
from export3d.fitting.crops import fit_points_alignment
from export3d.fitting.detections import Detections, Progress, seen_and_unseen
from export3d.fitting.mesh_regressor import MeshTraining, mesh_samples, train_mesh
from export3d.fitting.options import RegressorOptions
from export3d.fitting.regressor import make_regressor, measure, repeat_fit_r2, train_regressor
from export3d.fitting.regressor_report import fit_probe, measure_detections
from export3d.fitting.samples import RegressorTraining, Samples, TrackerErrors, draw_samples
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.splits import SPLITS
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import ParametricHead
from export3d.tracking.alignment import Alignment, Crop, crop_transform
from export3d.tracking.faces import FaceTracker
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.mesh_regressor import MeshConfig
from export3d.tracking.regressor import LandmarkRegressor, RegressorConfig

FRONTAL_RAD = 0.35
"""Offsets are learned from frames within 20 degrees; beyond, MediaPipe's jaw follows the outline of the face."""

HELD_OUT_HEADS = 80
"""People that the errors are measured on (fewer where fewer are trained on)."""


def build_regressor(
    options: RegressorOptions,
    *,
    mesh: MeshTraining | None = None,
    command: str = "export3d train-regressor",
    tracker: FaceTracker | None = None,
    progress: Progress | None = None,
) -> str:
    """Draw heads, train, learn from the face tracker's points where rendered clips are given, measure, and save.

    Args:
        mesh: how the network for dense meshes is trained.
        tracker: finds the faces of rendered clips; MediaPipe by default.

    Returns:
        The one line for the command's end.
    """
    head = load_head(options.head_model)
    extractor = LinearExtractor.build(head)
    settings = RegressorTraining(
        identities=options.identities, frames=options.frames, epochs=options.epochs, seed=options.seed
    )
    tell = progress or (lambda stage, done, total: None)
    train = unseen_frames = errors = None
    if options.data:
        sets = [_rendered(path, extractor) for path in options.data]
        test = None if options.test_data is None else _rendered(options.test_data, extractor)
        train, unseen_frames = seen_and_unseen(sets, test, tracker or MediaPipeTracker(), options.detections, tell)
        errors = tracker_errors(train)
    if options.keep_points:
        regressor = LandmarkRegressor.load()
    else:
        regressor = _points_regressor(head, extractor, settings, errors, tell)
    notes = regressor.notes
    if train is not None and train.has_mesh:
        notes["mesh"] = _add_mesh(regressor, train, extractor, mesh or MeshTraining(seed=settings.seed), tell)
    unseen = SPLITS["validation"][: min(HELD_OUT_HEADS, settings.identities)]
    held_out = draw_samples(head, extractor, unseen, settings.frames, noisy_fit=True)
    results: dict[str, object] = {
        "command": command,
        **measured_now(),
        "seed": settings.seed,
        "training": notes,
        "held_out": _held_out(regressor, extractor, held_out),
    }
    if train is not None and unseen_frames is not None:
        probe = fit_probe(train.true_beta, train.true_weights)
        results["face_tracker"] = measure_detections(regressor, unseen_frames, probe)
    results["alignment"] = {"rescale": regressor.alignment.rescale, "origin": list(regressor.alignment.origin)}
    results["sha256"] = regressor.save(options.output)
    if options.report is not None:
        write_json(options.report, results)
    exact = measure(regressor, held_out, 1.0, aligned=True)
    return (
        f"{options.output}: beta R2 (first 10 modes) {exact.beta_r2_first_10:.3f}, camera error "
        f"{exact.angle_error_deg_mean:.2f} degrees"
    )


def _points_regressor(
    head: ParametricHead,
    extractor: LinearExtractor,
    settings: RegressorTraining,
    errors: TrackerErrors | None,
    tell: Progress,
) -> LandmarkRegressor:
    """Draw heads and train the network for 68 points on them."""
    seeds = SPLITS["train"][: settings.identities]
    samples = draw_samples(head, extractor, seeds, settings.frames, progress=partial(tell, "drawing heads"))
    alignment = fit_points_alignment(samples.landmarks.numpy())
    config = RegressorConfig(alignment=alignment, expression_space=extractor.info["expression_space"])
    net = train_regressor(
        samples, config, settings, tracker=errors, progress=lambda done, n, loss: tell("training", done, n)
    )
    return make_regressor(net, {"head_model": head.name, "extractor": extractor.info, **asdict(settings)}, errors)


def _add_mesh(
    regressor: LandmarkRegressor, train: Detections, extractor: LinearExtractor, settings: MeshTraining, tell: Progress
) -> dict[str, object]:
    """Train the network for dense meshes, give it to the regressor; returns what the file says of it."""
    net = train_mesh(
        mesh_samples(train, extractor, regressor.alignment),
        MeshConfig(),
        settings,
        progress=lambda done, n, loss: tell("training on meshes", done, n),
    )
    gain = round(float(net.get_buffer("beta_gain")[:10].mean()), 4)
    facts = {"frames": len(train.mesh), "people": len(np.unique(train.clip)), "mean_gain_first_10": gain}
    regressor.mesh_net = net.eval().requires_grad_(False)
    return {**facts, **asdict(net.config), **asdict(settings)}


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


def _held_out(regressor: LandmarkRegressor, extractor: LinearExtractor, samples: Samples) -> dict[str, object]:
    rows = [measure(regressor, samples, noise, aligned=a).as_dict() for a in (False, True) for noise in (0.5, 1.0, 2.0)]
    return {"frames": len(samples), "rows": rows, "fit_repeated_r2_per_mode": repeat_fit_r2(extractor, samples)}


def _rendered(folder: Path, extractor: LinearExtractor) -> ClipDataset:
    """The clips of a folder, which must have been made with this extractor."""
    dataset = ClipDataset(folder)
    made, mine = dataset.extractor.get("sha256"), extractor.info["sha256"]
    if made != mine:
        raise DataError(
            f"{folder}: its coefficients were made by the extractor {str(made)[:12]}; the head model given here makes "
            f"{mine[:12]}. Render the clips and train the regressor with the same head model."
        )
    return dataset


def _to_crops(found: np.ndarray, truth: np.ndarray, alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of points in the crops that the found points give."""
    pairs = []
    for points, exact in zip(found, truth, strict=True):
        crop: Crop = crop_transform(points, alignment)
        pairs.append((crop.to_crop(points), crop.to_crop(exact)))
    first, second = zip(*pairs, strict=True)
    return np.stack(first), np.stack(second)
