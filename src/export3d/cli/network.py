"""What the commands share that run a model: which one and where, what reads faces for it, and the animator of a portrait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from export3d.cli.common import check_threads, pick_device, set_threads
from export3d.cli.provenance import allowed_sources

if TYPE_CHECKING:
    from export3d.animation import Animator
    from export3d.portrait import Model
    from export3d.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which model, and where it runs."""

    model: str | None = None
    """Name of a bundled model or path of a .safetensors model. The bundled model when left out."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a CUDA GPU where there is one."""

    threads: int = 0
    """Threads for network and encoder; 0 is automatic."""

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def load(self, load: Callable[..., Model] | None = None) -> Model:
        """The model on its device, with so many threads from now on; `load` gives it instead of `load_model`."""
        from export3d.portrait import load_model

        set_threads(self.threads)
        return (load or load_model)(self.model, device=pick_device(self.device))


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions:
    """What reads beta and the camera off a face."""

    coefficients: Literal["auto", "regressor", "arkit52", "deep3d"] = "auto"
    """What beta is; auto takes what the model was trained on."""

    extractor: Path | None = None
    """File of what reads beta: Deep3DFaceRecon's checkpoint (epoch_20.pth) for a model that was trained on bfm64, or another
    regressor than the bundled one."""


def open_tracker(options: ExtractorOptions, model: Model, face: str | None) -> Tracker:
    """A tracker whose coefficients and crops are those that the model was trained on.

    Raises:
        UsageError: The extractor is missing.
        CheckpointError: It is damaged or another one.
    """
    from export3d.tracking import Tracker
    from export3d.tracking.coefficients import open_coefficients
    from export3d.tracking.mediapipe_tracker import MediaPipeTracker

    faces = MediaPipeTracker()
    space = model.config.expression.space
    reads = open_coefficients(options.coefficients, faces=faces.info, file=options.extractor, space=space)
    return Tracker(faces, reads, choice=face, size=model.config.image_size)


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """The person of a photo."""

    source: Path
    """Photo of the person; one face, roughly frontal."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """What to write."""

    face: str | None = None
    """Which face of the portrait: largest, left, right, or a number (0 is the leftmost)."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Which model, and where it runs."""

    reads: ExtractorOptions = field(default_factory=ExtractorOptions)
    """What reads beta off a face."""

    @contextmanager
    def animator(self, model: Model, allow: Path | None, **how: Any) -> Iterator[Animator]:
        """An animator that has the portrait, if it is one of those of `allow`; `how` is its own.

        Raises:
            SourceNotAllowedError, NoFaceError, ImageReadError: The portrait is none.
        """
        from export3d.animation import Animator

        with open_tracker(self.reads, model, self.face) as tracker:
            animator = Animator(model, tracker, allowed=allowed_sources(allow), **how)
            animator.portrait(self.source)
            yield animator
