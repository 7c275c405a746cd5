"""`export3d mesh` and `export3d depth`: a portrait's head as a mesh, and its distance from the camera, for other tools."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from export3d.cli.common import check_targets, entry, progress_bar, refuse_overwriting_inputs
from export3d.cli.network import PhotoOptions
from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class _MeasuredOptions(PhotoOptions):
    allow: Annotated[Path | None, tyro.conf.arg(aliases=["--provenance.allow"])] = None
    """Folder of the only portraits that may be used, or a file of their SHA-256 sums."""


@dataclass(frozen=True, kw_only=True)
class MeshOptions(_MeasuredOptions):
    """Write the head of a portrait as a closed mesh: .glb (textured with the photo), .ply or .obj (coloured vertices)."""

    shapes: bool = False
    """Add ARKit's shapes as morph targets, so that other tools can move the face (.glb only)."""

    resolution: int = 160
    """Points of the grid along each side of the model's box; 160 is one in 3 mm."""


@dataclass(frozen=True, kw_only=True)
class DepthOptions(_MeasuredOptions):
    """Write the distance of a portrait's head from the camera: .npy (cm, NaN where there is no head) or .png (16 bits,
    tenths of a millimetre, 0 where there is no head)."""

    size: int = 256
    """Height and width of the result."""


def run_mesh(options: MeshOptions) -> str:
    """Make the mesh; returns the result line."""
    # Imported here: `export3d mesh --help` should not wait for PyTorch.
    from export3d.mesh import write_head

    check_targets((options.output, ".glb", ".ply", ".obj"))
    if options.shapes and options.output.suffix.lower() != ".glb":
        raise UsageError(f"--shapes needs a .glb file, which alone can hold morph targets; got {options.output}.")
    if not 32 <= options.resolution <= 512:
        raise UsageError(f"--resolution must be 32 to 512; got {options.resolution}.")
    refuse_overwriting_inputs(options.output, options.source)
    model = options.network.load()
    with options.animator(model, options.allow, exact=True) as animator, progress_bar("mesh", None) as progress:
        subject = animator.subject
        assert subject is not None
        how = {"landmarks": subject.landmarks, "shapes": options.shapes, "resolution": options.resolution}
        seen = subject.seen(animator.image_size)
        said = write_head(options.output, model, subject.code, seen, progress=progress, **how)
    return f"{options.output}: {said}"


def run_depth(options: DepthOptions) -> str:
    """Make the depth; returns the result line."""
    import numpy as np
    import torch
    from PIL import Image

    from export3d.camera import Camera
    from export3d.files import write_atomically
    from export3d.mesh.files import METRES
    from export3d.portrait import drivable

    check_targets((options.output, ".png", ".npy"))
    if not 16 <= options.size <= 1024:
        raise UsageError(f"--size must be 16 to 1024; got {options.size}.")
    refuse_overwriting_inputs(options.output, options.source)
    with options.animator(options.network.load(), options.allow, exact=True) as animator, torch.inference_mode():
        assert animator.subject is not None
        subject, calls = animator.subject, drivable(animator.model)
        driven = calls.drive(subject.code, subject.state.to(animator.device))
        camera = Camera.of_array(subject.camera).to(animator.device)
        met = calls.render(driven, camera, raw_size=options.size)
    depth = 100.0 * METRES * met.depth[0, 0].cpu().numpy()
    depth = np.where(met.opacity[0, 0].cpu().numpy() > 0.5, depth, np.nan).astype(np.float32)
    content = io.BytesIO()
    if options.output.suffix.lower() == ".npy":
        np.save(content, depth)
    else:
        Image.fromarray(np.round(np.nan_to_num(depth) * 100.0).astype(np.uint16)).save(content, "PNG")
    write_atomically(options.output, content.getvalue())
    near, far = np.nanmin(depth), np.nanmax(depth)
    return f"{options.output}: {options.size}x{options.size}, {near:.1f} to {far:.1f} cm from the camera"


mesh_main = entry("mesh", MeshOptions, run_mesh)
depth_main = entry("depth", DepthOptions, run_depth)
