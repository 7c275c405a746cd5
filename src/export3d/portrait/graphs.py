"""The portrait model as four ONNX graphs, which need neither PyTorch nor this package (no section).

encode (once per portrait) -> drive (once per expression) -> rays (once per camera, the exact renderer) -> picture (the
super-resolution, and the stage with the photograph's own detail). Tensors have the batch size 1 and fixed sizes.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export3d.camera import Camera
from export3d.errors import MissingExtraError, UsageError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.files import replacing
from export3d.portrait.generator import PortraitGenerator
from export3d.portrait.model import PortraitModel
from export3d.portrait.state import DrivenPlanes, PhotoMaps, PortraitCode, PortraitMaps

OPSET = 17

CODE = ("tokens", "detail", "background", "looked_up", "features", "depth", "photo_picture", "photo_background")
"""What `encode` gives and the others take."""

STATE = {"beta": 64, "weights": len(ARKIT_NAMES), "gaze": 2, "turn": 3}
"""Fields of `FaceState` and their widths; NaN is unknown, but in beta and turn."""


@dataclass(frozen=True)
class Graph:
    """One graph: a module, what it is given by name, and the names of what it gives."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def export_graphs(model: PortraitModel, folder: Path, size: int) -> dict[str, Graph]:
    """Write NAME.onnx for the four graphs; pictures are `size` pixels along each side.

    Raises:
        UsageError: A size that is odd, or below the model's own.
        MissingExtraError: The package onnx is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError(
            'export needs the package onnx, not installed here. Run: pip install "export3d[export]"'
        )
    if size % 2 or size < model.config.image_size:
        raise UsageError(f"--size must be even and at least {model.config.image_size}, the model's own; got {size}.")
    graphs = graphs_of(model, size)
    for name, graph in graphs.items():
        with replacing(folder / f"{name}.onnx") as path:
            write_graph(graph, str(path))
    return graphs


def write_graph(graph: Graph, to: str | BinaryIO) -> None:
    """Write one graph as ONNX."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            to,  # type: ignore[arg-type]
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=False,
        )


def planes_graph(generator: PortraitGenerator, *shapes: Sequence[int]) -> Graph:
    """`PortraitGenerator.drive` alone, of tokens, detail and conditions of these shapes."""
    inputs = {name: torch.zeros(x) for name, x in zip(("tokens", "detail", "condition"), shapes, strict=True)}
    return Graph(_Step(generator, PortraitGenerator.drive), inputs, ("planes",))


def graphs_of(model: PortraitModel, size: int) -> dict[str, Graph]:
    """The four, with inputs of the right shapes: a grey portrait at rest."""
    own, camera = _state("own_"), {"own_camera": Camera.look_at_head().to_vector()}
    small, large = model.config.image_size, (1, 3, size, size)
    encode = Graph(
        _Step(model, _encode), {"source": torch.zeros(1, 3, small, small), "photo": torch.zeros(large)}, CODE
    )
    code = dict(zip(CODE, encode.module(*encode.inputs.values()), strict=True))
    drive = Graph(
        _Step(model, _drive), {"tokens": code["tokens"], "detail": code["detail"], **own, **_state("")}, ("planes",)
    )
    planes = {"planes": drive.module(*drive.inputs.values())}
    turns = {"own_turn": own["own_turn"], "turn": own["own_turn"]}
    seen = {"depth": code["depth"], **camera}
    rays = Graph(
        _Step(model, _rays), {**planes, **seen, **turns, "camera": camera["own_camera"]}, ("met", "guide", "opacity")
    )
    met = dict(zip(rays.outputs, rays.module(*rays.inputs.values()), strict=True))
    looked = {name: code[name] for name in ("looked_up", "features", "photo_picture", "photo_background")}
    picture = Graph(
        _Step(model, _picture), {**met, **looked, **camera, "own_turn": own["own_turn"]}, ("image", "image_opacity")
    )
    return {"encode": encode, "drive": drive, "rays": rays, "picture": picture}


class _Step(nn.Module):
    """A function of the model and of tensors. With gradients on, no part of the model looks at what a tensor holds."""

    def __init__(self, model: nn.Module, step: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, *tensors: Tensor) -> Any:
        with torch.enable_grad(), _Plain():
            return self.step(self.model, *tensors)


