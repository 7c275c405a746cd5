"""Rendering with the compiled kernel: plain tensors in, what the rays met out; no gradients, no jitter, CPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.rendering.fast import FastConfig
from export3d.rendering.fused import binding
from export3d.rendering.renderer import RayResult, RendererConfig, depth_limits

Layer = tuple[Tensor, Tensor]
"""Weight ``(out, in)`` and bias ``(out,)`` of a fully connected layer."""

EVERYTHING = FastConfig(rays_per_coarse=1, empty_opacity=0.0, faint_opacity=0.0, fine_share=1.0, least_share=1e-5)
"""Leaves out only the colours of samples whose share is below 1e-5: all that EG3D's rays meet, to about 1e-4."""

_GUIDE = 5  # three offsets and two gates
_MOST_MAPS = 64  # kMostMaps of the kernel


@dataclass(frozen=True, kw_only=True)
class FusedJoint:
    """Points x become x + w(y) (x - pivot) extra; w goes smoothly from 0 at `top` to 1 at `bottom` (scene units)."""

    extra: Tensor
    """``(3, 3)``: rotation minus identity, for rows."""
    pivot: tuple[float, float, float]
    top: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class FusedDepth:
    """The portrait's depth map, and how points are looked up in it."""

    maps: Tensor
    """``(K, h, w)``: depth behind the sphere around the camera through the origin, scene units; other channels."""
    to_hidden: Tensor
    """``(hidden, K + 4)``: reads two saturated distances and the other channels; of the mirror image two and one."""
    camera: Camera
    """The portrait's."""
    pose: FusedJoint | None = None
    """From the unturned volume to the portrait's torso."""


@dataclass(frozen=True, kw_only=True)
class FusedScene:
    """The radiance field of one portrait in one expression: tri-planes and decoder (Eqs. 7-8), and what may join them."""

    planes: Tensor
    """``(3, C, P, P)``, or ``(3, C + 3, P, P)`` with the motion of points in units of `offset_scale`; the mean added."""
    box_side: float
    zeros_outside: bool
    """Zeros outside the box; else the edge texels go on."""
    first: Layer
    """``(hidden, C)``."""
    first_colour: Layer | None = None
    """The same of a colour network of its own."""
    to_density: Layer
    """``(1, hidden)``."""
    to_colour: Layer
    """``(colours, hidden)``."""
    colour_margin: float
    """Colours are sigmoid(x) (1 + 2 margin) - margin."""
    guide: Layer | None = None
    """``(5, hidden)``: offsets of the place in the portrait before tanh, gates before the sigmoid."""
    offset_scale: float = 0.0
    unpose: FusedJoint | None = None
    """From the frame to the unturned volume."""
    depth: FusedDepth | None = None


_kept = threading.local()


def render_fused(
    scene: FusedScene,
    origins: Tensor,
    directions: Tensor,
    config: RendererConfig,
    *,
    fast: FastConfig = EVERYTHING,
    threads: int | None = None,
) -> RayResult:
    """As `render_rays` of the same field without jitter and without gradients.

    Args:
        scene: float32 tensors on the CPU.
        origins, directions: ``(1, R, 3)``, directions of unit length.
        config: sampling.
        fast: what may be left out, as in `render_square`; more than one ray per coarse ray needs a square picture.
        threads: of this call; as many as PyTorch uses when None. The result does not depend on it.

    Returns:
        features ``(1, R, colours)``, with a guide ``(1, R, colours + 5)``: places, premultiplied, and gates.

    Raises:
        ValueError: Tensors of a wrong shape, or not on the CPU.
        RuntimeError: The renderer does not run here (`fused_status`).
    """
    check_shape("origins", origins, 1, None, 3)
    check_shape("directions", directions, 1, origins.shape[1], 3)
    call = _Call(scene, origins, directions, config, fast)
    threads = threads or torch.get_num_threads()
    floats = binding.run("floats", call.scene, threads=threads)
    work = getattr(_kept, "work", None)  # kept: fresh memory costs a page fault for every 4 KiB
    if work is None or work.numel() < floats:
        work = _kept.work = torch.empty(floats)
    binding.run("render", call.scene, work.data_ptr(), threads=threads)
    return call.result


