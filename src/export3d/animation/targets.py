"""Where a video or picture goes: what its name asks for, whether it can be written, and writing a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from export3d.errors import OutputError
from export3d.files import replacing
from export3d.provenance import Finish
from export3d.video import check_video_target, check_writable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Output names that ask for a still picture."""


def is_still(path: Path) -> bool:
    """Whether the output's name asks for a picture rather than a video."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def check_target(path: Path) -> None:
    """Check an output name and its folder before any work.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The folder is missing or not writable.
    """
    if is_still(path):
        check_writable(path)
    else:
        check_video_target(path)


def write_picture(path: Path, image: np.ndarray, finish: Finish) -> None:
    """Finish a uint8 ``(H, W, 3)`` image and write it under a temporary name, then rename it.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    check_writable(path)
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
        with replacing(path) as temporary:
            Image.fromarray(finish.frame(image)).save(temporary, kind, quality=95)  # PNG ignores the quality
            finish.file(temporary, path.suffix)
    except OSError as error:
        reason = error.strerror or error
        advice = "Free some disk space or choose another folder."
        raise OutputError(f"{path}: cannot be written ({reason}). {advice}") from error
