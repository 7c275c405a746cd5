"""Where what is remembered between runs lies: the user's configuration folder of the operating system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from export3d.files import publish, temporary_beside

CONFIG_VARIABLE = "EXPORT3D_CONFIG"
"""Environment variable that names another folder."""


def config_folder() -> Path:
    """The folder, which need not exist yet."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "export3d"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "export3d"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "export3d"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only the user can read (mode 0600), complete or not at all.

    Raises:
        OSError: The folder cannot be made or written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
