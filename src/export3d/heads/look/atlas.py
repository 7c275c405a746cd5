"""The skin atlas: masks as functions of the neutral position and the landmarks, for all who share a head (no paper section).

Everything that depends on the head alone (positions, distances to lips, lids and brows, noise) is computed once per
process in :func:`canvas`; an identity is then a few weighted sums over the texels (`skin.py`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.raster.fields import along_curve, curve, shared_noise, signed_distance, smoothstep, vertex_normals
from export3d.heads.raster.rasterize import rasterize
from export3d.heads.shape.parametric import ParametricHead

ALBEDO = slice(0, 3)
GLOSS = 3
BUMP = slice(4, 7)
LIP = 7
BEARD = 8
STRAND = 9
_FAR = 9.0
BANK = 3
"""Independent noises of each scale."""


@dataclass(frozen=True)
class Canvas:
    """Fields over the N covered texels of the atlas of one head.

    Attributes:
        size: Side of a tile; the atlas has `size` rows and `2 size` columns (face tile, head tile).
        texel: ``(N,)`` place in the flat atlas; `fill_to` takes the value of texel `fill_from` (gutter around charts).
        position, normal: ``(N, 3)`` neutral position in cm and unit normal.
        lip: ``(N,)`` signed distance to the outer lip line, cm, negative inside.
        lid: ``(N,)`` signed distance to the nearer lid line; `lid_upper` is 1 above the eye's middle.
        brow_along, brow_across: ``(N,)`` position along the brow (0 at the nose) and signed distance from it, cm.
        broad, middle, fine: ``(N, 3)`` three independent noises of each scale; identities mix them.
        bump: ``(N, 3, 3)`` three independent vector noises.
        strands: ``(N, 2)`` hair-like noise for beards and for brows.
    """

    size: int
    texel: Tensor
    fill_to: Tensor
    fill_from: Tensor
    position: Tensor
    normal: Tensor
    lip: Tensor
    lid: Tensor
    lid_upper: Tensor
    brow_along: Tensor
    brow_across: Tensor
    broad: Tensor
    middle: Tensor
    fine: Tensor
    bump: Tensor
    strands: Tensor

    def assemble(self, values: Tensor) -> Tensor:
        """``(N, C)`` texel values -> ``(size, 2 size, C)`` atlas with filled gutters."""
        flat = values.mean(0).expand(2 * self.size * self.size, -1).contiguous()
        flat[self.texel] = values
        flat[self.fill_to] = values[self.fill_from]
        return flat.reshape(self.size, 2 * self.size, -1)


@functools.lru_cache(maxsize=4)
def canvas(head: ParametricHead, size: int) -> Canvas:
    """The canvas of a head; kept for the process."""
    device = head.vertices.device
    skin = head.triangles_of("face", "head_neck")
    triangles, uv_triangles = head.triangles[skin], head.triangle_uv[skin]
    place = torch.stack([head.uv[:, 0] * size, (1.0 - head.uv[:, 1]) * size], 1)
    fragments = rasterize(place[None], torch.ones(1, len(place), device=device), uv_triangles, (size, 2 * size))
    corners = triangles[fragments.triangle]
    normals = vertex_normals(head.vertices[None], triangles)[0]
    position = fragments.interpolate(head.vertices, corners)
    normal = F.normalize(fragments.interpolate(normals, corners), dim=1)
    fill_to, fill_from = _gutter(fragments.pixel, size)
    lip, lid, lid_upper, along, across = _features(head.vertices[head.landmark_vertices], position)
    brow_strands = shared_noise(11)(
        torch.stack([along * 60 - across * (12 - 18 * along), across * 4, along * 0 + 3], 1)
    )
    hair_grain = position.new_tensor([11.0, 3.6, 7.0])
    beard_strands = 0.6 * shared_noise(12)(position * hair_grain + 31) + 0.4 * shared_noise(12)(
        position * 1.7 * hair_grain
    )
    bump = torch.stack(
        [
            shared_noise(20 + k, 3)(position * 7.0) * 0.55
            + shared_noise(20 + k, 3)(position * 13.0 + 5) * 0.45
            + shared_noise(20 + k, 3)(position * 2.2) * 0.35
            for k in range(BANK)
        ],
        1,
    )
    return Canvas(
        size=size,
        texel=fragments.pixel,
        fill_to=fill_to,
        fill_from=fill_from,
        position=position,
        normal=normal,
        lip=lip,
        lid=lid,
        lid_upper=lid_upper,
        brow_along=along,
        brow_across=across,
        broad=shared_noise(13, BANK).octaves(position * 0.35, 3),
        middle=shared_noise(14, BANK).octaves(position * 1.3 + 9, 4),
        fine=shared_noise(15, BANK).octaves(position * 6.0 + 3, 3, 0.7),
        bump=bump,
        strands=torch.cat([beard_strands, brow_strands], 1),
    )


def _features(landmarks: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`lip`, `lid`, `lid_upper`, `brow_along`, `brow_across` of :class:`Canvas`; far away where they do not matter."""
    xy, front = position[:, :2], position[:, 2] > 4.0
    lip, lid, brow_across = (torch.full_like(position[:, 0], _FAR) for _ in range(3))
    near = ((xy[:, 0].abs() < 5) & (xy[:, 1] < 0.5) & (xy[:, 1] > -8) & front).nonzero()[:, 0]
    lip[near] = signed_distance(curve(landmarks[48:60, :2], 60, closed=True), xy[near])
    lid_upper, brow_along = torch.zeros_like(lip), torch.full_like(lip, 2.0)
    for eye, brow, side in ((slice(42, 48), slice(22, 27), 1), (slice(36, 42), slice(17, 22), -1)):
        beside = xy[:, 0] * side
        near = ((beside > 0.4) & (beside < 7) & (xy[:, 1] > 1) & (xy[:, 1] < 6.5) & front).nonzero()[:, 0]
        lid[near] = signed_distance(curve(landmarks[eye, :2], 48, closed=True), xy[near])
        lid_upper[near] = smoothstep(-0.1, 0.3, xy[near, 1] - landmarks[eye, 1].mean())
        points = landmarks[brow, :2]
        points = points if side > 0 else points.flip(0)
        near = ((beside > 0) & (xy[:, 1] > 3.2) & (xy[:, 1] < 9.5) & (position[:, 2] > 3)).nonzero()[:, 0]
        brow_along[near], across = along_curve(curve(points, 32), xy[near])
        brow_across[near] = across * side  # positive above the brow on both sides
    return lip, lid, lid_upper, brow_along, brow_across


def _gutter(texel: Tensor, size: int, width: int = 6) -> tuple[Tensor, Tensor]:
    """Texels around the charts and the covered texel that each copies, so that bilinear lookups never see a gap."""
    source = torch.full((1, 1, size, 2 * size), -1.0, dtype=torch.float64, device=texel.device)
    source.view(-1)[texel] = torch.arange(len(texel), dtype=torch.float64, device=texel.device)
    first = source.clone()
    for _ in range(width):
        grown = F.max_pool2d(source, 3, 1, 1)
        source = torch.where(source < 0, grown, source)
    new = ((first < 0) & (source >= 0)).view(-1).nonzero()[:, 0]
    return new, source.view(-1)[new].long()
