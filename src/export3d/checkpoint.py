"""Model files: safetensors + JSON configuration + format version; strict, atomic, checksummed.

The header of the file holds `format`, `version`, `kind`, `config` (JSON), `extra` (JSON), `created_by` and `sha256`, a
digest over the rest of the header and names, dtypes, shapes and bytes of all tensors (before version 3 of the tensors alone).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from export3d.errors import CheckpointError
from export3d.files import write_atomically
from export3d.reading import parse_json, reading, shortened
from export3d.tensor_files import arrays_digest, content_digest, read_tensor_file

FORMAT = "export3d-checkpoint"
VERSION = 4
READABLE = ("1", "2", "3", "4")

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
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "kind": kind,
        "config": json.dumps(config, sort_keys=True),
        "extra": json.dumps(extra or {}, sort_keys=True),
        "created_by": f"export3d {__version__}",
    }
    header["sha256"] = digest = content_digest(header, plain)
    write_atomically(path, save(plain, metadata=header))
    return digest


def read_checkpoint(path: str | Path, kind: str, device: str = "cpu") -> Checkpoint:
    """Read a model file and check its format, version, kind and digest.

    Raises:
        CheckpointError: Missing, damaged, of another format, kind or a newer version.
    """
    path = Path(path)
    header, tensors = read_tensor_file(
        path,
        kind="checkpoint",
        format_name=FORMAT,
        version=READABLE,
        error=CheckpointError,
        remedy="Copy it again, or use the export3d that wrote it.",
        framework="pt",
        device=device,
    )
    with reading(path, "the header of the checkpoint is damaged", CheckpointError, "Copy it again."):
        version, kind_there, digest = int(header["version"]), header["kind"], header["sha256"]
        config, extra = parse_json(header["config"]), parse_json(header["extra"])
    if kind_there != kind:
        raise CheckpointError(f"{path}: holds a '{shortened(kind_there, 40)}' model; expected '{kind}'.")
    # The first versions sealed the tensors alone.
    if digest != (arrays_digest(tensors) if version < 3 else content_digest(header, tensors)):
        raise CheckpointError(
            f"{path}: the contents do not match the stored checksum; the file is damaged. Copy it again."
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{path}: '{shortened(name)}' holds NaN or infinity. Train it again, or take an earlier one."
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
