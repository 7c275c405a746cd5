"""Where a video or picture goes: what its name asks for, whether it can be written, and writing a picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from export3d.errors import OutputError
from export3d.files import replacing
from export3d.provenance import Finish
from export3d.video import check_video_target, check_writable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Output names that ask for a still picture."""


_DRAWN = 32
"""A label differs by more levels from what it is drawn on, the invisible mark by less."""


def is_still(path: Path) -> bool:
    """Whether the output's name asks for a picture rather than a video."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_series(path)


def is_series(path: Path) -> bool:
    """Whether the output's name asks for a picture of each frame: ``frames/%04d.png``."""
    return re.fullmatch(r"[^%]*%0[1-9]d[^%]*\.png", path.name, re.IGNORECASE) is not None


def of_series(path: Path, number: int) -> Path:
    """The picture of that number, from 1 on."""
    return path.with_name(path.name % number)


def check_target(path: Path, *, transparent: bool = False) -> None:
    """Check an output name and its folder before any work; a `transparent` film needs another container.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The folder is missing or not writable.
    """
    if path.suffix.lower() == ".png" or (is_still(path) and not transparent):
        check_writable(path)
    else:
        check_video_target(path, transparent=transparent)


def finished(image: np.ndarray, finish: Finish, *, still: bool = False) -> np.ndarray:
    """A uint8 ``(H, W, 3 | 4)`` image with label and mark; a label can be read where the image is transparent, too."""
    colours = finish.frame(np.ascontiguousarray(image[..., :3]), still=still)
    if image.shape[-1] == 3:
        return colours
    drawn = np.abs(colours.astype(np.int16) - image[..., :3]).max(axis=-1) > _DRAWN
    return np.dstack([colours, np.maximum(image[..., 3], 255 * drawn.astype(np.uint8))])


def write_picture(path: Path, image: np.ndarray, finish: Finish) -> None:
    """Finish a uint8 image ``(H, W, 3)`` or ``(H, W, 4)`` with an opacity and write it under a temporary name, then rename it.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    check_writable(path)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"  # to ask Pillow for its suffixes loads all its formats
    try:
        with replacing(path) as temporary:
            made = Image.fromarray(finished(image, finish, still=True))
            made.save(temporary, kind, quality=95)  # PNG ignores the quality
            finish.file(temporary, path.suffix)
    except OSError as error:
        reason = error.strerror or error
        advice = "Free some disk space or choose another folder."
        raise OutputError(f"{path}: cannot be written ({reason}). {advice}") from error
