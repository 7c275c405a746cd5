"""What `export3d animate` drives: the face of a photo, several faces of one, or the face of a film."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from export3d.cli.driving import DrivingOptions
from export3d.cli.network import ExtractorOptions, NetworkOptions, open_tracker
from export3d.errors import UsageError

if TYPE_CHECKING:
    from export3d.animation import Animator, Driver, TransferOptions, VideoReport

EVERYONE = "all"


@dataclass(frozen=True, kw_only=True)
class SourceOptions(DrivingOptions):
    """What is driven, and what is shown of it."""

    source: Path
    """Photo of the person to animate, roughly frontal; or a film, of whose face the driver changes parts, frame by frame,
    while its sound, its times and all its other pixels stay."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """What to write: .mp4, .mov, .mkv or .m4v for a video, .png or .jpg for a still."""

    side_by_side: bool = False
    """Show portrait, driving clip and result next to each other."""

    rigid: bool = False
    """Turn the shoulders with the head, as if the camera went round the person. By default the head turns on its neck."""

    face: str | None = None
    """Which face of the portrait: largest, left, right, or a number (0 is the leftmost); several (0,2) or all of a photo."""

    source_until: Literal["loop", "hold", "shortest"] | None = None
    """With a film as the source: it starts again or holds its last frame until the driver ends, or the shorter one ends the
    result. When left out the result is as long as the film; a shorter driver's last face is held."""

    sound: Literal["source", "driving"] = "source"
    """With a film as the source: whose sound the result has. A photo's result has the driver's."""

    framing: Literal["photo", "face"] | None = None
    """What is shown: the whole photo, untouched but for the head that moves in it, or the square around the face. When left
    out: the photo where its person can be told from the background."""

    background: str = "keep"
    """What is behind the person: keep, the path of a picture, a colour (white, '#20a0ff'), or transparent (.webm, .mov, .png or
    %04d.png). `export3d models get person-segmentation` fetches what finds the person in a busy photo."""

    size: int | None = None
    """Height of the video in pixels, with the photo's own detail in as many as it has (at most 1024). When left out: 512, or
    as many as the face has; with the whole photo the photo's, up to 1920 x 1080."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Which model, and where it runs."""

    reads: ExtractorOptions = field(default_factory=ExtractorOptions)
    """What reads beta off a face."""


class Source:
    """One face of a photo; the base of the other kinds.

    Attributes:
        strengths: of each region.
        choice: which face the animator's tracker takes.
        detail, framing: see `Animator`.
    """

    name = "one face of a photo (--face all or 0,2 takes several)"
    regions: str | None = None
    """What follows the driver when nothing else is said; None is all."""

    def __init__(self, options: SourceOptions) -> None:
        from export3d.animation.paste import DETAIL_PX

        self.options = options
        self.strengths = options.strengths(default=self.regions)
        options.neutral_time()  # what is wrong with options is said before any work
        self.choice, self.detail = options.face, options.size or DETAIL_PX
        self.framing: Literal["photo", "face"] | None = options.framing
        for option, given in self.refused().items():
            if given:
                raise UsageError(f"{option} is not for {self.name} as --source; leave it out.")

    def refused(self) -> dict[str, bool]:
        """Option -> whether it was given, of those that have no meaning here."""
        return {
            "--source-until": self.options.source_until is not None,
            "--sound driving": self.options.sound == "driving",
            "--driving with several files": len(self.options.driving) > 1,
        }

    def prepare(self, animator: Animator) -> Sequence[str]:
        """Read the source; returns warnings."""
        self.animator = animator
        return animator.portrait(self.options.source).warnings

    def animate(self, drivers: Sequence[Driver], motion: Sequence[TransferOptions], **how: Any) -> VideoReport:
        """Make the output; `how` is what all kinds of videos take."""
        from export3d.animation import animate_video

        return animate_video(self.animator, drivers[0], self.options.output, motion=motion[0], **how)


class Faces(Source):
    """Several faces of one photo, put back into it."""

    name = "several faces"

    def __init__(self, options: SourceOptions) -> None:
        super().__init__(options)
        words = (options.face or EVERYONE).split(",")
        self.chosen = None if words == [EVERYONE] else [int(word) for word in words]
        if self.chosen is not None and len(set(self.chosen)) < len(self.chosen):
            raise UsageError(f"--face {options.face}: a face is named twice.")
        self.choice, self.framing = None, "photo"

    def refused(self) -> dict[str, bool]:
        options = self.options
        return {
            "--source-until": options.source_until is not None,
            "--sound driving": options.sound == "driving",
            "--side-by-side": options.side_by_side,
            "--background": options.background != "keep",
            "--framing face": options.framing == "face",
        }

    def prepare(self, animator: Animator) -> Sequence[str]:
        from export3d.animation.group import check_drivers, find_everyone

        self.animators, warnings = find_everyone(animator, self.options.source, self.chosen)
        check_drivers(len(self.animators), len(self.options.driving))
        return warnings

    def animate(self, drivers: Sequence[Driver], motion: Sequence[TransferOptions], **how: Any) -> VideoReport:
        from export3d.animation.group import animate_group

        return animate_group(self.animators, drivers, self.options.output, motion=motion, **how)


class Footage(Source):
    """A film, of whose face parts are changed."""

    name = "a film"
    regions = "lips,jaw"

    def __init__(self, options: SourceOptions) -> None:
        from export3d.animation.dub import DubOptions

        super().__init__(options)
        self.framing = "face"
        sound = options.sound == "driving"
        self.dub = DubOptions(strengths=self.strengths, until=options.source_until, driver_sound=sound)

    def refused(self) -> dict[str, bool]:
        options = self.options
        return {
            "--driving with several files": len(options.driving) > 1,
            "--face with several faces": is_several(options.face),
            "--side-by-side": options.side_by_side,
            "--background": options.background != "keep",
            "--framing": options.framing is not None,
            "--size": options.size is not None,
            "--rigid": options.rigid,
            "a still as -o": options.output.suffix.lower() in (".png", ".jpg", ".jpeg"),
        }

    def prepare(self, animator: Animator) -> Sequence[str]:
        self.animator = animator
        # The driver's faces are followed at the same time, by the animator's tracker.
        self.tracker = open_tracker(self.options.reads, animator.model, self.choice)
        return ()

    def animate(self, drivers: Sequence[Driver], motion: Sequence[TransferOptions], **how: Any) -> VideoReport:
        from export3d.animation import ClipDriver
        from export3d.animation.dub import dub_video

        opened = partial(ClipDriver, self.options.source, self.tracker, threads=self.options.network.threads)
        with self.tracker:
            return dub_video(
                self.animator, opened, drivers[0], self.options.output, dub=self.dub, motion=motion[0], **how
            )


def source_of(options: SourceOptions) -> Source:
    """The kind of source that the options ask for.

    Raises:
        UsageError: Options that have no meaning for it, or exclude each other.
    """
    kind = Footage if is_video(options.source) else Faces if is_several(options.face) else Source
    return kind(options)


def is_several(face: str | None) -> bool:
    """Whether `--face` names several faces."""
    return face == EVERYONE or (face is not None and "," in face and face.replace(",", "").isdecimal())


def is_video(path: Path) -> bool:
    """Whether a source is a film, by its name and because it is no picture."""
    from export3d.images import is_moving  # with PyTorch, for which --help should not wait

    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("video/") and path.is_file() and is_moving(path) is None
