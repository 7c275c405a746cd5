"""The whole training state in one place: written to `state-<step>.pt` atomically, read with `weights_only=True`."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from export3d.errors import CheckpointError, OutputError
from export3d.files import replacing, write_error
from export3d.reading import reading, shortened

STATE_FORMAT = "export3d-training-state"
STATE_VERSION = 2
"""Version 1 had no seal at its end."""

_SEAL = b"sha256:"
_SEAL_BYTES = len(_SEAL) + 64


def state_path(folder: Path, step: int) -> Path:
    """`state-00001000.pt`: sorted by name is sorted by step."""
    return folder / f"state-{step:08d}.pt"


class _Sealing:
    """A file to write to that remembers the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def list_states(folder: Path) -> list[Path]:
    """All state files, oldest first."""
    return sorted(folder.glob("state-????????.pt"))


def save_state(folder: Path, step: int, content: dict[str, Any]) -> Path:
    """Write the state under a temporary name, flush it to disk, then rename it.

    Args:
        content: tensors, numbers, strings, and dictionaries or lists of them: nothing that needs code to be read.

    Raises:
        OutputError: The disk is full or the folder cannot be written; earlier states stay as they are.
    """
    path = state_path(folder, step)
    whole = {"format": STATE_FORMAT, "version": STATE_VERSION, "step": step, **content}
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            sealing = _Sealing(file)
            torch.save(whole, cast(IO[bytes], sealing))
            file.write(_SEAL + sealing.digest.hexdigest().encode())
    # PyTorch's zip writer reports a failed write as RuntimeError.
    except (OSError, RuntimeError) as error:
        kept = list_states(folder)
        hint = f"The last good state is {kept[-1].name}." if kept else "No earlier state exists."
        raise OutputError(f"{write_error(path, error)} {hint} Then run the same command again.") from error
    return path


def load_state(path: Path) -> dict[str, Any]:
    """Read a state file.

    Raises:
        CheckpointError: Damaged, not a training state, or of another version.
    """
    with reading(path, "the training state is damaged", CheckpointError):
        whole = path.read_bytes()
        body, seal = whole[:-_SEAL_BYTES], whole[-_SEAL_BYTES:]
        sealed = seal.startswith(_SEAL)
        if sealed and seal != _SEAL + hashlib.sha256(body).hexdigest().encode():
            raise ValueError("its contents do not match the checksum at its end")
        content = torch.load(io.BytesIO(body if sealed else whole), map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path}: not a training state of export3d.")
    version = content.get("version")
    if version not in (1, STATE_VERSION) or not isinstance(content.get("step"), int):
        raise CheckpointError(
            f"{path}: version {shortened(version)}; this export3d reads version {STATE_VERSION}. "
            "Finish the run with the export3d that began it."
        )
    if version == STATE_VERSION and not sealed:
        raise CheckpointError(f"{path}: the training state is damaged (the checksum at its end is missing).")
    return content


def newest_readable_state(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state that can be read, and one line for each newer one that cannot.

    Raises:
        CheckpointError: There are states, but none can be read.
    """
    complaints: list[str] = []
    paths = list_states(folder)
    for path in reversed(paths):
        try:
            return load_state(path), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    if paths:
        raise CheckpointError(f"{folder}: none of {len(paths)} training states can be read. " + " ".join(complaints))
    return None, complaints


def drop_old_states(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` states."""
    for path in list_states(folder)[: -max(keep, 1)]:
        path.unlink(missing_ok=True)
