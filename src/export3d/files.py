"""Files that appear complete or not at all: written beside their place under another name, flushed, renamed (no section)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export3d.errors import OutputError

TEMPORARY_GLOB = ".*.tmp*"
"""What finds the temporary files of killed processes in a folder."""


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the same folder; no two calls give the same one."""
    return path.with_name(f".{path.name}.tmp{uuid.uuid4().hex[:8]}")


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished file to disk and give it its name, in place of what was there.

    Raises:
        OSError: As of the operating system; the temporary file is then left to the caller.
    """
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` at the end, or is removed if anything is raised.

    Raises:
        OSError: As of the operating system; the caller knows what to say of it.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, advice: str = "Check folder and disk space.") -> None:
    """Write a whole file.

    Args:
        advice: the error's last sentence.

    Raises:
        OutputError: The folder is missing or cannot be written, or the disk is full.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). {advice}") from error
