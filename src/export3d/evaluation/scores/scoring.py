"""From frames to scores (Sec. 4.2): all metrics of one animated clip, and the table over many clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export3d.errors import DataError
from export3d.evaluation.metrics.backends import FaceBackend, IdentityBackend, PictureDistance
from export3d.evaluation.metrics.bootstrap import Interval, bootstrap_interval
from export3d.evaluation.metrics.consistency import excess_flicker, flicker
from export3d.evaluation.metrics.pictures import aed, akd, apd, csim, psnr, ssim, summarise
from export3d.evaluation.scores.protocol import Pair
from export3d.files import write_atomically

METRICS = {
    "psnr": ("PSNR (dB)", True),
    "ssim_gaussian": ("SSIM (Gaussian 11x11)", True),
    "ssim_uniform": ("SSIM (box 7x7)", True),
    "lpips": ("LPIPS (VGG16)", False),
    "akd": ("AKD (px at 256)", False),
    "csim_source": ("CSIM to the source", True),
    "csim_driving": ("CSIM to the driving frame", True),
    "aed": ("AED", False),
    "apd": ("APD", False),
    "apd_rotation": ("APD, rotation (rad)", False),
    "apd_translation": ("APD, translation (scene units)", False),
    "flicker": ("Flicker (8-bit levels)", False),
    "flicker_excess": ("Flicker beyond the driving clip", False),
    # Of a model, which can show the same expression from another camera; frames from elsewhere have none.
    "view_error": ("Two views, colour error (8-bit levels)", False),
    "view_shared": ("Two views, part seen by both", True),
    # Of synthetic clips, whose truth is known (`export3d.evaluation.metrics.truth`).
    "depth_error": ("Depth error (scene units)", False),
    "camera_angle_error": ("Camera angle error (degrees)", False),
    "expression_error": ("Expression error (true beta)", False),
    # Of cross-identity pairs of synthetic people (`export3d.evaluation.scores.swap`).
    "swap_psnr": ("Source person with the driver's expression, PSNR (dB)", True),
    "leak_cost": ("Cost of the driver's leak (dB)", False),
}
"""Metric -> its label in tables, and whether higher is better; in the order of the tables."""

SAME_IDENTITY_ONLY = ("psnr", "ssim_gaussian", "ssim_uniform", "lpips", "akd", "csim_driving")
"""Metrics that need the true frame or the driver's own identity; never part of cross-identity scores (Sec. 4.2)."""


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """Per-frame values of one animated clip.

    Attributes:
        pair: who was animated by whom.
        values: metric -> ``(T,)`` float64; NaN where a frame has no value.
        method: who made the frames: `model`, `predictions`, or a trivial baseline.
    """

    pair: Pair
    values: dict[str, np.ndarray]
    method: str = "model"


def score_clip(
    pair: Pair,
    source: np.ndarray,
    generated: np.ndarray,
    driving: np.ndarray,
    faces: FaceBackend | None = None,
    *,
    identities: IdentityBackend | None = None,
    pictures: PictureDistance | None = None,
) -> ClipScores:
    """All metrics that the pair's kind and the back ends allow.

    Args:
        pair: `kind` decides which metrics make sense.
        source: uint8 ``(H, H, 3)``.
        generated: uint8 ``(T, H, H, 3)``.
        driving: uint8 ``(T, H, H, 3)``; the true frames where the pair is of one identity.
        faces: for AKD, AED and APD; None leaves them out.
        identities: for CSIM; None leaves it out.
        pictures: for LPIPS; None leaves it out.

    Raises:
        ValueError: Different numbers or sizes of frames.
    """
    if generated.shape != driving.shape:
        raise ValueError(f"generated {generated.shape} and driving {driving.shape} must have the same shape")
    is_same = pair.kind == "same"
    values: dict[str, np.ndarray] = {}
    if is_same:
        values["psnr"] = psnr(generated, driving)
        values["ssim_gaussian"] = ssim(generated, driving, "gaussian")
        values["ssim_uniform"] = ssim(generated, driving, "uniform")
        if pictures is not None:
            values["lpips"] = pictures.distances(generated, driving)
    if faces is not None:
        ours, theirs = faces.measure(generated), faces.measure(driving)
        if is_same:
            values["akd"] = akd(ours.landmarks, theirs.landmarks)
        pose = apd(ours.pose, theirs.pose)
        values["aed"] = aed(ours.expression, theirs.expression)
        values |= {"apd": pose.apd, "apd_rotation": pose.rotation, "apd_translation": pose.translation}
    if identities is not None:
        embedded = identities.embeddings(generated)
        values["csim_source"] = csim(embedded, identities.embeddings(source[None])[0])
        if is_same:
            values["csim_driving"] = csim(embedded, identities.embeddings(driving))
    if len(generated) >= 3:
        gap = np.array([np.nan])  # the first and last frame have one neighbour only
        values["flicker"] = np.concatenate([gap, flicker(generated), gap])
        values["flicker_excess"] = np.concatenate([gap, excess_flicker(generated, driving), gap])
    return ClipScores(pair=pair, values={name: values[name] for name in METRICS if name in values})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric over all clips.

    Attributes:
        metric: its name.
        interval: mean over clips of the clips' means, with its confidence interval.
        frames: frames that were measured.
        missing: frames without a value.
        higher_is_better: the metric's direction.
    """

    metric: str
    interval: Interval
    frames: int
    missing: int
    higher_is_better: bool


def score_table(clips: Sequence[ClipScores], *, seed: int = 0) -> list[Row]:
    """Mean over frames, then over clips, with a bootstrap interval over clips; one row per metric.

    An infinite PSNR (an exact copy of the true frame) makes the mean infinite: it is shown, not hidden.

    Raises:
        DataError: No clips, or clips of both kinds.
    """
    if not clips:
        raise DataError("no clip was scored; there is no table to make.")
    if len({clip.pair.kind for clip in clips}) > 1:
        raise DataError("same-identity and cross-identity clips cannot share a table; score them apart.")
    rows = []
    for metric, (_, higher) in METRICS.items():
        scores = [summarise(clip.values[metric]) for clip in clips if metric in clip.values]
        if not scores:
            continue
        interval = bootstrap_interval(np.array([score.value for score in scores]), seed=seed)
        rows.append(
            Row(
                metric=metric,
                interval=interval,
                frames=sum(score.measured for score in scores),
                missing=sum(score.missing for score in scores),
                higher_is_better=higher,
            )
        )
    return rows


def write_frames_csv(path: str | Path, clips: Sequence[ClipScores]) -> None:
    """One line per frame: method, the pair, the frame's number, then every metric (empty = no value)."""
    metrics = [name for name in METRICS if any(name in clip.values for clip in clips)]

    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["method", "kind", "source_clip", "source_frame", "driving_clip", "frame", *metrics])
    for clip in clips:
        pair = clip.pair
        columns = [clip.values.get(name) for name in metrics]
        for t in range(max(len(v) for v in clip.values.values())):
            cells = ["" if c is None or np.isnan(c[t]) else f"{c[t]:.6g}" for c in columns]
            writer.writerow([clip.method, pair.kind, pair.source_clip, pair.source_frame, pair.driving_clip, t, *cells])
    write_atomically(Path(path), file.getvalue().encode())
