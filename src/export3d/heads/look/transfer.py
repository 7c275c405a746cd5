"""Light transfer of a whole person: shadows from skin, garment and hair, scattered under the skin (no paper section)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.hair.volume import HairPatch
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.scene import Clothes
from export3d.heads.raster.fields import csr_matrix, vertex_normals
from export3d.heads.raster.light import COSINE_LOBE, harmonics9, shadow_transfer
from export3d.heads.shape.parametric import ParametricHead

_INNER_PARTS = ("teeth", "gums_tongue", "mouth_socket")
_SKIN_PARTS = ("face", "head_neck")


@functools.lru_cache(maxsize=4)
def _smoothing(head: ParametricHead) -> Tensor:
    """Sparse ``(V, V)`` operator: 0.4 of a vertex and 0.6 of the mean of its neighbours."""
    t = head.triangles
    pairs = torch.cat([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1)]), dim=0)
    count = head.vertices.shape[0]
    degree = torch.bincount(pairs[:, 0], minlength=count).clamp(min=1)
    diagonal = torch.arange(count, device=t.device)
    lonely = torch.bincount(pairs[:, 0], minlength=count) == 0
    value = torch.cat([0.6 / degree[pairs[:, 0]].float(), torch.where(lonely, 1.0, 0.4)])
    row, column = torch.cat([pairs[:, 0], diagonal]), torch.cat([pairs[:, 1], diagonal])
    order = row.argsort(stable=True)
    starts = F.pad(torch.bincount(row, minlength=count).cumsum(0), (1, 0))
    return csr_matrix(starts, column[order], value[order], (count, count))


def light_transfer(
    head: ParametricHead, rest: Tensor, clothes: Clothes, hair: tuple[HairPatch, ...], options: AppearanceOptions
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Soft-shadowed transfer of head, garment and hair, scattered under the skin (more for red than for green)."""
    num_head = rest.shape[0]
    head_normals = vertex_normals(rest[None], head.triangles)[0]
    cloth_normals = vertex_normals(clothes.vertices[None], clothes.triangles)[0]
    casters = [rest, clothes.vertices]
    skin = head.triangles_of(*_SKIN_PARTS)
    caster_triangles = [head.triangles[skin], clothes.triangles + num_head]
    receivers, normals = [rest, clothes.vertices], [head_normals, cloth_normals]
    start = num_head + len(clothes.vertices)
    for patch in hair:
        layer = patch.outer - 0.33 * patch.thickness[:, None] * patch.normal
        casters.append(layer)
        border = _texture_at(patch.texture, patch.uv)[:, 3]
        caster_triangles.append(patch.triangles[(border[patch.triangles] > 0.05).all(1)] + start)
        start += len(layer)
        receivers.append(patch.outer)
        normals.append(patch.normal)
    total = shadow_transfer(
        torch.cat(receivers),
        torch.cat(normals),
        torch.cat(casters),
        torch.cat(caster_triangles),
        num_directions=options.shadow_directions,
        map_size=options.shadow_map_size,
    )
    blur = _smoothing(head)
    sharp = blur @ total[:num_head]
    lobe = sharp.new_tensor(COSINE_LOBE)
    inner = head.vertices_of(*_INNER_PARTS)
    sharp = torch.where(inner[:, None], harmonics9(head_normals) * lobe * 0.75, sharp)
    steps = [sharp]
    for _ in range(10):
        steps.append(blur @ steps[-1])
    eyes = head.vertices_of("sclera_left", "sclera_right")
    sharp = torch.where(eyes[:, None], steps[8], sharp)
    scattered = torch.stack([0.75 * steps[10] + 0.25 * sharp, 0.8 * steps[3] + 0.2 * sharp, sharp], 1)
    plain = (inner | eyes)[:, None, None]
    scattered = torch.where(plain, sharp[:, None].expand(-1, 3, -1), scattered)
    garment = total[num_head : num_head + len(clothes.vertices), None].expand(-1, 3, -1)
    rest_of = total[num_head + len(clothes.vertices) :]
    return torch.cat([scattered, garment]), rest_of.split([len(patch.outer) for patch in hair])


def _texture_at(texture: Tensor, uv: Tensor) -> Tensor:
    """Nearest texels of a ``(rows, columns, C)`` texture."""
    row = (uv[:, 1] * (texture.shape[0] - 1)).round().long()
    column = (uv[:, 0] * (texture.shape[1] - 1)).round().long()
    return texture[row, column]
