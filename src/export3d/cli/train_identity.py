"""`export3d train-identity`: the offline identity network behind CSIM (docs/evaluation.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from export3d.cli.common import check_targets, entry, progress_bar, set_threads
from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainIdentityOptions:
    """Train the identity network on synthetic heads; takes some minutes on one core."""

    data: Path
    """Synthetic clips to train on (`export3d heads render`)."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write, .safetensors; it holds its own accuracy on people it never saw."""
    held_out: Path | None = None
    """Clips of other people to measure on. The last 15 % of the people of --data when left out."""
    report: Path | None = None
    """Write the settings and the measured accuracy to this JSON file too."""
    epochs: int = 4
    """Passes over all frames."""
    seed: int = 0
    """Seed of everything that is random."""
    threads: int = 0
    """Threads of the network; 0 is automatic."""


def run(options: TrainIdentityOptions) -> str:
    """Train, measure, write; returns how good it is."""
    from export3d.data import ClipDataset
    from export3d.files import write_json
    from export3d.fitting.identity import IdentityTraining, train_identity

    check_targets((options.output, ".safetensors"), (options.report, ".json"))
    if options.epochs < 1:
        raise UsageError(f"--epochs must be at least 1; got {options.epochs}.")
    set_threads(options.threads)
    held_out = None if options.held_out is None else ClipDataset(options.held_out)
    with progress_bar("training the identity network", None) as report:
        facts = train_identity(
            ClipDataset(options.data),
            options.output,
            IdentityTraining(epochs=options.epochs, seed=options.seed),
            held_out=held_out,
            on_progress=lambda done, _: report(done),
        )
    measured = facts["verification"]
    if options.report is not None:
        write_json(options.report, facts)
    return (
        f"{options.output}: {facts['identities']} identities, {facts['frames']} frames, {facts['seconds']:.0f} s; "
        f"verification on {measured['identities']} held-out identities: accuracy {measured['accuracy']:.3f}, "
        f"AUC {measured['auc']:.3f} ({measured['pairs']} pairs)"
    )


train_identity_main = entry("train-identity", TrainIdentityOptions, run)
