"""`export3d orbit`: a portrait seen from a moving camera, with its depth beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import tyro

from export3d.cli.common import entry, progress_bar, refuse_overwriting_inputs, result_line
from export3d.cli.network import PhotoOptions
from export3d.cli.provenance import start_finish, warn_of_missing_manifest
from export3d.errors import UsageError
from export3d.provenance import ProvenanceOptions


@dataclass(frozen=True, kw_only=True)
class OrbitCommand(PhotoOptions):
    """Turn the head of a portrait: new views of one photo, its own expression kept."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """What to write: .mp4, .mov, .mkv or .m4v for a video, .png or .jpg for the first view."""

    depth: bool = False
    """Show the depth next to the picture: light is near, dark is far."""

    path: Literal["sweep", "circle"] = "sweep"
    """sweep: left and right, then up and down. circle: both at once."""

    yaw_deg: float = 30.0
    """Largest turn to either side, degrees."""

    pitch_deg: float = 15.0
    """Largest nod up and down, degrees."""

    seconds: float = 4.0
    """Length of the video."""

    fps: int = 25
    """Frames per second."""

    size: int | None = None
    """Height of the video in pixels; the model's own size when left out."""

    crf: int = 18
    """Quality of the video: 0 is lossless, 51 the worst."""

    exact: bool = False
    """Render every sample of every ray, as training and evaluation do: slower, and hardly to be told apart."""

    provenance: ProvenanceOptions = field(default_factory=ProvenanceOptions)
    """Label, mark, signed manifest, consent, allowed portraits."""


def run(options: OrbitCommand) -> str:
    """Turn the head as asked; returns the result line."""
    # Imported here: `export3d orbit --help` should not wait for PyTorch.
    from export3d.animation import VideoOptions, orbit_video
    from export3d.animation.paths import OrbitOptions
    from export3d.animation.targets import check_target
    from export3d.training.loop.memory import keep_freed_memory

    if not 1 <= options.fps <= 240 or not 0 < options.seconds <= 3600:
        raise UsageError(
            f"orbit: --fps must be 1-240 and --seconds above 0 and at most 3600; got {options.fps}, {options.seconds}."
        )
    orbit = OrbitOptions(
        kind=options.path,
        yaw_deg=options.yaw_deg,
        pitch_deg=options.pitch_deg,
        num_frames=max(1, round(options.seconds * options.fps)),
    )
    video = VideoOptions(size=options.size, crf=options.crf, threads=options.network.threads)
    keep_freed_memory()
    check_target(options.output)
    refuse_overwriting_inputs(options.output, options.source)
    finish = start_finish(options.provenance, source=options.source, model=options.network.model)
    how = {"exact": options.exact, "detail": options.size}
    with options.animator(options.network.load(), options.provenance.allow, **how) as animator:
        with progress_bar("turning", orbit.num_frames) as progress:
            report = orbit_video(
                animator,
                options.output,
                orbit=orbit,
                video=video,
                fps=Fraction(options.fps),
                with_depth=options.depth,
                finish=finish,
                progress=progress,
            )
    warn_of_missing_manifest(finish)
    return result_line(report)


orbit_main = entry("orbit", OrbitCommand, run)
