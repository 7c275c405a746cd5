"""Which renderer marches the rays of a film: the compiled one where it runs, PyTorch's otherwise; the same picture."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from export3d.model.decoder import COLOUR_MARGIN, RadianceDecoder
from export3d.model.export3d import TriPlaneField
from export3d.portrait.compose import Pass
from export3d.portrait.fast_field import FoldedField
from export3d.portrait.field import FieldParts
from export3d.portrait.layers import GAIN, Layers
from export3d.portrait.neck import NeckConfig, turn_matrix
from export3d.portrait.state import DrivenPlanes, PortraitCode
from export3d.rendering.fast import FastConfig, render_square
from export3d.rendering.fused import (
    FusedDepth,
    FusedHead,
    FusedJoint,
    FusedScene,
    Layer,
    fused_status,
    paint_head,
    read_head,
    render_fused,
)
from export3d.rendering.renderer import RayResult, RendererConfig, render_rays


def march_portrait(
    parts: FieldParts,
    driven: DrivenPlanes,
    rays: tuple[Tensor, Tensor],
    config: RendererConfig,
    fast: FastConfig,
) -> RayResult:
    """What the rays (origins and directions) of one whole picture meet in a driven portrait; see `render_square`."""
    if driven.planes.device.type == "cpu" and fused_status()[0]:
        return render_fused(portrait_scene(parts, driven), *rays, config, fast=fast)
    return render_square(FoldedField(parts, driven), *rays, config, fast)


def reads_fused(fast: FastConfig | None, opacity: Tensor) -> bool:
    """Whether the compiled renderer may compose a picture with this ``(B, 1, ..)`` opacity of its rays."""
    return fast is not None and opacity.device.type == "cpu" and len(opacity) == 1 and fused_status()[0]


def read_portrait(guide: Tensor, opacity: Tensor, side: int, *, code: PortraitCode, neck: NeckConfig) -> Layers:
    """As `SourceLookup.layers` of the portrait for one picture of `side` pixels."""
    head = FusedHead(
        guide=torch.cat([guide, opacity], dim=1)[0],
        photo=code.maps.interleaved,
        camera=code.camera,
        pose=_joint(neck, code.state.turn, -neck.lag),
    )
    layers, clues = (x[None] for x in read_head(head, side, side))
    prior = torch.cat([torch.full_like(layers[:, :1], 0.11), layers[:, 6:8]], dim=1)
    return Layers(layers[:, :6].unflatten(1, (2, 3)), prior, clues, layers[:, 8:])


def paint_portrait(left: Pass, image: Tensor, opacity: Tensor, *, code: PortraitCode, neck: NeckConfig) -> None:
    """As `compose.head_at` for a rectangle of one picture: the head before what stands in `image` (1, 3, h, w), and its
    `opacity` (1, 1, h, w)."""
    photo = code.maps.photo
    assert photo is not None
    head = FusedHead(
        guide=torch.cat([left.guide, left.opacity], dim=1)[0],
        choice=torch.cat([x.float() for x in left.choice], dim=1)[0],
        photo=photo.interleaved,
        camera=code.camera,
        pose=_joint(neck, code.state.turn, -neck.lag),
        gain=GAIN,
    )
    paint_head(head, image[0], opacity[0, 0])


def march_paper(
    field: TriPlaneField,
    origins: Tensor,
    directions: Tensor,
    config: RendererConfig,
    jitter: torch.Generator | None = None,
) -> RayResult:
    """As `render_rays`, sooner where the compiled renderer can do it: one picture on a CPU, no jitter, no gradients."""
    usable = len(origins) == 1 and origins.device.type == "cpu" and jitter is None and not torch.is_grad_enabled()
    if not (usable and fused_status()[0]):
        return render_rays(field, origins, directions, config, jitter)
    return render_fused(paper_scene(field), origins, directions, config)


def paper_scene(field: TriPlaneField) -> FusedScene:
    """The paper's field (Eqs. 7-8), of one picture."""
    return FusedScene(
        **_common(field.decoder),
        planes=field.planes_[0],
        box_side=field.config.box_side,
        zeros_outside=field.config.padding == "zeros",
    )


def portrait_scene(parts: FieldParts, driven: DrivenPlanes) -> FusedScene:
    """The field of a driven portrait: what `PortraitField` says, as plain tensors."""
    code, neck = driven.code, parts.neck.config
    own = code.state.turn
    depth = FusedDepth(
        maps=code.maps.depth[0],
        to_hidden=parts.depth.to_hidden.weight,
        camera=code.camera,
        pose=_joint(neck, own, -neck.lag),
    )
    return FusedScene(
        **_common(parts.decoder),
        planes=parts.mean_planes(driven.planes)[0],
        box_side=parts.triplane.box_side,
        zeros_outside=parts.triplane.padding == "zeros",
        guide=_layer(parts.lookup.guide),
        offset_scale=parts.lookup.config.offset_scale,
        depth=depth,
        unpose=_joint(neck, own if driven.turn is None else driven.turn, neck.lag),
    )


def _common(decoder: RadianceDecoder) -> dict[str, Any]:
    return dict(
        first=_layer(decoder.first),
        first_colour=None if decoder.first_colour is None else _layer(decoder.first_colour),
        to_density=_layer(decoder.to_density),
        to_colour=_layer(decoder.to_colour),
        colour_margin=COLOUR_MARGIN,
    )


def _layer(layer: torch.nn.Linear) -> Layer:
    return layer.weight, layer.bias


def _joint(neck: NeckConfig, turn: Tensor | None, share: float) -> FusedJoint | None:
    """The joint of `Neck` for this share of a turn (1, 3)."""
    if turn is None:
        return None
    extra = _extra(*(share * turn[0]).tolist())
    return FusedJoint(extra=extra, pivot=neck.pivot, top=neck.top, bottom=neck.bottom)


@lru_cache(maxsize=64)  # the portrait's own turn comes back in every frame
def _extra(x: float, y: float, z: float) -> Tensor:
    return (turn_matrix(torch.tensor([[x, y, z]])) - torch.eye(3))[0].t()
