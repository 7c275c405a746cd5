"""Tri-planes: running-mean planes (Eq. 12) and the lookup of world points (Sec. 3.2-3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.checks import check_choice, check_shape


@dataclass(frozen=True, kw_only=True)
class TriPlaneConfig:
    """Size and placement of the planes."""

    channels: int = 32
    """Channels of each of the three planes (Sec. 3.2)."""
    resolution: int = 128
    """Texels along each side of a plane (Sec. 3.2: H/2)."""
    box_side: float = 1.0
    """Side of the cube that the planes span, scene units (EG3D: box_warp 1)."""
    padding: str = "zeros"
    """Outside the box: `zeros` (EG3D) or `border` (the edge texels go on)."""
    decay: float = 0.998
    """delta of the running mean (Eq. 12)."""
    mean_planes: bool = True
    """Add the running mean to the generator's output (Eq. 12)."""

    def __post_init__(self) -> None:
        check_choice("triplane.padding", self.padding, ("zeros", "border"))


class RunningMeanPlanes(nn.Module):
    """T_EMA (Eq. 12): the running mean of the generator's output, added to it before rendering."""

    mean: Tensor

    def __init__(self, config: TriPlaneConfig) -> None:
        super().__init__()
        self.config = config
        shape = (3, config.channels, config.resolution, config.resolution)
        self.register_buffer("mean", torch.zeros(shape))

    def forward(self, residual: Tensor) -> Tensor:
        """``residual`` (B, 3, C, P, P) -> planes of the same shape: residual + T_EMA; further channels stay as they are."""
        if not self.config.mean_planes:
            return residual
        channels = self.config.channels
        if residual.shape[2] == channels:
            return residual + self.mean
        return torch.cat([residual[:, :, :channels] + self.mean, residual[:, :, channels:]], dim=2)

    @torch.no_grad()
    def update(self, residual: Tensor) -> None:
        """T_EMA <- delta T_EMA + (1 - delta) mean over the batch of the generator's output *before* the sum (Eq. 12).

        Called by the training step once per optimiser step; with several processes the batch means are averaged.
        """
        batch_mean = residual.detach()[:, :, : self.config.channels].float().mean(dim=0)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(batch_mean)
            batch_mean /= dist.get_world_size()
        self.mean.mul_(self.config.decay).add_(batch_mean, alpha=1.0 - self.config.decay)


def sample_planes(planes: Tensor, points: Tensor, config: TriPlaneConfig) -> Tensor:
    """Mean of the three bilinear lookups of each point (Eq. 7).

    Planes in order xy, yz, zx with (width, height) axes (x, y), (z, y), (x, z); the height axis of xy and yz is flipped,
    so that row 0 of the xy plane is the top, as in the image.

    Args:
        planes: ``(B, 3, C, P, P)``.
        points: ``(B, N, 3)`` world positions; the box is centred at 0.

    Returns:
        ``(B, N, C)``.
    """
    check_shape("points", points, planes.shape[0], None, 3)
    batch, _, channels, side, _ = planes.shape
    x, y, z = (points * (2.0 / config.box_side)).unbind(-1)  # box -> [-1, 1]
    grids = torch.stack(
        [torch.stack([x, -y], -1), torch.stack([z, -y], -1), torch.stack([x, z], -1)], dim=1
    )  # (B, 3, N, 2)
    features = F.grid_sample(
        planes.reshape(batch * 3, channels, side, side),
        grids.reshape(batch * 3, 1, -1, 2),
        mode="bilinear",
        padding_mode=config.padding,
        align_corners=False,
    )  # (B * 3, C, 1, N)
    return features.reshape(batch, 3, channels, -1).mean(dim=1).transpose(1, 2)
