"""`export3d track`: a clip to a motion file or a take; `export3d train-regressor`: the tracker's own network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from export3d.cli.common import check_targets, entry, progress_bar, refuse_overwriting_inputs, warn_of_damage
from export3d.fitting.options import RegressorOptions


@dataclass(frozen=True, kw_only=True)
class TrackCommand:
    """Track the face in a clip once and keep what was found: a motion file drives portraits without the clip."""

    clip: tyro.conf.Positional[Path]
    """Video with a face in it."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Motion file to write, .safetensors; or .csv, a take of ARKit weights as Live Link Face writes it."""

    face: str | None = None
    """Which face, where there are several: largest, left, right, or a number (0 is the leftmost)."""

    on_lost: Literal["hold", "skip", "abort"] = "hold"
    """Frames without a face: hold the last expression, skip the frame, or abort."""

    smooth: bool = False
    """Average over a few frames, against trembling."""

    coefficients: Literal["regressor", "arkit52", "deep3d"] = "regressor"
    """What beta is. The bundled model needs regressor; deep3d needs --extractor."""

    face_landmarker: Path | None = None
    """Another face_landmarker.task than `export3d models get face-landmarker` fetches."""

    extractor: Annotated[Path | None, tyro.conf.arg(aliases=["--deep3d-checkpoint"])] = None
    """Deep3DFaceRecon's checkpoint (epoch_20.pth), or another regressor than the bundled one."""


def track(options: TrackCommand) -> str:
    """Track as asked; returns the result line."""
    from export3d.tracking import Tracker
    from export3d.tracking.clip import track_clip
    from export3d.tracking.coefficients import open_coefficients
    from export3d.tracking.live_link import Take
    from export3d.tracking.mediapipe_tracker import MediaPipeTracker
    from export3d.tracking.smoothing import smooth_motion
    from export3d.video import VideoReader

    check_targets((options.output, ".safetensors", ".csv"))
    refuse_overwriting_inputs(options.output, options.clip)
    with VideoReader(options.clip) as reader:
        faces = MediaPipeTracker(options.face_landmarker)
        reads = open_coefficients(options.coefficients, faces=faces.info, file=options.extractor)
        with Tracker(faces, reads, options.face) as tracker:
            with progress_bar("tracking", reader.num_frames_hint) as progress:
                motion = track_clip(
                    tracker, reader, reader.fps, on_lost=options.on_lost, name=str(options.clip), progress=progress
                )
        warn_of_damage(options.clip, reader.problems)
    if options.smooth:
        motion = smooth_motion(motion)
    (Take.of_motion(motion) if options.output.suffix.lower() == ".csv" else motion).save(options.output)
    lost = int((~motion.found).sum())
    return (
        f"{options.output}: {len(motion)} frames, {float(motion.fps):.6g} fps, face lost in {lost}, "
        f"{motion.extractor.name} {motion.extractor.version} ({motion.extractor.expression_space})"
    )


def train(options: RegressorOptions, command: str) -> str:
    """Train, measure and write as asked; returns the result line. `command` is what was typed, for the report."""
    from export3d.fitting.regressor_build import build_regressor

    check_targets((options.output, ".safetensors"), (options.report, ".json"))
    with progress_bar("training the regressor", None) as progress:
        return build_regressor(options, command=command, progress=lambda stage, done, total: progress(done))


track_main = entry("track", TrackCommand, track)
train_regressor_main = entry("train-regressor", RegressorOptions, train, typed=True)
