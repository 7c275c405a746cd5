"""`export3d export`: the portrait model as ONNX graphs, with an example that needs onnxruntime alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated

import tyro

from export3d.cli.common import entry
from export3d.errors import UsageError
from export3d.files import make_folder


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the portrait model as ONNX graphs: encode, drive, rays, picture, with config, README and an example."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write to; it is made if it does not exist."""

    model: str | None = None
    """Name of a bundled model or path of a .safetensors model. The bundled model when left out."""

    size: int = 512
    """Side of the pictures in pixels, even; they have the photo's own detail."""


def run(options: ExportOptions) -> str:
    """Export as asked; returns the result line."""
    from export3d.checkpoint import read_checkpoint
    from export3d.cli.demo import sample_portraits
    from export3d.files import write_atomically
    from export3d.portrait import PortraitModel, load_model
    from export3d.portrait.graphs import STATE, export_graphs
    from export3d.portrait.loading import checkpoint_path

    model = load_model(options.model)
    if not isinstance(model, PortraitModel):
        raise UsageError("export3d export knows the portrait model only; this file holds the paper's. Name another.")
    make_folder(options.output)
    graphs = export_graphs(model, options.output, options.size)
    config = {
        "format": "export3d-onnx",
        "version": 1,
        "weights": read_checkpoint(checkpoint_path(options.model), kind="export3d").sha256,
        "expression_space": model.config.expression.space,
        **{"image_size": model.config.image_size, "size": options.size, "state": STATE},
        "graphs": {
            name: {"inputs": {k: list(v.shape) for k, v in graph.inputs.items()}, "outputs": list(graph.outputs)}
            for name, graph in graphs.items()
        },
    }
    write_atomically(options.output / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_atomically(options.output / "README.md", README.encode())
    example = Path(str(resources.files("export3d"))) / "assets" / "onnx_example.txt"
    shutil.copyfile(example, options.output / "example.py")
    shutil.copyfile(sample_portraits()[0], options.output / "portrait.png")
    return f"{options.output}: {len(graphs)} graphs, pictures of {options.size}x{options.size}; try example.py"


export_main = entry("export", ExportOptions, run)


README = """# Export3D's portrait model as ONNX graphs

`pip install onnxruntime numpy pillow`, then `python example.py`: one frame of `portrait.png` with its head turned.

| graph | when | does |
|---|---|---|
| `encode.onnx` | once per portrait | reads the square around the face: `source` at the model's size, `photo` at the picture's |
| `drive.onnx` | once per expression | the state of portrait (`own_...`) and driver -> tri-planes |
| `rays.onnx` | once per camera | marches all rays, every sample of them |
| `picture.onnx` | once per camera | super-resolution, and the detail of the photograph: `image` in [-1, 1] |

Shapes are in `config.json`; all numbers are float32, the batch size is 1. What a graph needs by name, an earlier one gives
by the same name, or the tracker did:

- `beta` (64) expression coefficients in the space that config.json names; `weights` (52) ARKit's scores in alphabetical order;
  `gaze` (2) radians; `turn` (3) rotation vector of the head against the torso. NaN in weights and gaze is unknown.
- `camera`, `own_camera` (25): camera to world, 4x4, row by row, OpenCV's axes; intrinsics 3x3 for a picture of side 1.

`export3d track` writes all of these into a motion file. No label and no mark is put into these pictures: say that they are
generated where you show them.
"""
