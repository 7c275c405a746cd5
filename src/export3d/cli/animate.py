"""`export3d animate`: drive a portrait with a clip, a photo or a motion file (Fig. 1 at inference)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from export3d.cli.common import (
    parse,
    pick_device,
    progress_bar,
    refuse_overwriting_inputs,
    result_line,
    say,
    set_threads,
    warn_of_damage,
    warn_of_gaps,
)
from export3d.cli.provenance import allowed_sources, start_finish, warn_of_missing_manifest
from export3d.provenance import ProvenanceOptions

if TYPE_CHECKING:
    from export3d.animation import TransferOptions, VideoOptions

STILL_VIDEO_S = 2.0
"""Length of a video that is driven by a single photo."""


@dataclass(frozen=True, kw_only=True)
class AnimateOptions:
    """Make a portrait speak and turn like a driving clip.

    The driving file is a video (its sound is kept), a photo, a motion file made by `export3d track`, or a sound.
    """

    source: Path
    """Photo of the person to animate; one face, roughly frontal."""

    driving: Path
    """Video, photo, motion file (.safetensors) or sound (wav, mp3, m4a, ...) whose expression and head pose are taken over."""

    from_: Annotated[Literal["picture", "sound"], tyro.conf.arg(name="from")] = "picture"
    """What of a film drives: the face in its pictures, or its sound. A file without pictures always drives by sound."""

    seed: int = 0
    """Of the blinks, brows, glances and head of a portrait that is driven by sound."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """What to write: .mp4, .mov, .mkv or .m4v for a video, .png or .jpg for a still."""

    model: str | None = None
    """Name of a bundled model or path of a .safetensors model. The bundled model when left out."""

    side_by_side: bool = False
    """Show portrait, driving clip and result next to each other."""

    expression_only: bool = False
    """Take over expression and gaze; keep the portrait's own head pose."""

    pose_only: bool = False
    """Take over the head pose; keep the portrait's own expression and gaze."""

    relative: bool = False
    """Add the driver's changes since its first face to the portrait's own expression, pose and gaze."""

    gaze: bool = True
    """Let the eyes follow the driver's; --no-gaze leaves them as the portrait has them."""

    shift: bool = True
    """Let the head move in the picture as the driver's does from its first frame on; --no-shift keeps it in the middle."""

    rigid: bool = False
    """Turn the shoulders with the head, as if the camera went round the person. By default the head turns on its neck."""

    smooth: bool = False
    """Calm tracking jitter with a short Gaussian over time, without delay."""

    on_lost: Literal["hold", "skip", "abort"] = "hold"
    """Frames without a face: hold the last expression, skip them (the others keep their times), or stop."""

    face: str | None = None
    """Which face of the portrait: largest, left, right, or a number (0 is the leftmost)."""

    driving_face: str | None = None
    """Which face of the driving file; the same words."""

    framing: Literal["photo", "face"] = "face"
    """What is shown: the whole photo, untouched but for the head that moves in it, or the square around the face. Busy
    backgrounds need the file that EXPORT3D_PERSON_MODEL names: MediaPipe's selfie_segmentation.tflite."""

    size: int | None = None
    """Height of the video in pixels, with the photo's own detail in as many as it has (at most 1024). When left out: the
    model's own; with --framing photo the photo's, up to 1920 x 1080."""

    crf: int = 18
    """Quality of the video: 0 is lossless, 51 the worst."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a CUDA GPU where there is one."""

    exact: bool = False
    """Render every sample of every ray, as training and evaluation do: slower, and hardly to be told apart."""

    threads: int = 0
    """Threads for network and encoder; 0 is automatic."""

    provenance: ProvenanceOptions = field(default_factory=ProvenanceOptions)
    """Label, mark, signed manifest, consent, allowed portraits."""


def animate_main(argv: Sequence[str]) -> int:
    """Run `export3d animate` with these arguments."""
    options = parse(AnimateOptions, argv, command="animate")
    say(run(options))
    return 0


def run(options: AnimateOptions) -> str:
    """Animate as asked; returns the result line."""
    # Imported here: `export3d animate --help` should not wait for PyTorch.
    from export3d.animation import Animator, SoundDriver, animate_video, open_driver
    from export3d.animation.paste import DETAIL_PX
    from export3d.animation.targets import check_target, is_still
    from export3d.portrait import load_model
    from export3d.tracking import Tracker
    from export3d.training.loop.memory import keep_freed_memory

    video, motion = _choices(options)
    set_threads(options.threads)
    keep_freed_memory()
    check_target(options.output)
    refuse_overwriting_inputs(options.output, options.source, options.driving)
    allowed = allowed_sources(options.provenance)
    finish = start_finish(
        options.provenance,
        source=options.source,
        driver=options.driving,
        model=options.model,
        composite=options.side_by_side,
    )
    model = load_model(options.model, device=pick_device(options.device))
    with Tracker(choice=options.face, size=model.config.image_size) as tracker:
        apart = options.framing == "photo"
        detail = DETAIL_PX if apart else options.size
        animator = Animator(model, tracker, exact=options.exact, allowed=allowed, detail=detail, apart=apart)
        animator.portrait(options.source)
        driver = open_driver(
            options.driving,
            lambda: Tracker(tracker.face_tracker, tracker.coefficients, choice=options.driving_face),
            expression_space=model.config.expression.space,
            still_seconds=0.0 if is_still(options.output) else STILL_VIDEO_S,
            threads=options.threads,
            by_sound=lambda path: SoundDriver(path, model, seed=options.seed),
            sound=options.from_ == "sound",
        )
        try:
            with progress_bar("animating", driver.num_frames_hint) as progress:
                report = animate_video(
                    animator,
                    driver,
                    options.output,
                    video=video,
                    motion=motion,
                    on_lost=options.on_lost,
                    finish=finish,
                    progress=progress,
                )
        finally:
            driver.close()
    warn_of_damage(options.driving, driver.problems)
    warn_of_gaps(report, options.on_lost)
    warn_of_missing_manifest(finish)
    return result_line(report)


def _choices(options: AnimateOptions) -> tuple[VideoOptions, TransferOptions]:
    """What is asked of the video, and of the motion."""
    from export3d.animation import TransferOptions, VideoOptions
    from export3d.tracking.smoothing import SIGMA_S

    video = VideoOptions(
        size=options.size,
        framing=options.framing,
        side_by_side=options.side_by_side,
        rigid=options.rigid,
        crf=options.crf,
        threads=options.threads,
    )
    motion = TransferOptions(
        expression_only=options.expression_only,
        pose_only=options.pose_only,
        relative=options.relative,
        gaze=options.gaze,
        shift=options.shift,
        smooth_s=SIGMA_S if options.smooth else 0.0,
    )
    return video, motion
