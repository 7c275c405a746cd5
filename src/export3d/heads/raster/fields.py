"""Small numeric fields that paint a head: noise, smooth steps, curves, mesh normals, lookups (no paper section)."""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothstep(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """0 at `low`, 1 at `high` (either may be the larger one), cubic between."""
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


class Noise:
    """Periodic smooth noise in [-1, 1] on a cubic lattice.

    Args:
        seed: Fixes the lattice.
        channels: Independent noises looked up at once.
        period: Lattice cells until the noise repeats.
    """

    def __init__(self, seed: int, channels: int = 1, period: int = 32) -> None:
        generator = torch.Generator().manual_seed(seed)
        lattice = torch.rand(channels, period, period, period, generator=generator) * 2.0 - 1.0
        self._lattice = F.pad(lattice[None], (0, 1, 0, 1, 0, 1), mode="circular")
        self._period = period

    def __call__(self, points: Tensor) -> Tensor:
        """``(N, 3)`` positions -> ``(N, channels)``."""
        lattice = self._lattice.to(points.device)
        cell = points % self._period
        base = cell.floor()
        fraction = cell - base
        fraction = fraction * fraction * (3.0 - 2.0 * fraction)
        grid = ((base + fraction) / self._period * 2.0 - 1.0).reshape(1, -1, 1, 1, 3)
        return F.grid_sample(lattice, grid, align_corners=True)[0, :, :, 0, 0].T

    def octaves(self, points: Tensor, count: int, gain: float = 0.5) -> Tensor:
        """Sum of `count` octaves, each twice as fine and `gain` times as strong; stays in [-1, 1]."""
        total = torch.zeros(points.shape[0], self._lattice.shape[1], device=points.device)
        amplitude, norm = 1.0, 0.0
        for k in range(count):
            total = total + amplitude * self(points * 2.0**k + 7.3 * k)
            norm += amplitude
            amplitude *= gain
        return total / norm


@functools.lru_cache(maxsize=8)
def shared_noise(seed: int, channels: int = 1, period: int = 32) -> Noise:
    """A lattice that all identities share; they differ in where they look it up."""
    return Noise(seed, channels, period)


def curve(points: Tensor, count: int, closed: bool = False) -> Tensor:
    """``(count, D)`` points, evenly spaced in parameter, on the Catmull-Rom spline through ``(M, D)`` points."""
    if closed:
        padded = torch.cat([points[-1:], points, points[:2]])
        segments = points.shape[0]
    else:
        padded = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
        segments = points.shape[0] - 1
    steps = torch.arange(count, dtype=torch.float32, device=points.device)
    steps = steps / count if closed else steps / (count - 1)
    position = steps * segments
    index = position.floor().long().clamp(max=segments - 1)
    t = (position - index)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def signed_distance(polygon: Tensor, points: Tensor) -> Tensor:
    """``(N,)`` distance from ``(N, 2)`` points to a closed ``(M, 2)`` polygon, negative inside."""
    start, end = polygon, polygon.roll(-1, 0)
    along = end - start
    offset = points[:, None] - start
    t = ((offset * along).sum(-1) / (along * along).sum(-1)).clamp(0.0, 1.0)
    distance = (offset - t[..., None] * along).norm(dim=-1).amin(1)
    y = points[:, 1:2]
    rising = (start[:, 1] > y) != (end[:, 1] > y)
    slope = (end[:, 0] - start[:, 0]) / (along[:, 1] + 1e-9)
    crossings = (rising & (points[:, :1] < slope * (y - start[:, 1]) + start[:, 0])).sum(1)
    return torch.where(crossings % 2 == 1, -distance, distance)


def along_curve(line: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Position along an open ``(M, 2)`` polyline in [0, 1] and signed distance from it, for ``(N, 2)`` points."""
    start = line[:-1]
    step = line[1:] - start
    length = step.norm(dim=1)
    before = torch.cat([length.new_zeros(1), length.cumsum(0)])
    offset = points[:, None] - start
    t = ((offset * step).sum(-1) / (step * step).sum(-1)).clamp(0.0, 1.0)
    gap = offset - t[..., None] * step
    distance = gap.norm(dim=-1)
    nearest = distance.argmin(1)
    row = torch.arange(points.shape[0], device=points.device)
    position = (before[nearest] + t[row, nearest] * length[nearest]) / before[-1]
    side = (step[nearest, 0] * offset[row, nearest, 1] - step[nearest, 1] * offset[row, nearest, 0]).sign()
    return position, side * distance[row, nearest]


def vertex_normals(vertices: Tensor, triangles: Tensor, gather: Tensor | None = None) -> Tensor:
    """``(B, V, 3)`` unit normals of ``(B, V, 3)`` vertices, weighted by area; `gather` from :func:`face_gather`."""
    a, b, c = (vertices.index_select(1, triangles[:, k]) for k in range(3))
    face = torch.linalg.cross(b - a, c - a)
    if gather is None:
        gather = face_gather(triangles, vertices.shape[1])
    flat = face.permute(1, 0, 2).reshape(len(triangles), -1)
    return F.normalize((gather @ flat).reshape(vertices.shape[1], -1, 3).permute(1, 0, 2), dim=-1)


def face_gather(triangles: Tensor, num_vertices: int) -> Tensor:
    """Sparse ``(V, F)`` operator that sums the values of the triangles around each vertex."""
    order = triangles.reshape(-1).argsort(stable=True)
    counts = torch.bincount(triangles.reshape(-1), minlength=num_vertices)
    starts = F.pad(counts.cumsum(0), (1, 0))
    ones = torch.ones(order.shape[0], device=triangles.device)
    return csr_matrix(starts, torch.div(order, 3, rounding_mode="floor"), ones, (num_vertices, len(triangles)))


def csr_matrix(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR matrix, without PyTorch's warning that the layout is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def grid_triangles(rows: int, columns: int, device: torch.device | str | None = None) -> Tensor:
    """``(2 (rows - 1)(columns - 1), 3)`` triangles of a grid of vertices in row-major order."""
    index = torch.arange(rows * columns, device=device).reshape(rows, columns)
    quad = torch.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    return torch.cat([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def interpolate_table(x: Tensor, xs: tuple[float, ...], ys: tuple[float, ...]) -> Tensor:
    """Piecewise linear function through (xs, ys), constant outside."""
    knots, values = x.new_tensor(xs), x.new_tensor(ys)
    k = torch.bucketize(x.contiguous(), knots).clamp(1, len(xs) - 1)
    t = ((x - knots[k - 1]) / (knots[k] - knots[k - 1])).clamp(0.0, 1.0)
    return values[k - 1] + t * (values[k] - values[k - 1])


def sample_bilinear(texture: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear lookup with clamped borders.

    Args:
        texture: ``(H, W, C)``.
        column: ``(N,)`` position in texels; 0 is the centre of the first column.
        row: ``(N,)`` position in texels.

    Returns:
        ``(N, C)``.
    """
    height, width, _ = texture.shape
    flat = texture.reshape(height * width, -1)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    left, top = column.floor().clamp(max=width - 2), row.floor().clamp(max=height - 2)
    fx, fy = (column - left)[:, None], (row - top)[:, None]
    first = top.long() * width + left.long()
    upper = torch.lerp(flat.index_select(0, first), flat.index_select(0, first + 1), fx)
    lower = torch.lerp(flat.index_select(0, first + width), flat.index_select(0, first + width + 1), fx)
    return torch.lerp(upper, lower, fy)
