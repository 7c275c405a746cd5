"""`export3d demo`: the bundled sample portrait, driven by the bundled sample clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from export3d.cli.common import entry, progress_bar, result_line, say
from export3d.cli.network import NetworkOptions
from export3d.cli.provenance import allowed_sources, start_finish, warn_of_missing_manifest
from export3d.errors import UsageError
from export3d.files import make_folder
from export3d.provenance import ProvenanceOptions

if TYPE_CHECKING:
    from export3d.animation import Animator
    from export3d.provenance import Finish

FRAME_RATE = Fraction(25)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Write animated.mp4 (portrait, driving clip and result), orbit.mp4 (turning head and depth) and depth.png."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out/demo")
    """Folder to write to; it is made if it does not exist."""

    portrait: int = 1
    """Number of the bundled sample portrait."""

    size: int = 256
    """Height of the videos in pixels."""

    exact: bool = False
    """Render every sample of every ray, as training and evaluation do: slower, and hardly to be told apart."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Which model, and where it runs."""

    provenance: ProvenanceOptions = field(
        default_factory=lambda: ProvenanceOptions(label="AI-generated", consent="A sample that comes with Export3D.")
    )
    """Label, mark, signed manifest, consent, allowed portraits."""


def sample_portraits() -> list[Path]:
    """The bundled portraits, in the order of their numbers."""
    return sorted(samples_folder().glob("portrait_*.png"), key=lambda path: (len(path.name), path.name))


def samples_folder() -> Path:
    """Where the bundled portraits and the driving clip lie."""
    return Path(str(resources.files("export3d"))) / "assets" / "samples"


def run(options: DemoOptions) -> None:
    """Make the three files and print one line for each."""
    from export3d.animation import Animator
    from export3d.animation.targets import check_target
    from export3d.tracking import Tracker
    from export3d.training.loop.memory import keep_freed_memory

    source, driving = _samples(options.portrait)
    make_folder(options.output)
    check_target(options.output / "animated.mp4")
    keep_freed_memory()
    allowed = allowed_sources(options.provenance.allow)
    beside = start_finish(  # camera pictures beside generated ones
        options.provenance, source=source, drivers=[driving], model=options.network.model, composite=True
    )
    finish = start_finish(options.provenance, source=source, model=options.network.model)
    model = options.network.load()
    with Tracker(choice="largest", size=model.config.image_size) as tracker:
        animator = Animator(model, tracker, exact=options.exact, allowed=allowed, detail=options.size, framing=None)
        animator.portrait(source)
        _animate(animator, driving, options, beside)
        animator.framing = "face"  # from all around there is no photograph
        animator.portrait(source)
        _turn(animator, options, finish)
    warn_of_missing_manifest(finish)


demo_main = entry("demo", DemoOptions, run)


def _samples(number: int) -> tuple[Path, Path]:
    """The sample portrait of that number and the sample clip."""
    portraits, driving = sample_portraits(), samples_folder() / "driving.mp4"
    if not portraits or not driving.is_file():
        raise UsageError(
            f"{samples_folder()}: the sample portraits or the sample clip are missing; reinstall export3d."
        )
    if not 1 <= number <= len(portraits):
        raise UsageError(f"--portrait must be from 1 to {len(portraits)}; got {number}.")
    return portraits[number - 1], driving


def _animate(animator: Animator, driving: Path, options: DemoOptions, finish: Finish) -> None:
    """Write animated.mp4."""
    from export3d.animation import TransferOptions, VideoOptions, animate_video, open_driver
    from export3d.tracking import Tracker

    tracker = animator.tracker
    driver = open_driver(
        driving,
        lambda: Tracker(tracker.face_tracker, tracker.coefficients, choice="largest"),
        expression_space=animator.model.config.expression.space,
    )
    try:
        with progress_bar("animating", driver.num_frames_hint) as progress:
            report = animate_video(
                animator,
                driver,
                options.output / "animated.mp4",
                video=VideoOptions(size=options.size, side_by_side=True, threads=options.network.threads),
                motion=TransferOptions(),
                finish=finish,
                progress=progress,
            )
    finally:
        driver.close()
    say(result_line(report))


def _turn(animator: Animator, options: DemoOptions, finish: Finish) -> None:
    """Write orbit.mp4 and depth.png."""
    from export3d.animation import VideoOptions, orbit_video
    from export3d.animation.paths import OrbitOptions, orbit_cameras
    from export3d.animation.targets import write_picture
    from export3d.animation.video_output import render_depth

    assert animator.subject is not None
    path = OrbitOptions(num_frames=75)
    with progress_bar("turning", path.num_frames) as progress:
        report = orbit_video(
            animator,
            options.output / "orbit.mp4",
            orbit=path,
            video=VideoOptions(size=options.size, threads=options.network.threads),
            fps=FRAME_RATE,
            with_depth=True,
            finish=finish,
            progress=progress,
        )
    say(result_line(report))
    frontal = orbit_cameras(OrbitOptions(num_frames=1)).to_vector()[0].numpy()
    depth = options.output / "depth.png"
    write_picture(depth, render_depth(animator.render(animator.subject.state, frontal), options.size), finish)
    say(f"{depth}: depth of the portrait, light is near, {options.size}x{options.size}")
