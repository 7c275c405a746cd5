"""Saving and loading whole models; the bundled one is found without a path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch

from export3d.checkpoint import load_strictly, read_checkpoint, write_checkpoint
from export3d.checks import check_choice
from export3d.configs import config_from_dict, config_to_dict
from export3d.errors import CheckpointError
from export3d.model.config import ModelConfig
from export3d.model.export3d import Export3D

BUNDLED = {"small": "small.safetensors"}
"""Models that ship with the package."""


def save_model(path: str | Path, model: Export3D, *, extra: dict[str, Any] | None = None, half: bool = False) -> str:
    """Write a model file. Returns the digest of the tensors.

    `half` stores float16 weights, except for f_e: its basis must stay orthonormal.
    """
    tensors = model.state_dict()
    if half:
        tensors = {
            name: t.half() if t.is_floating_point() and not name.startswith("expression.") else t
            for name, t in tensors.items()
        }
    return write_checkpoint(path, tensors, kind="export3d", config=config_to_dict(model.config), extra=extra)


def load_model(name_or_path: str | Path | None = None, device: str = "cpu") -> Export3D:
    """Load a model for use: evaluation mode, no gradients.

    Args:
        name_or_path: name of a bundled model, or a .safetensors file; None is the bundled `small` model.
        device: where to put it.

    Raises:
        CheckpointError: The file is missing, damaged or does not fit its own configuration.
        UsageError: Neither a file nor a known name.
    """
    path = checkpoint_path(name_or_path)
    stored = read_checkpoint(path, kind="export3d")
    model = Export3D(config_from_dict(ModelConfig, stored.config))
    load_strictly(model, stored.tensors, str(path))
    return model.eval().requires_grad_(False).to(torch.device(device))


def checkpoint_path(name_or_path: str | Path | None = None) -> Path:
    """Where a model lies: a path is taken as it is, a bundled name is looked up in the package."""
    if name_or_path is None:
        name_or_path = "small"
    text = str(name_or_path)
    if text.endswith(".safetensors") or "/" in text:
        return Path(text)
    name = BUNDLED[check_choice("model", text, BUNDLED)]
    path = Path(str(resources.files("export3d"))) / "assets" / name
    if not path.is_file():
        raise CheckpointError(f"{path}: the bundled model is missing from this installation; reinstall export3d.")
    return path