class _Plain(TorchFunctionMode):
    """Functions that ONNX does not have, by others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        more = kwargs or {}
        if func is torch.searchsorted:  # of few sorted numbers, right=True
            return (args[0][..., None, :] <= args[1][..., :, None]).sum(dim=-1)
        if func is torch.sinc:
            x = args[0] * math.pi
            small = x.abs() < 1e-6
            return torch.where(small, torch.ones_like(x), x.sin() / torch.where(small, torch.ones_like(x), x))
        if func is torch.Tensor.diff:  # along the last axis
            return args[0][..., 1:] - args[0][..., :-1]
        if func is torch.expm1:
            return args[0].exp() - 1.0
        if func is torch.Tensor.tensor_split:  # in two
            first, dim = args[1][0], more.get("dim", 0)
            count = args[0].shape[dim]
            first = int(first + count if first < 0 else first)
            return args[0].narrow(dim, 0, first), args[0].narrow(dim, first, int(count) - first)
        if func is F.interpolate:
            more = more | {"antialias": False}  # plays no part where a picture is enlarged, and here all are
        return func(*args, **more)


def _state(prefix: str) -> dict[str, Tensor]:
    unknown = ("weights", "gaze")
    return {prefix + k: torch.full((1, n), math.nan if k in unknown else 0.0) for k, n in STATE.items()}


def _code(camera: Tensor | None = None, state: FaceState | None = None, **given: Tensor) -> PortraitCode:
    """A portrait of which only what a step reads is there."""
    none = torch.zeros(1)
    photo = PhotoMaps(given.get("photo_picture", none), given.get("photo_background", none))
    names = {"background": "background", "picture": "looked_up", "features": "features", "depth": "depth"}
    maps = {field: given.get(name, none) for field, name in names.items()}
    return PortraitCode(
        tokens=given.get("tokens", none),
        detail=given.get("detail", none),
        maps=PortraitMaps(matte_logits=none, photo=photo, **maps),
        camera=Camera.from_vector(torch.zeros(1, 25) if camera is None else camera),
        state=state or FaceState(beta=torch.zeros(1, STATE["beta"])),
    )


def _encode(model: PortraitModel, source: Tensor, photo: Tensor) -> tuple[Tensor, ...]:
    state = FaceState(beta=torch.zeros(1, STATE["beta"]))
    code = model.encode(source, Camera.look_at_head(), state, photo=photo)
    maps = code.maps
    assert maps.photo is not None
    found = (maps.background, maps.picture, maps.features, maps.depth, maps.photo.picture, maps.photo.background)
    return code.tokens, code.detail, *found


def _drive(model: PortraitModel, tokens: Tensor, detail: Tensor, *states: Tensor) -> Tensor:
    own, driving = (FaceState(**dict(zip(STATE, half, strict=True))) for half in (states[:4], states[4:]))
    return model.drive(_code(state=own, tokens=tokens, detail=detail), driving).planes


def _turned(turn: Tensor) -> FaceState:
    return FaceState(beta=torch.zeros(1, STATE["beta"]), turn=turn)


def _rays(
    model: PortraitModel,
    planes: Tensor,
    depth: Tensor,
    own_camera: Tensor,
    own_turn: Tensor,
    turn: Tensor,
    camera: Tensor,
) -> tuple[Tensor, ...]:
    code = _code(own_camera, _turned(own_turn), depth=depth)
    met, guide = model.march(DrivenPlanes(planes=planes, turn=turn, code=code), Camera.from_vector(camera))
    return met[0], guide, met[2]


def _picture(
    model: PortraitModel,
    met: Tensor,
    guide: Tensor,
    opacity: Tensor,
    *looked: Tensor,
) -> tuple[Tensor, Tensor]:
    names = ("looked_up", "features", "photo_picture", "photo_background")
    code = _code(looked[4], _turned(looked[5]), **dict(zip(names, looked[:4], strict=True)))
    driven = DrivenPlanes(planes=met, turn=None, code=code)
    return model.compose(model.look(met, guide, opacity, driven), code)
