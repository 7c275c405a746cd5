"""Batched z-buffer rasteriser in plain PyTorch, the same code on CPU and CUDA (the data of Sec. 4; not in the paper).

Each triangle is tested against the pixel centres inside its bounding box; the nearest triangle of a pixel is found with
one integer `scatter_reduce(amin)` of (depth bits, triangle). Results do not depend on the order of the triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from export3d.checks import check_shape

_EMPTY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Fragments:
    """The visible surface points of a batch of images, one for each covered pixel.

    Attributes:
        pixel: ``(N,)`` int64, ``(image * height + row) * width + column``; no pixel occurs twice.
        triangle: ``(N,)`` int64, the triangle that is seen there.
        image: ``(N,)`` int64, which image of the batch.
        weights: ``(N, 3)`` float, perspective-correct barycentric weights of the triangle's corners; sum 1.
    """

    pixel: Tensor
    triangle: Tensor
    image: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.pixel.shape[0]

    def __getitem__(self, index: Tensor) -> Fragments:
        picked = (t.index_select(0, index) for t in (self.pixel, self.triangle, self.image, self.weights))
        return Fragments(*picked)

    def corners(self, triangles: Tensor, num_vertices: int) -> Tensor:
        """``(N, 3)`` indices of the corners in attributes of shape ``(B * V, ...)``."""
        return triangles.index_select(0, self.triangle) + (self.image * num_vertices)[:, None]

    def interpolate(self, attributes: Tensor, corners: Tensor) -> Tensor:
        """Interpolate ``(B * V, C)`` attributes at the corners of :meth:`corners` -> ``(N, C)``."""
        total = attributes.index_select(0, corners[:, 0]) * self.weights[:, :1]
        total.addcmul_(attributes.index_select(0, corners[:, 1]), self.weights[:, 1:2])
        total.addcmul_(attributes.index_select(0, corners[:, 2]), self.weights[:, 2:])
        return total


class _Hits(NamedTuple):
    """Every (triangle, pixel centre) pair that covers, before the depth test."""

    pixel: Tensor  # (M,) flat over images
    triangle: Tensor  # (M,) int64
    image: Tensor  # (M,)
    weights: Tensor  # (M, 3) screen-space barycentric
    row: Tensor  # (M,) row of `corner_depth`
    corner_depth: Tensor  # (K, 3)


def rasterize(
    points_px: Tensor, depth: Tensor, triangles: Tensor, size: tuple[int, int], cull: Tensor | None = None
) -> Fragments:
    """Find the nearest triangle of every pixel.

    Args:
        points_px: ``(B, V, 2)`` float32 image positions, x right, y down; the centre of pixel i is i + 0.5.
        depth: ``(B, V)`` float32 z-depth; triangles with a corner at depth <= 0 are dropped.
        triangles: ``(F, 3)`` int64, shared by all images.
        size: Rows and columns.
        cull: optional ``(F,)`` bool; these triangles are drawn only where they face the camera. A triangle faces the
            camera when its corners run counter-clockwise for the eye (clockwise in x right, y down).

    Returns:
        Fragments, in the order of images and triangles.
    """
    hits = _cover(points_px, depth, triangles, size, cull)
    inverse = hits.weights / hits.corner_depth.index_select(0, hits.row)  # w_i / z_i; their sum is 1 / z
    inverse_depth = inverse.sum(1)
    # Positive floats sort like their bits, so the low half can carry the triangle.
    key = (inverse_depth.reciprocal().view(torch.int32).long() << 32) | hits.triangle
    nearest = torch.full((points_px.shape[0] * size[0] * size[1],), _EMPTY, dtype=torch.int64, device=key.device)
    nearest.scatter_reduce_(0, hits.pixel, key, "amin")
    seen = (nearest.index_select(0, hits.pixel) == key).nonzero()[:, 0]
    weights = inverse.index_select(0, seen) / inverse_depth.index_select(0, seen)[:, None]
    pixel, triangle, image = (t.index_select(0, seen) for t in (hits.pixel, hits.triangle, hits.image))
    return Fragments(pixel, triangle, image, weights)


def depth_maps(points_px: Tensor, depth: Tensor, triangles: Tensor, size: int) -> Tensor:
    """``(B, size, size)`` depth of the nearest surface under parallel projection; infinity where there is none.

    Args:
        points_px: ``(B, V, 2)`` image positions.
        depth: ``(B, V)`` distance along the direction of view, positive.
        triangles: ``(F, 3)`` int64.
        size: Rows and columns.
    """
    hits = _cover(points_px, depth, triangles, (size, size), None)
    value = (hits.weights * hits.corner_depth.index_select(0, hits.row)).sum(1)
    maps = torch.full((points_px.shape[0] * size * size,), torch.inf, device=value.device)
    maps.scatter_reduce_(0, hits.pixel, value, "amin")
    return maps.reshape(-1, size, size)


def _cover(points_px: Tensor, depth: Tensor, triangles: Tensor, size: tuple[int, int], cull: Tensor | None) -> _Hits:
    """All pixel centres inside all triangles."""
    height, width = size
    check_shape("points_px", points_px, None, None, 2)
    check_shape("depth", depth, points_px.shape[0], points_px.shape[1])
    check_shape("triangles", triangles, None, 3)
    num_triangles = triangles.shape[0]
    packed = torch.cat([points_px, depth[..., None]], -1)
    c0, c1, c2 = (packed.index_select(1, triangles[:, k]) for k in range(3))  # (B, F, 3) x, y, z
    x0, y0, x1, y1, x2, y2 = c0[..., 0], c0[..., 1], c1[..., 0], c1[..., 1], c2[..., 0], c2[..., 1]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left = (torch.minimum(torch.minimum(x0, x1), x2) - 0.5).ceil_().clamp_(min=0)
    right = (torch.maximum(torch.maximum(x0, x1), x2) - 0.5).floor_().clamp_(max=width - 1)
    top = (torch.minimum(torch.minimum(y0, y1), y2) - 0.5).ceil_().clamp_(min=0)
    bottom = (torch.maximum(torch.maximum(y0, y1), y2) - 0.5).floor_().clamp_(max=height - 1)
    drawn = (right >= left) & (bottom >= top)
    drawn &= (area.abs() > 1e-9) if cull is None else (area < -1e-9) | (~cull & (area > 1e-9))
    kept = drawn.reshape(-1).nonzero()[:, 0]
    c0, c1, c2 = (c.reshape(-1, 3).index_select(0, kept) for c in (c0, c1, c2))
    corner_depth = torch.stack([c0[:, 2], c1[:, 2], c2[:, 2]], 1)
    behind = corner_depth.amin(1) <= 0.0
    if bool(behind.any()):
        front = (~behind).nonzero()[:, 0]
        kept, corner_depth = kept[front], corner_depth[front]
        c0, c1, c2 = c0[front], c1[front], c2[front]
    image = torch.div(kept, num_triangles, rounding_mode="floor")
    triangle = kept - image * num_triangles
    area, left, right, top, bottom = (t.reshape(-1).index_select(0, kept) for t in (area, left, right, top, bottom))
    x0, y0, x1, y1, x2, y2 = c0[:, 0], c0[:, 1], c1[:, 0], c1[:, 1], c2[:, 0], c2[:, 1]
    columns, rows = (right - left).long() + 1, (bottom - top).long() + 1
    first = (image * height + top.long()) * width + left.long()
    # One row per triangle, gathered once per test: weight k is a linear function of the pixel's offset in the box.
    scale = area.reciprocal()
    dx, dy = left + 0.5 - x0, top + 0.5 - y0
    w1x, w1y = (y2 - y0) * scale, (x0 - x2) * scale
    w2x, w2y = (y0 - y1) * scale, (x1 - x0) * scale
    linear = torch.stack([w1x * dx + w1y * dy, w1x, w1y, w2x * dx + w2y * dy, w2x, w2y], 1)
    tests = columns * rows
    row = torch.repeat_interleave(torch.arange(kept.shape[0], device=kept.device), tests)
    box = torch.stack([tests.cumsum(0) - tests, columns, first], 1).index_select(0, row)
    place = torch.arange(row.shape[0], device=kept.device) - box[:, 0]
    down = torch.div(place, box[:, 1], rounding_mode="floor")
    across = place - down * box[:, 1]
    plane = linear.index_select(0, row)
    across_f, down_f = across.float(), down.float()
    w1 = torch.addcmul(plane[:, 0], plane[:, 1], across_f).addcmul_(plane[:, 2], down_f)
    w2 = torch.addcmul(plane[:, 3], plane[:, 4], across_f).addcmul_(plane[:, 5], down_f)
    w0 = 1.0 - w1 - w2
    inside = (torch.minimum(torch.minimum(w0, w1), w2) >= 0.0).nonzero()[:, 0]
    row = row.index_select(0, inside)
    pixel = (box[:, 2] + down * width + across).index_select(0, inside)
    weights = torch.stack([w0, w1, w2], 1).index_select(0, inside)
    return _Hits(pixel, triangle.index_select(0, row), image.index_select(0, row), weights, row, corner_depth)
