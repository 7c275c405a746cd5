"""Safetensors files of a named format and version: one reader and one seal for all that is stored as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save

from export3d.errors import Export3DError
from export3d.files import write_atomically
from export3d.reading import reading, shortened

SEAL = "sha256"
"""Header entry of model and motion files that holds the digest of the whole contents."""

WHOLE = "contents_sha256"
"""The same in all other files: there `sha256` is that of an extractor's bases."""

_UNSEALED = {
    *("format", "version", "created_by", "config", "extra", "kind", "extractor", "fps", "name", "sha256"),
    *("expression_space", "tracker_alignment", "mesh_config", "notes", "origin"),
}
"""Entries of files without `WHOLE`, as they were written before; with another one the header is damaged."""


def sealed(metadata: Mapping[str, str], arrays: Mapping[str, Any]) -> dict[str, str]:
    """The header's strings with `WHOLE`, which `read_tensor_file` checks."""
    return {**metadata, WHOLE: content_digest(metadata, arrays, WHOLE)}


def write_sealed(path: str | Path, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """Write a safetensors file under a temporary name, rename it, and return its SHA-256.

    Raises:
        OutputError: It cannot be written.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = save(whole, sealed(metadata, whole))
    write_atomically(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def content_digest(metadata: Mapping[str, str], arrays: Mapping[str, Any], seal: str = SEAL) -> str:
    """sha256 over the header's strings (but the digest itself) and names, dtypes, shapes and bytes of the arrays."""
    digest = hashlib.sha256()
    for name in sorted(set(metadata) - {seal}):
        digest.update(f"{len(name)}:{name}={len(metadata[name])}:{metadata[name]}|".encode())
    digest.update(arrays_digest(arrays).encode())
    return digest.hexdigest()


def arrays_digest(arrays: Mapping[str, Any]) -> str:
    """sha256 over names, dtypes, shapes and bytes of tensors or arrays, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def check_seal(
    path: Path,
    metadata: Mapping[str, str],
    arrays: Mapping[str, Any],
    *,
    required: bool,
    error: type[Export3DError],
    remedy: str,
) -> None:
    """Compare the stored digest with the contents; `required` is false for versions that had none.

    Raises:
        Export3DError: Of the given type: another digest, or none where there must be one.
    """
    if (required or SEAL in metadata) and metadata.get(SEAL) != content_digest(metadata, arrays):
        raise error(f"{path}: the contents do not match the stored checksum; the file is damaged. {remedy}")


def read_tensor_file(
    path: Path,
    *,
    kind: str,
    format_name: str,
    version: str | Sequence[str],
    error: type[Export3DError],
    remedy: str,
    framework: str = "numpy",
    device: str = "cpu",
) -> tuple[dict[str, str], dict[str, Any]]:
    """The header's strings and the arrays of a file.

    Args:
        kind: what the file is, in error texts ("gaze").
        format_name, version: what the header must say under `format` and `version`; several versions, oldest first.
        error: the type that is raised.
        remedy: the last sentence of every error: what to do.
        framework: `numpy` or `pt`, the kind of the arrays.

    Raises:
        Export3DError: Of the given type: missing, damaged, or of another format or version.
    """
    if not path.is_file():
        raise error(f"{path}: no such {kind} file. {remedy}")
    versions = (version,) if isinstance(version, str) else tuple(version)
    with reading(path, "not a readable safetensors file", error, remedy):
        with safe_open(path, framework=framework, device=device) as opened:
            metadata = opened.metadata() or {}
            given = (shortened(metadata.get("format", "none"), 40), shortened(metadata.get("version", "none"), 40))
            if given[0] != format_name or given[1] not in versions:
                newer = given[0] == format_name and given[1].isdecimal() and int(given[1]) > int(versions[-1])
                remedy = "Upgrade export3d." if newer else remedy
                raise error(
                    f"{path}: expected format '{format_name}', version {' or '.join(versions)}; got '{given[0]}', "
                    f"version {given[1]}. {remedy}"
                )
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    damaged = (
        metadata[WHOLE] != content_digest(metadata, arrays, WHOLE) if WHOLE in metadata else set(metadata) - _UNSEALED
    )
    if damaged:
        raise error(f"{path}: the contents do not match the stored checksum; the file is damaged. {remedy}")
    return metadata, arrays


def read_weights(path: Path, what: str, error: type[Export3DError]) -> dict[str, Any]:
    """The dictionary in a PyTorch weight file of others (.pth); nothing in it is executed.

    Raises:
        Export3DError: Of the given type: damaged, or it holds more than tensors, numbers and strings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # its text advises to execute what the file says, which is no advice
        raise error(
            f"{path}: not {what} that can be read safely ({type(problem).__name__}). Get it again."
        ) from problem
    if not isinstance(content, dict):
        raise error(f"{path}: holds {type(content).__name__}; expected {what}, a dictionary of tensors.")
    return content
