"""`export3d sweep`: what each basis vector of CLeBS does to a portrait (Figs. 9 and 13)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from export3d.cli.common import check_targets, entry, progress_bar, refuse_overwriting_inputs
from export3d.cli.network import PhotoOptions
from export3d.cli.provenance import start_finish, warn_of_missing_manifest
from export3d.errors import DataError, UsageError
from export3d.provenance import ProvenanceOptions

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class SweepCommand(PhotoOptions):
    """Vary the expression of a portrait along each basis vector; one row of pictures per vector."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Contact sheet to write, .png or .jpg."""

    ranges: Literal["spread", "paper"] = "spread"
    """spread: mean and spread of each coefficient. paper: the paper's ranges, for the vectors it shows."""

    spread_from: Path | None = None
    """Clips whose expressions give the spread, and which weights of brows, lids and mouth go with a coefficient; without it
    standard normal expressions do, and the face moves less."""

    vectors: tuple[int, ...] = ()
    """Basis vectors, counted from 1; all when left out."""

    steps: int = 7
    """Pictures in a row."""

    deviations: float = 2.5
    """How far `spread` reaches to either side, in standard deviations."""

    frontal: bool = False
    """Show the head from the front instead of from the photo's own camera."""

    provenance: ProvenanceOptions = field(default_factory=ProvenanceOptions)
    """Label, mark, signed manifest, consent, allowed portraits."""


def run(options: SweepCommand) -> str:
    """Draw the contact sheet; returns the result line."""
    import numpy as np

    from export3d.animation.sweep import (
        SweepOptions,
        coefficient_spread,
        require_basis,
        sweep_frames,
        sweep_sheet,
        sweep_values,
        weights_along,
    )
    from export3d.animation.targets import is_still, write_picture
    from export3d.camera import Camera

    if not is_still(options.output):
        raise UsageError(f"sweep: -o must end in .png or .jpg; got {options.output}.")
    chosen = SweepOptions(
        ranges=options.ranges, vectors=options.vectors, steps=options.steps, deviations=options.deviations
    )
    check_targets((options.output,))
    refuse_overwriting_inputs(options.output, options.source)
    finish = start_finish(options.provenance, source=options.source, model=options.network.model)
    model = options.network.load()
    require_basis(model)
    beta = None if options.spread_from is None else _expressions(options.spread_from, model.config.expression.space)
    if options.ranges == "paper":  # the spread is not needed, and not every space has one
        mean = spread = np.zeros(model.config.expression.num_basis)
    else:
        mean, spread = coefficient_spread(model, beta)
    values = sweep_values(chosen, mean, spread)
    with options.animator(model, options.provenance.allow) as animator:
        camera = Camera.look_at_head().to_vector()[0].numpy() if options.frontal else None
        with progress_bar("sweeping", len(values) * options.steps) as report:
            slope = None if beta is None else weights_along(model, beta)
            frames = sweep_frames(animator, values, slope=slope, camera=camera, on_frame=report)
    write_picture(options.output, sweep_sheet(frames, values), finish)
    warn_of_missing_manifest(finish)
    return f"{options.output}: {len(values)} basis vectors, {options.steps} pictures each"


sweep_main = entry("sweep", SweepCommand, run)


def _expressions(folder: Path, space: str) -> np.ndarray:
    """``(N, 64)``: beta of all frames of the clips; `DataError` where they are in another expression space."""
    import numpy as np

    from export3d.data import ClipDataset

    clips = ClipDataset(folder)
    found = clips.extractor["expression_space"]
    if found != space:
        raise DataError(
            f"{folder}: its beta is in the expression space '{found}'; the model expects '{space}'. Give clips of that space."
        )
    return np.concatenate([clips.arrays(i)["beta"] for i in range(len(clips))])
