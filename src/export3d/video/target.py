"""Checks of a place to write to, made before any long work starts."""

from __future__ import annotations

import os
from pathlib import Path

from export3d.errors import OutputError, UsageError
from export3d.files import SPECIAL, is_special, temporary_beside, write_error

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Output suffix -> container; all hold H.264."""

TRANSPARENT = {".webm": "webm", ".mov": "mov"}
"""Output suffix -> container of films with an opacity: VP9 and ProRes 4444."""


def check_video_target(path: Path, *, transparent: bool = False) -> str:
    """Check that a video can be written at `path`; returns the container name.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The folder is missing or not writable, or the target is a folder.
    """
    container = (TRANSPARENT if transparent else CONTAINERS).get(path.suffix.lower())
    if container is None and transparent:
        raise UsageError(
            f"{path}: this format cannot be transparent; end the name in .webm (VP9), .mov (ProRes 4444) or .png (a still)."
        )
    if container is None:
        raise UsageError(f"{path}: cannot tell the video format; end the name in one of {', '.join(CONTAINERS)}.")
    check_writable(path)
    return container


def check_writable(path: Path) -> None:
    """Check that a file can be made at `path` before any long work starts.

    Raises:
        OutputError: The folder is missing or not writable, or the target is a folder or a device.
    """
    real = Path(os.path.realpath(path))  # of a link the file that it stands for is written
    folder = real.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {folder} does not exist. Make it first, or choose another name.")
    if path.is_dir():
        raise OutputError(f"{path}: this is a folder; give the name of a file.")
    if is_special(real):
        raise OutputError(f"{path}: {SPECIAL}; give the name of a file.")
    try:
        if len(os.fsencode(real.name)) > os.pathconf(folder, "PC_NAME_MAX"):
            raise OutputError(f"{path}: the name is too long for this folder. Choose a shorter one.")
        probe = temporary_beside(real)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(path, error, f"Choose another folder than {folder}, or change its rights.") from error
