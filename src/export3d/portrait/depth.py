"""Source depth (not in the paper): how far behind the portrait's visible surface each sample point lies.

A small network reads a depth map off the portrait, at half its resolution and so much finer than the planes hold shape. A
sample point is moved to where it was in the portrait (`SourceLookup.moved`) and projected there; its signed distance to
that depth, at two scales, tells the decoder where the skin is. The same is asked for its mirror image, which stands for
what the portrait hides. As truncated distances are in depth fusion, but read by a network instead of averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.model.superres import upsample2
from export3d.nn.conv import ConvStack, conv, with_coordinates

_SCALES = (0.012, 0.05)  # scene units (5 mm, 2.4 cm) over which a distance saturates
_DEPTH_UNIT = 0.1  # scene units per unit of the depth layer
_MIRROR = (-1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SourceDepthConfig:
    """The source depth."""

    channels: int = 6
    """Learned channels of the portrait that are read at the same places."""
    widths: tuple[int, int, int, int] = (24, 40, 64, 96)
    """Channels at a half, a quarter, an eighth and a sixteenth of the portrait's resolution."""


class SourceDepth(nn.Module):
    """The network behind the depth map, and the clues that points read from it.

    Args:
        hidden: width of the decoder's hidden layer.
    """

    def __init__(self, config: SourceDepthConfig, hidden: int) -> None:
        super().__init__()
        self.config = config
        fine, a, b, c = config.widths
        self.fine = ConvStack((5, fine, fine), 0.1, kernel=5, first_stride=2)
        self.down_a = ConvStack((fine, a), 0.1, first_stride=2)
        self.down_b = ConvStack((a, b), 0.1, first_stride=2)
        self.down_c = ConvStack((b, c, c), 0.1, first_stride=2)
        self.up_b = ConvStack((b + c, b), 0.1)
        self.up_a = ConvStack((a + b, a), 0.1)
        self.up = ConvStack((fine + a, fine), 0.1)
        self.out = conv(fine, 1 + config.channels)
        # Starts without a say, so a trained model may be grown by it.
        self.to_hidden = nn.Linear(2 * (len(_SCALES) + 1) + config.channels, hidden, bias=False)
        nn.init.zeros_(self.to_hidden.weight)

    def maps(self, source: Tensor, foreground: Tensor) -> Tensor:
        """What depends on the portrait only.

        Args:
            source: ``(B, 3, H, W)`` in [-1, 1].
            foreground: ``(B, 1, H/2, W/2)`` of the portrait in [0, 1].

        Returns:
            ``(B, 2 + channels, H/2, W/2)``: depth behind the sphere around the camera that goes through the origin, scene
            units; foreground; learned channels.
        """
        fine = self.fine(with_coordinates(source))
        a = self.down_a(fine)
        b = self.down_b(a)
        c = self.down_c(b)
        b = self.up_b(torch.cat([b, upsample2(c)], dim=1))
        a = self.up_a(torch.cat([a, upsample2(b)], dim=1))
        out = self.out(self.up(torch.cat([fine, upsample2(a)], dim=1))).float()
        return torch.cat([_DEPTH_UNIT * out[:, :1], foreground.float(), out[:, 1:]], dim=1)

    def clues(self, maps: Tensor, camera: Camera, points: Tensor, pose: Callable[[Tensor], Tensor]) -> Tensor:
        """What the maps say of points, as it joins the decoder's hidden layer before its activation.

        Args:
            maps: what `maps` returned.
            camera: the portrait's.
            points: ``(B, P, 3)`` where the points were in the portrait, scene units.
            pose: from there to the pose of the portrait's torso (`Neck.posed`).

        Returns:
            ``(B, P, hidden)``.
        """
        mirrored = points * points.new_tensor(_MIRROR)
        points, mirrored = pose(points), pose(mirrored)
        read = torch.cat([_distances(maps, camera, points), _distances(maps[:, :2], camera, mirrored)], dim=1)
        return self.to_hidden(read.transpose(1, 2))


def _distances(maps: Tensor, camera: Camera, points: Tensor) -> Tensor:
    """``(B, scales + channels - 1, P)``: saturated distances behind the depth map, then its other channels."""
    position, depth = camera.project(points)
    read = F.grid_sample(maps, position[:, None] * 2.0 - 1.0, padding_mode="border", align_corners=False)[:, :, 0]
    matrix = camera.intrinsics[:, None]
    # The distance from the camera, along the ray; cheaper than a norm over three numbers of each point.
    across = (position[..., 0] - matrix[..., 0, 2]) / matrix[..., 0, 0]
    down = (position[..., 1] - matrix[..., 1, 2]) / matrix[..., 1, 1]
    along = depth * (1.0 + across.square() + down.square()).sqrt()
    behind = along - camera.cam_to_world[:, None, :3, 3].norm(dim=-1) - read[:, 0]
    return torch.cat([torch.stack([torch.tanh(behind / scale) for scale in _SCALES], dim=1), read[:, 1:]], dim=1)
