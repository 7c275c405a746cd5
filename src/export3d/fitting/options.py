"""What every fit of the tracker's maps is told; without PyTorch, for which `--help` should not wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export3d.errors import OutputError, UsageError

MAX_FRAMES = 12000


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Fit what the tracker reads from the mesh on rendered heads; MediaPipe looks at them, the fit itself takes seconds."""

    output: Path
    """File to write, .safetensors."""
    data: tuple[Path, ...]
    """Folders of rendered clips (`export3d heads render`)."""
    test_data: Path | None = None
    """Rendered clips of other people to measure on. Without it every fifth person of --data is kept for that."""
    detections: Path | None = None
    """Folder that keeps what MediaPipe found, so that the next fit need not look again."""
    frames: int = MAX_FRAMES
    """Look at no more than about so many frames of each folder."""
    report: Path | None = None
    """Write the measured errors to this JSON file."""

    def __post_init__(self) -> None:
        if self.detections is not None and not self.detections.is_dir():
            raise OutputError(f"--detections {self.detections}: no such folder. Make it first.")
        if self.frames < 1:
            raise UsageError(f"--frames: expected at least 1; got {self.frames}.")
        if not self.data:
            raise UsageError("--data needs at least one folder of rendered clips.")