class _Call:
    """What the kernel is given; keeps the tensors alive that it points to."""

    def __init__(
        self, scene: FusedScene, origins: Tensor, directions: Tensor, config: RendererConfig, fast: FastConfig
    ) -> None:
        self.kept: list[Tensor] = []
        motion = scene.planes.shape[1] - scene.first[0].shape[1]
        hidden, colours = scene.first[0].shape[0], scene.to_colour[0].shape[0]
        check_shape("planes", scene.planes, 3, None, scene.planes.shape[2], scene.planes.shape[2])
        if motion not in (0, 3):
            raise ValueError(f"fused: planes have {motion} channels more than the first layer; expected 0 or 3")
        last = [scene.to_colour] if scene.guide is None else [scene.to_colour, scene.guide]
        outputs = colours + (0 if scene.guide is None else _GUIDE)
        rays, side = origins.shape[1], round(origins.shape[1] ** 0.5)
        square = side * side == rays
        per_coarse = 1 if config.composite_coarse else fast.rays_per_coarse
        if per_coarse > 1 and not square:
            raise ValueError(f"fused: {per_coarse} rays per coarse ray need a square picture; got {rays} rays")
        fine = max(2, round(fast.fine_share * config.num_fine))
        near, far = depth_limits(origins, config) if rays else (torch.zeros(1), torch.ones(1))
        self.result = RayResult(torch.empty(1, rays, outputs), torch.empty(1, rays), torch.empty(1, rays))
        self.scene = binding.Scene(
            **dict(planes=self._address(scene.planes, *scene.planes.shape), motion=motion, box_side=scene.box_side),
            **dict(channels=scene.first[0].shape[1], resolution=scene.planes.shape[2], ring=int(scene.zeros_outside)),
            **dict(hidden=hidden, outputs=outputs, colours=colours, margin=scene.colour_margin),
            **self._layer("first", scene.first, hidden, scene.first[0].shape[1]),
            **self._layer("second", scene.first_colour, hidden, scene.first[0].shape[1]),
            **self._layer("density", scene.to_density, 1, hidden),
            **self._layer("last", (torch.cat([x[0] for x in last]), torch.cat([x[1] for x in last])), outputs, hidden),
            **dict(offset_scale=scene.offset_scale, unpose=joint_of(scene.unpose), **self._depth(scene.depth, hidden)),
            **dict(num_coarse=config.num_coarse, num_fine=config.num_fine, composite_coarse=config.composite_coarse),
            **dict(near=float(near), far=float(far), floor=config.importance_floor),
            **dict(shift=config.density_shift, gain=config.density_gain),
            **dict(rays_per_coarse=per_coarse, fine_samples=fine, faint_samples=min(fast.faint_samples, fine)),
            **dict(empty_opacity=fast.empty_opacity, faint_opacity=fast.faint_opacity, least_share=fast.least_share),
            **dict(rays=rays, side=side if square else 0),
            **dict(origins=self._address(origins, 1, rays, 3), directions=self._address(directions, 1, rays, 3)),
            features=self._address(self.result.features, 1, rays, outputs),
            **dict(
                depth=self._address(self.result.depth, 1, rays), opacity=self._address(self.result.opacity, 1, rays)
            ),
        )

    def _address(self, tensor: Tensor, *shape: int) -> int:
        """Where float32 numbers of this shape lie, one after another."""
        check_shape("fused tensor", tensor, *shape)
        if tensor.device.type != "cpu":
            raise ValueError(f"the fused renderer works on the CPU; got a tensor on {tensor.device}")
        self.kept.append(tensor.detach().float().contiguous())
        return self.kept[-1].data_ptr()

    def _layer(self, name: str, layer: Layer | None, outs: int, ins: int) -> dict[str, int | None]:
        if layer is None:
            return {f"{name}_weight": None, f"{name}_bias": None}
        return {f"{name}_weight": self._address(layer[0], outs, ins), f"{name}_bias": self._address(layer[1], outs)}

    def _depth(self, depth: FusedDepth | None, hidden: int) -> dict[str, object]:
        if depth is None:
            return {}
        channels, height, width = depth.maps.shape
        if not 2 <= channels <= _MOST_MAPS or height < 2 or width < 2:
            raise ValueError(f"fused: maps must be (2 to {_MOST_MAPS}, >= 2, >= 2); got {tuple(depth.maps.shape)}")
        return dict(
            maps=self._address(depth.maps, channels, height, width),
            clue_weight=self._address(depth.to_hidden, hidden, channels + 4),
            **dict(map_channels=channels, map_height=height, map_width=width),
            **dict(portrait=pinhole_of(depth.camera), pose=joint_of(depth.pose)),
        )


def pinhole_of(camera: Camera) -> binding.Pinhole:
    """The first of the cameras, as the kernel takes it."""
    matrix, position = camera.intrinsics[0].cpu(), camera.cam_to_world[0, :3].cpu()
    return binding.Pinhole(
        rotation=tuple(position[:, :3].flatten().tolist()),
        centre=tuple(position[:, 3].tolist()),
        focal=(float(matrix[0, 0]), float(matrix[1, 1])),
        middle=(float(matrix[0, 2]), float(matrix[1, 2])),
        distance=float(position[:, 3].norm()),
    )


def joint_of(joint: FusedJoint | None) -> binding.Joint:
    """The same of a joint; None moves nothing."""
    if joint is None:
        return binding.Joint()
    extra = tuple(joint.extra.flatten().tolist())
    return binding.Joint(on=1, extra=extra, pivot=joint.pivot, top=joint.top, bottom=joint.bottom)
