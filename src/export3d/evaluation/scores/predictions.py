"""Frames made elsewhere (Sec. 4.2): the folder layout in which any method's output can be scored.

PREDICTIONS/same/<source clip>/000000.png, 000001.png, ...                      one image per driving frame
PREDICTIONS/cross/<source clip>--by--<driving clip>/000000.png, 000001.png, ...
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export3d.errors import DataError
from export3d.evaluation.scores.protocol import Pair
from export3d.images import read_image

BY = "--by--"


def pair_folder(predictions: str | Path, pair: Pair) -> Path:
    """Where the frames of a pair lie."""
    name = pair.source_clip if pair.kind == "same" else f"{pair.source_clip}{BY}{pair.driving_clip}"
    return Path(predictions) / pair.kind / name


def frame_names(num_frames: int) -> list[str]:
    """``000000.png`` to the last frame."""
    return [f"{t:06d}.png" for t in range(num_frames)]


def check_predictions(predictions: str | Path, pairs: list[tuple[Pair, int]]) -> None:
    """Check that the frames of every pair are there, none missing and none too many, before anything is scored.

    Args:
        predictions: the folder.
        pairs: each pair with the number of its driving frames.

    Raises:
        DataError: Names up to five missing and five surplus files and how many there are of each.
    """
    root = Path(predictions)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of predictions.")
    missing, surplus = [], []
    for pair, num_frames in pairs:
        folder = pair_folder(root, pair)
        wanted = set(frame_names(num_frames))
        present = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
        missing += sorted(str((folder / n).relative_to(root)) for n in wanted - present)
        surplus += sorted(str((folder / n).relative_to(root)) for n in present - wanted)
    if missing or surplus:
        parts = [
            f"{len(files)} {word}: {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}"
            for word, files in (("missing", missing), ("too many", surplus))
            if files
        ]
        raise DataError(f"{root}: the frames do not fit the pairs; {'; '.join(parts)}.")


def read_predictions(predictions: str | Path, pair: Pair, num_frames: int, size: int) -> np.ndarray:
    """The frames of one pair, uint8 ``(T, size, size, 3)``.

    Raises:
        DataError: A frame of another size; frames are never resized, since that would change every score.
        UnreadableImageError: A frame is missing or damaged.
    """
    folder = pair_folder(predictions, pair)
    frames = np.empty((num_frames, size, size, 3), dtype=np.uint8)
    for t, name in enumerate(frame_names(num_frames)):
        image = read_image(folder / name)
        if image.shape != (size, size, 3):
            raise DataError(
                f"{folder / name}: the frame is {image.shape[1]}x{image.shape[0]}; expected {size}x{size}, the size of "
                "the data set's frames."
            )
        frames[t] = image
    return frames
