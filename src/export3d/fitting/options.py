"""What the fits of the tracker's maps and networks are told; without PyTorch, for which `--help` should not wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from export3d.errors import OutputError, UsageError

MAX_FRAMES = 12000


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write, .safetensors."""
    data: tuple[Path, ...]
    """Folders of rendered clips (`export3d heads render`)."""
    test_data: Path | None = None
    """Rendered clips of other people to measure on. Without it every fifth person of --data is kept for that."""
    detections: Path | None = None
    """Folder that keeps what MediaPipe found, so that the next fit need not look again."""
    report: Path | None = None
    """Write the measured errors to this JSON file."""

    def __post_init__(self) -> None:
        if self.detections is not None and not self.detections.is_dir():
            raise OutputError(f"--detections {self.detections}: no such folder. Make it first.")


@dataclass(frozen=True, kw_only=True)
class FitOptions(_Fitted):
    """Fit what the tracker reads from the mesh on rendered heads; MediaPipe looks at them, the fit itself takes seconds."""

    frames: int = MAX_FRAMES
    """Look at no more than about so many frames of each folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 1:
            raise UsageError(f"--frames: expected at least 1; got {self.frames}.")
        if not self.data:
            raise UsageError("--data needs at least one folder of rendered clips.")


@dataclass(frozen=True, kw_only=True)
class RegressorOptions(_Fitted):
    """Train the landmark regressor on synthetic heads; takes a few minutes on one core."""

    head_model: Path | None = None
    """Head model (.npz); the variable EXPORT3D_HEAD_MODEL, else the procedural head, when left out."""
    data: tuple[Path, ...] = ()
    """Folders of rendered clips. MediaPipe looks at them; a network for its dense mesh is trained on what it finds."""
    identities: int = 1500
    """Random heads that are drawn."""
    frames: int = 20
    """Random frames of each head."""
    epochs: int = 45
    """Passes over them."""
    keep_points: bool = False
    """Keep the bundled network for 68 points and train the one for the dense mesh alone, on --data."""
    seed: int = 0
    """Seed of everything that is random."""

    def __post_init__(self) -> None:
        if self.keep_points and not self.data:
            raise UsageError("train-regressor: --keep-points trains on --data alone; give that too.")
        if self.test_data is not None and not self.data:
            raise UsageError("train-regressor: --test-data measures what was learned from --data; give that too.")
        super().__post_init__()
