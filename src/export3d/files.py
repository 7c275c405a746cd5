"""Files that appear complete or not at all: written beside their place under another name, flushed, renamed (no section)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from export3d.errors import Export3DError, OutputError

TEMPORARY_GLOB = ".*.tmp*"
"""What finds the temporary files of killed processes in a folder."""

SPECIAL = "this is a device, a pipe or a socket"
"""What stands where no file may be put."""


def temporary_beside(path: Path) -> Path:
    """A new short hidden name in the folder of the file that `path` (perhaps a link) stands for; never the same twice.

    What a dead process left of the same file is removed.
    """
    real = Path(os.path.realpath(path))
    target = f".{hashlib.sha256(os.fsencode(real.name)).hexdigest()[:10]}.tmp"
    with suppress(OSError):
        clear_leftovers(real.parent, f"{target}*")
    return real.with_name(f"{target}-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def clear_leftovers(folder: Path, pattern: str = TEMPORARY_GLOB) -> None:
    """Remove the temporary files of processes of this machine that are no more."""
    for path in folder.glob(pattern):
        parts = path.name.split("-")
        if len(parts) == 4 and parts[1] == _machine() and parts[2].isdigit() and not _is_alive(int(parts[2])):
            path.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished file to disk and give it its name, in place of what was there.

    It gets the rights of the file that it replaces, else those of any new file. A link stays a link to the new file.

    Raises:
        OSError: As of the operating system, or no file is there but a device; the temporary file is left to the caller.
    """
    real = Path(os.path.realpath(path))
    if is_special(real):  # as root, os.replace would put a file in place of /dev/null
        raise OSError(errno.ENXIO, SPECIAL)
    with suppress(FileNotFoundError):
        os.chmod(temporary, real.stat().st_mode & 0o777)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, real)


def is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket is there: nothing that a file may take the place of."""
    return path.exists() and not path.is_file() and not path.is_dir()


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


@contextmanager
def only_user(folder: Path, error: type[Export3DError]) -> Iterator[None]:
    """Hold a lock on a folder; it ends with the process, however that ends.

    Raises:
        Export3DError: Of the given type: another process works in this folder.
        OutputError: The folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as problem:
        raise write_error(folder, problem) from problem
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise error(
                f"{folder}: another run is working in this folder. Wait for it to end, or stop it."
            ) from problem
        yield
    finally:
        os.close(descriptor)


def write_error(path: Path, error: BaseException, advice: str = "Check the folder and its rights.") -> OutputError:
    """What to say of a failed write: the disk is blamed only where it is full."""
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in reason:
        advice = "Free some disk space or choose another folder."
    return OutputError(f"{path}: cannot be written ({reason}). {advice}")


def make_folder(folder: Path, advice: str = "", kind: type[Export3DError] = OutputError) -> Path:
    """Make a folder of outputs, and those above it, where they are missing; `kind` is raised where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise kind(f"{folder}: the folder cannot be made ({error.strerror or error}). {advice}".rstrip()) from error
    return folder


def write_atomically(path: Path, content: bytes, advice: str = "Check the folder and its rights.") -> None:
    """Write a whole file.

    Args:
        advice: the error's last sentence, unless the disk is full.

    Raises:
        OutputError: The folder is missing or cannot be written, or the disk is full.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise write_error(path, error, advice) from error


def write_json(path: Path, content: Any) -> None:
    """Write as :func:`write_atomically` does, as JSON that people can read."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def finite(value: Any, nan: str | None = "nan") -> Any:
    """A JSON-ready copy: infinity, which JSON does not know, becomes a string that `float` reads, and NaN becomes `nan`."""
    if isinstance(value, dict):
        return {name: finite(item, nan) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item, nan) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return nan if math.isnan(value) else str(value)
    return value


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def measured_now() -> dict[str, str | None]:
    """`date` (UTC) and `commit` of the code that runs, for files of results; no commit where the package is no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        commit = found.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):  # no git here
        commit = None
    return {"date": datetime.now(timezone.utc).date().isoformat(), "commit": commit}
