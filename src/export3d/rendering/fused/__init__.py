"""Fused renderer for CPUs (not in the paper): the exact renderer's samples and sums in one compiled loop over the rays."""

from export3d.rendering.fused.binding import fused_status
from export3d.rendering.fused.pictures import (
    FusedHead,
    add_pattern,
    head_layer,
    interleaved,
    paint_head,
    paste_head,
    read_head,
    repainted,
    rgb_to_yuv,
    rounded,
    spans,
)
from export3d.rendering.fused.render import EVERYTHING, FusedDepth, FusedJoint, FusedScene, Layer, render_fused

__all__ = [
    "EVERYTHING",
    "FusedDepth",
    "FusedHead",
    "FusedJoint",
    "FusedScene",
    "Layer",
    "add_pattern",
    "fused_status",
    "head_layer",
    "interleaved",
    "paint_head",
    "paste_head",
    "read_head",
    "render_fused",
    "repainted",
    "rgb_to_yuv",
    "rounded",
    "spans",
]
