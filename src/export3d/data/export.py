"""Turn a stored clip back into an ordinary film, or one of its frames into a picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from export3d.data.dataset import ClipDataset
from export3d.errors import DataError, UsageError
from export3d.images import write_sheet
from export3d.video import VideoWriter

PICTURES = (".png", ".jpg", ".jpeg")


def export_clip(dataset: ClipDataset, key: str, path: str | Path, frame: int = 0) -> None:
    """Write clip `key` as H.264, or its frame number `frame` as a picture, by the suffix of `path`.

    Raises:
        DataError: The data set has no such clip.
        UsageError: The clip has no such frame, or the suffix is of no picture or film format.
        OutputError: The picture cannot be written.
    """
    path = Path(path)
    if key not in dataset.keys:
        raise DataError(
            f"no clip '{key}' in this data set; it holds {len(dataset)} clips, the first is '{dataset.keys[0]}'."
        )
    index = dataset.places[key]
    if path.suffix.lower() in PICTURES:
        if not 0 <= frame < dataset.num_frames(index):
            raise UsageError(f"--frame must be from 0 to {dataset.num_frames(index) - 1}; got {frame}.")
        write_sheet(path, dataset.frame(index, frame), quality=95)
        return
    numerator, denominator = dataset.meta(index)["fps"]
    with VideoWriter(path, Fraction(numerator, denominator), (dataset.size, dataset.size)) as writer:
        for time in range(dataset.num_frames(index)):
            writer.write(dataset.frame(index, time))
