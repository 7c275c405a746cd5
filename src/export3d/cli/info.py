"""`export3d info`: what is installed, what is missing and how to get it, presets and parameter counts."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from export3d.cli.common import entry
from export3d.errors import CheckpointError

PACKAGES = {
    "torch": None,
    "numpy": None,
    "av": None,
    "pillow": None,
    "safetensors": None,
    "mediapipe": "face",
    "webdataset": "train",
    "torchmetrics": "eval",
    "c2pa-python": "provenance",
    "ray": "cluster",
    "openvino": "fast",
}
"""Package -> the extra that brings it (None: always installed)."""

ENVIRONMENT = {
    "EXPORT3D_HEAD_MODEL": "ICT-FaceKit head model (.npz) for synthetic heads; without it a procedural head is used",
    "EXPORT3D_FACE_LANDMARKER": "another face_landmarker.task than `export3d models get face-landmarker` fetches",
}
"""Environment variable -> what the file it names is good for."""


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Show versions, the bundled model, presets with their parameters per part, and what is missing."""

    preset: str | None = None
    """Show one preset in full: parameters per part and every option."""

    model: str | None = None
    """A model to describe instead of the bundled one: a name or a .safetensors file."""

    json: bool = False
    """Print JSON instead of text."""


def run(options: InfoOptions) -> str:
    """What is shown, as text or JSON."""
    facts = collect(options)
    return json.dumps(facts, indent=2) if options.json else as_text(facts)


info_main = entry("info", InfoOptions, run)


def collect(options: InfoOptions) -> dict:
    """Everything that is shown, as plain data."""
    import torch

    from export3d import __version__
    from export3d.configs import config_to_dict
    from export3d.model import PRESETS
    from export3d.portrait import PORTRAIT_PRESETS, preset

    chosen = [options.preset] if options.preset else [*PRESETS, *PORTRAIT_PRESETS]
    facts: dict = {
        "export3d": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "packages": {name: _version(name) for name in PACKAGES},
        **_films(),
        "model": _describe_model(options.model),
        "files": {name: _file_state(name) for name in ENVIRONMENT},
        "presets": {name: _preset_parameters(name) for name in chosen},
    }
    if options.preset:
        facts["config"] = config_to_dict(preset(options.preset))
    return facts


def as_text(facts: dict) -> str:
    """The facts as a page of plain text."""
    lines = [
        f"export3d {facts['export3d']}, Python {facts['python']}, {facts['platform']}, "
        f"GPU: {facts['gpu'] or 'none (CPU is used)'}",
        "",
        "Packages",
    ]
    for name, version in facts["packages"].items():
        extra = PACKAGES[name]
        missing = f'not installed; get it with: pip install "export3d[{extra}]"'
        lines.append(f"  {name:<14} {version or missing}")
    lines += ["", f"Renderer of films on a CPU: {facts['renderer']}"]
    lines += [f"Planes of films on a CPU: {facts['planes']}", "", "Model"]
    lines += [f"  {name:<14} {value}" for name, value in facts["model"].items()]
    lines += ["", "Optional files (environment variables)"]
    for name, state in facts["files"].items():
        lines += [f"  {name}: {state}", f"    {ENVIRONMENT[name]}"]
    for name, counts in facts["presets"].items():
        lines += ["", f"Preset {name}: {counts['total']:,} parameters"]
        if "config" in facts:
            lines += [f"  {part:<28} {number:>12,}" for part, number in counts.items() if part != "total"]
        else:
            parts = (f"{part} {number:,}" for part, number in counts.items() if "." not in part and part != "total")
            lines.append("  " + ", ".join(parts))
    if "config" in facts:
        lines += ["", json.dumps(facts["config"], indent=2)]
    else:
        lines += ["", "More about one preset: export3d info --preset paper"]
    return "\n".join(lines)


def _films() -> dict[str, str]:
    from export3d.portrait.openvino import PAYS_FROM, openvino_status
    from export3d.rendering.fused import fused_status

    able = {
        "renderer": ("compiled", fused_status()),
        "planes": (f"OpenVINO from {PAYS_FROM} frames on", openvino_status()),
    }
    return {part: f"{by} ({why})" if runs else f"PyTorch ({by}: {why})" for part, (by, (runs, why)) in able.items()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _describe_model(name: str | None) -> dict[str, str]:
    from export3d.checkpoint import read_checkpoint
    from export3d.portrait.loading import checkpoint_path

    try:
        path = checkpoint_path(name)
        stored = read_checkpoint(path, kind="export3d")
    except CheckpointError as error:
        if name is not None:
            raise
        return {"bundled": f"missing: {error}"}
    size = path.stat().st_size / 1e6
    described = {"file": str(path), "size": f"{size:.1f} MB", "sha256": stored.sha256}
    return described | {key: json.dumps(value) for key, value in stored.extra.items()}


def _file_state(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        return "not set"
    return f"{value} ({'found' if Path(value).exists() else 'NOT FOUND'})"


def _preset_parameters(name: str) -> dict[str, int]:
    from export3d.portrait import build_model, preset
    from export3d.portrait.count import count_parameters

    return count_parameters(build_model(preset(name)))
