"""`export3d animate`: drive a portrait with a clip, a photo or a motion file (Fig. 1 at inference)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from export3d.cli.common import (
    entry,
    progress_bar,
    refuse_overwriting_inputs,
    result_line,
    warn,
    warn_of_damage,
    warn_of_gaps,
)
from export3d.cli.driving import Drivers
from export3d.cli.network import open_tracker
from export3d.cli.provenance import allowed_sources, start_finish, warn_of_missing_manifest
from export3d.cli.sources import SourceOptions, source_of
from export3d.provenance import ProvenanceOptions
from export3d.stopping import stop_signals

if TYPE_CHECKING:
    from export3d.animation import Driver, VideoOptions
    from export3d.portrait import Model


@dataclass(frozen=True, kw_only=True)
class AnimateOptions(SourceOptions):
    """Make a portrait speak and turn like a driving clip.

    The driver is a video (its sound is kept), a photo, a motion file made by `export3d track`, a sound, a take of ARKit weights
    (.csv of Live Link Face), or vmc:PORT, a running VMC sender, which is followed until Ctrl-C.
    """

    on_lost: Literal["hold", "skip", "abort"] = "hold"
    """Frames without a face: hold the last expression, skip them (the others keep their times), or stop."""

    crf: int = 18
    """Quality of the video: 0 is lossless, 51 the worst."""

    exact: bool = False
    """Render every sample of every ray, as training and evaluation do: slower, and hardly to be told apart."""

    provenance: ProvenanceOptions = field(default_factory=ProvenanceOptions)
    """Label, mark, signed manifest, consent, allowed portraits."""


def run(options: AnimateOptions, *, load: Callable[..., Model] | None = None, label: str = "animating") -> str:
    """Animate as asked; returns the result line.

    Args:
        load: gives the model instead of `load_model`, for example one that is loaded already.
        label: of the progress bar.
    """
    # Imported here: `export3d animate --help` should not wait for PyTorch.
    from export3d.animation import Animator
    from export3d.animation.backdrop import TRANSPARENT
    from export3d.animation.targets import check_target, is_still
    from export3d.training.loop.memory import keep_freed_memory

    source, video = source_of(options), _video(options)
    keep_freed_memory()
    check_target(options.output, transparent=options.background == TRANSPARENT)
    parts = [path for path in (options.pose_from, options.lips_from) if path is not None]
    refuse_overwriting_inputs(options.output, options.source, *options.driving, *parts)
    finish = start_finish(
        options.provenance,
        source=options.source,
        drivers=[*options.driving, *parts],
        model=options.network.model,
        composite=options.side_by_side,
    )
    model = options.network.load(load)
    with open_tracker(options.reads, model, source.choice) as tracker, ExitStack() as opened:
        animator = Animator(
            model,
            tracker,
            exact=options.exact,
            allowed=allowed_sources(options.provenance.allow),
            detail=source.detail,
            framing=source.framing,
            apart=video.backdrop is not None,
        )
        for line in source.prepare(animator):
            warn(f"warning: {options.source}: {line}")
        drivers = Drivers(options, model, tracker, still=is_still(options.output), threads=options.network.threads)
        motion = [drivers.motion(path, source.strengths) for path in options.driving]
        played = [opened.enter_context(closing(drivers.combined(path))) for path in options.driving]
        with ending_with_driver(played[0]), progress_bar(label, played[0].num_frames_hint) as progress:
            how = {"video": video, "on_lost": options.on_lost, "finish": finish, "progress": progress}
            report = source.animate(played, motion, **how)
    for path, driver in zip(options.driving, played, strict=True):
        warn_of_damage(path, driver.problems)
    warn_of_gaps(report, options.on_lost)
    warn_of_missing_manifest(finish)
    return result_line(report)


animate_main = entry("animate", AnimateOptions, run)


def ending_with_driver(driver: Driver) -> AbstractContextManager[None]:
    """While a live driver plays, a stop signal ends the film instead of throwing it away."""
    from export3d.animation.takes import LiveDriver

    return stop_signals(lambda _: driver.finish()) if isinstance(driver, LiveDriver) else nullcontext()


def _video(options: AnimateOptions) -> VideoOptions:
    from export3d.animation import VideoOptions
    from export3d.animation.backdrop import Backdrop

    return VideoOptions(
        size=options.size,
        backdrop=Backdrop.of(options.background),
        side_by_side=options.side_by_side,
        rigid=options.rigid,
        crf=options.crf,
        threads=options.network.threads,
    )
