"""Small safetensors files of a named format and version, read with the same checks and the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from export3d.errors import Export3DError


def read_tensor_file(
    path: Path,
    *,
    kind: str,
    format_name: str,
    version: str,
    error: type[Export3DError],
    remedy: str,
    framework: str = "numpy",
) -> tuple[dict[str, str], dict[str, Any]]:
    """The header's strings and the arrays of a file.

    Args:
        kind: what the file is, in error texts ("gaze").
        format_name, version: what the header must say under `format` and `version`.
        error: the type that is raised.
        remedy: the last sentence of every error: what to do.
        framework: `numpy` or `pt`, the kind of the arrays.

    Raises:
        Export3DError: Of the given type: missing, damaged, or of another format or version.
    """
    if not path.is_file():
        raise error(f"{path}: no such {kind} file. {remedy}")
    try:
        with safe_open(path, framework=framework) as opened:
            metadata = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as problem:
        raise error(f"{path}: not a readable safetensors file ({problem}). {remedy}") from problem
    if (metadata.get("format"), metadata.get("version")) != (format_name, version):
        raise error(
            f"{path}: expected format '{format_name}', version {version}; got '{metadata.get('format', 'none')}', version "
            f"{metadata.get('version', 'none')}. {remedy}"
        )
    return metadata, arrays
