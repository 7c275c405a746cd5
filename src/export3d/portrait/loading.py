"""Model files of both kinds, the bundled one, and how files of version 1 are read."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export3d.checkpoint import MIGRATIONS, load_strictly, read_checkpoint, write_checkpoint
from export3d.checks import check_choice
from export3d.configs import config_from_dict, config_to_dict
from export3d.errors import CheckpointError, UsageError
from export3d.model.config import PRESETS, ModelConfig
from export3d.model.export3d import Export3D
from export3d.portrait.config import PORTRAIT_PRESETS, PortraitConfig
from export3d.portrait.drivable import Model
from export3d.portrait.model import PortraitModel
from export3d.reading import reading, shortened

KIND = "export3d"

BUNDLED = {"portrait": "portrait.safetensors"}
"""Models that ship with the package."""

RENAMED = {"small": "portrait", "small-literal": "paper-small"}
"""Names of version 0.1 -> names of today."""

MAX_SIZE = 16384
"""Of anything in a model: blocks, channels, pixels."""

_CLASSES: dict[str, type[ModelConfig]] = {"paper": ModelConfig, "portrait": PortraitConfig}


def preset(name: str) -> ModelConfig:
    """The preset of that name, of either model.

    Raises:
        UsageError: Unknown name; suggests the nearest.
    """
    known = {**PRESETS, **PORTRAIT_PRESETS}
    return known[check_choice("model preset", RENAMED.get(name, name), known)]


def build_model(config: ModelConfig) -> Model:
    """A model with random weights."""
    return PortraitModel(config) if isinstance(config, PortraitConfig) else Export3D(config)


def save_model(path: str | Path, model: Model, *, extra: dict[str, Any] | None = None, half: bool = False) -> str:
    """Write a model file. Returns the digest of the tensors.

    `half` stores float16 weights, except for f_e: its basis must stay orthonormal.
    """
    tensors = model.state_dict()
    if half:
        tensors = {
            name: t.half() if t.is_floating_point() and not name.startswith("expression.") else t
            for name, t in tensors.items()
        }
    name = next(name for name, cls in _CLASSES.items() if type(model.config) is cls)
    return write_checkpoint(
        path, tensors, kind=KIND, config={"model": name, **config_to_dict(model.config)}, extra=extra
    )


def load_model(name_or_path: str | Path | None = None, device: str = "cpu") -> Model:
    """Load a model for use: evaluation mode, no gradients.

    Args:
        name_or_path: name of a bundled model, or a .safetensors file; None is the bundled `portrait` model.
        device: where to put it.

    Raises:
        CheckpointError: The file is missing, damaged or does not fit its own configuration.
        UsageError: Neither a file nor a known name.
    """
    path = checkpoint_path(name_or_path)
    stored = read_checkpoint(path, kind=KIND)
    config = config_of(stored.config, str(path))
    with reading(path, "no model can be built of its configuration", CheckpointError, "Copy it again."):
        model = build_model(config)
    load_strictly(model, stored.tensors, str(path))
    return model.eval().requires_grad_(False).to(torch.device(device))


def config_of(stored: dict[str, Any], where: str) -> ModelConfig:
    """The configuration in a model file of today's version.

    Raises:
        CheckpointError: It names no known model, or holds options that this model does not have.
    """
    values = dict(stored)
    name = values.pop("model", None)
    if name not in _CLASSES:
        raise CheckpointError(f"{where}: holds the model '{shortened(name)}'; expected one of: {', '.join(_CLASSES)}.")
    if _largest(values) > MAX_SIZE:
        raise CheckpointError(
            f"{where}: its configuration names a size over {MAX_SIZE}; the file is damaged. Copy it again."
        )
    try:
        return config_from_dict(_CLASSES[name], values)
    except (UsageError, ValueError, TypeError) as error:
        text = shortened(error, 400)
        raise CheckpointError(f"{where}: its configuration does not fit the model '{name}': {text}") from error


def _largest(value: Any) -> float:
    """The largest number in plain values: nothing is built before it is looked at."""
    if isinstance(value, dict | list):
        return max((_largest(item) for item in (value.values() if isinstance(value, dict) else value)), default=0)
    return value if isinstance(value, int | float) else 0


def checkpoint_path(name_or_path: str | Path | None = None) -> Path:
    """Where a model lies: a path is taken as it is, a bundled name is looked up in the package."""
    text = str("portrait" if name_or_path is None else name_or_path)
    if text.endswith(".safetensors") or "/" in text:
        return Path(text)
    name = BUNDLED[check_choice("model", RENAMED.get(text, text), BUNDLED)]
    path = Path(str(resources.files("export3d"))) / "assets" / name
    if not path.is_file():
        raise CheckpointError(f"{path}: the bundled model is missing from this installation; reinstall export3d.")
    return path


_MOVED = {
    "source_expression.": "cues.own_expression.",
    "gaze.": "cues.gaze.",
    "upper_face.": "cues.upper.",
    "lower_face.": "cues.lower.",
    "neck.to_condition.": "cues.turn.",
    "matte.": "reader.matte.",
    "source_depth.": "reader.depth.",
    "source_lookup.": "lookup.",
}
"""Version 1's names of parts -> version 2's."""


def two_models(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Version 1 -> 2: one class with optional parts became the paper's model and the portrait model.

    Raises:
        CheckpointError: Some of the portrait model's parts are there and some are not, or there is one that lost; names them.
    """
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
    generator = config["generator"]
    has = {name: bool(config.pop(name, False)) for name in ("source_beta", "gaze", "upper_face", "lower_face")}
    for name in ("source_lookup", "source_depth", "neck"):
        has[name] = bool(config.get(name, {}).pop("enabled", False))
    has["background apart"] = config.get("background", {}).pop("mode", "triplane") == "apart"
    has["motion_basis"] = bool(generator.get("motion_basis", 0))
    has["highres_channels"] = bool(generator.get("highres_channels"))
    if config.pop("pixel_aligned", {}).get("enabled") or len(set(has.values())) > 1:
        shown = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
        raise CheckpointError(
            "a model file of version 1 with parts that no model has any more: the paper's model has none of the following, "
            f"the portrait model all of them, neither has pixel_aligned; got {shown}. Train it again."
        )
    if not has["neck"]:
        for name in ("source_lookup", "source_depth", "neck", "background"):
            config.pop(name, None)
        for name in ("motion_basis", "highres_channels"):
            generator.pop(name, None)
        return tensors, {"model": "paper", **config}
    moved = {old: new + old.removeprefix(p) for old in tensors for p, new in _MOVED.items() if old.startswith(p)}
    return {moved.get(name, name): t for name, t in tensors.items()}, {"model": "portrait", **config}


def without_detail(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Version 3 -> 4: the portrait model lost the network that corrected pictures with the photograph's detail."""
    kept = {name: t for name, t in tensors.items() if not name.startswith("detail.")}
    return kept, {name: x for name, x in config.items() if name != "detail"}


MIGRATIONS[KIND, 1] = two_models
MIGRATIONS[KIND, 3] = without_detail
