"""Model files: safetensors + JSON configuration + format version; strict, atomic, checksummed.

The header of the file holds `format`, `version`, `kind`, `config` (JSON), `extra` (JSON), `created_by` and `sha256`, a
digest over names, dtypes, shapes and bytes of all tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from export3d.errors import CheckpointError, OutputError
from export3d.files import replacing

FORMAT = "export3d-checkpoint"
VERSION = 2

Migration = Callable[[dict[str, Tensor], dict[str, Any]], tuple[dict[str, Tensor], dict[str, Any]]]

MIGRATIONS: dict[tuple[str, int], Migration] = {}
"""(kind, old version) -> function that turns (tensors, config) of that version into those of the next. The module that owns
a kind puts its own in; a kind without one did not change."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds."""

    kind: str
    config: dict[str, Any]
    extra: dict[str, Any]
    tensors: dict[str, Tensor]
    sha256: str


def write_checkpoint(
    path: str | Path,
    tensors: dict[str, Tensor],
    *,
    kind: str,
    config: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> str:
    """Write a model file under a temporary name, then rename it.

    Args:
        path: ends in .safetensors.
        tensors: a state dict.
        kind: what the tensors are (`export3d`, `lebs`, `regressor`, ...).
        config: JSON-ready configuration.
        extra: JSON-ready facts about the training (seeds, steps, hours, data).

    Returns:
        The digest that is stored in the file.

    Raises:
        OutputError: The folder is missing, not writable, or the disk is full.
    """
    from export3d import __version__

    path = Path(path)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = tensors_digest(plain)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "kind": kind,
        "config": json.dumps(config, sort_keys=True),
        "extra": json.dumps(extra or {}, sort_keys=True),
        "created_by": f"export3d {__version__}",
        "sha256": digest,
    }
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # what the umask gives; safetensors would leave a file for its owner only
            save_file(plain, temporary, metadata=header)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path}: the checkpoint could not be written ({error}). Check the folder and the disk."
        ) from error
    return digest


def read_checkpoint(path: str | Path, kind: str, device: str = "cpu") -> Checkpoint:
    """Read a model file and check its format, version, kind and digest.

    Raises:
        CheckpointError: Missing, damaged, of another format, kind or a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    try:
        with safe_open(path, framework="pt", device=device) as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged or not a safetensors file ({error}).") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not an Export3D checkpoint (format '{header.get('format')}', expected '{FORMAT}')."
        )
    try:
        version, kind_there, digest = int(header["version"]), header["kind"], header["sha256"]
        config, extra = json.loads(header["config"]), json.loads(header["extra"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the header of the checkpoint is damaged ({error!r}). Copy it again.") from error
    if version > VERSION:
        raise CheckpointError(f"{path}: has version {version}, this export3d reads 1-{VERSION}; upgrade export3d.")
    if kind_there != kind:
        raise CheckpointError(f"{path}: holds a '{kind_there}' model; expected '{kind}'.")
    if digest != tensors_digest(tensors):
        raise CheckpointError(
            f"{path}: the tensors do not match the stored checksum; the file is damaged. Copy it again."
        )
    for old in range(version, VERSION):
        if (migrate := MIGRATIONS.get((kind, old))) is not None:
            try:
                tensors, config = migrate(tensors, config)
            except (CheckpointError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(kind, config, extra, tensors, digest)


def load_strictly(module: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy tensors into a module; every name and shape must fit.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    problems = [f"missing '{name}'" for name in own if name not in tensors]
    problems += [f"unexpected '{name}'" for name in tensors if name not in own]
    problems += [
        f"'{name}' has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{where}: the checkpoint does not fit the model: {shown}.")
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of the tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
