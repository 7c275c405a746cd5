"""Background apart (not in the paper): the head is composited over the portrait's own background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.nn.conv import ConvStack, conv
from export3d.rendering.rays import Window


@dataclass(frozen=True, kw_only=True)
class BackgroundConfig:
    """How the background is made."""

    width: int = 16
    """Width of the small network that finds the head in the portrait."""


class SourceMatte(nn.Module):
    """Finds the head in the portrait: logits of the foreground at half resolution."""

    def __init__(self, config: BackgroundConfig) -> None:
        super().__init__()
        width = config.width
        self.fine = ConvStack((3, width, width), 0.1, kernel=5, first_stride=2)
        self.coarse = ConvStack((width, 2 * width, 2 * width), 0.1, first_stride=2)
        self.coarser = ConvStack((2 * width, 4 * width, 4 * width, 2 * width), 0.1, first_stride=2)
        self.join = ConvStack((3 * width, width), 0.1)
        self.join_coarse = ConvStack((4 * width, 2 * width), 0.1)
        self.out = conv(width, 1)

    def forward(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] -> logits (B, 1, H/2, W/2)."""
        fine = self.fine(source)
        coarse = self.coarse(fine)
        coarser = F.interpolate(self.coarser(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        coarse = self.join_coarse(torch.cat([coarse, coarser], dim=1))
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(self.join(torch.cat([fine, coarse], dim=1))).float()


def fill_background(source: Tensor, foreground: Tensor, reach: int = 2) -> Tensor:
    """Replace the head by colours from around it, coarse to fine (pull-push).

    Args:
        source: ``(B, 3, H, W)`` in [-1, 1], H and W powers of two times a small number.
        foreground: ``(B, 1, H, W)`` in [0, 1].
        reach: pixels by which the hole is grown.

    Returns:
        ``(B, 3, H, W)``: the source where the foreground is 0, a smooth continuation where it is 1.
    """
    # A pixel touching the head carries its colour, so the hole is grown a little and hardened first.
    hole = grown(foreground, reach).mul(2.0).clamp(0.0, 1.0)
    weight = 1.0 - hole
    return weight * source + hole * _pull_push(source * weight, weight)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask ``(..., H, W)`` >= 0 grown by so many pixels on all sides: the largest value of a square, whose cost hardly
    depends on its size."""
    mask = F.pad(mask, (pixels,) * 4)
    for axis in (-2, -1):
        done = 0
        while done < pixels:
            step = min(2 * done + 1, pixels - done)
            before, here, after = (mask.narrow(axis, k * step, mask.shape[axis] - 2 * step) for k in range(3))
            mask, done = torch.maximum(torch.maximum(before, here), after), done + step
    return mask


def without_rim(filled: Tensor, foreground: Tensor, reach: int) -> Tensor:
    """A filled background ``(B, 3, H, W)`` blurred along the border of its hole, which at a photograph's size shows as a line.

    Args:
        foreground: ``(B, 1, H, W)`` in [0, 1].
        reach: as `fill_background` had it.
    """
    hole = (grown(foreground, reach) > 0.5).to(filled)
    far = 4 * reach
    share, blurred = _box_mean(hole, far), _box_mean(filled, far)
    rim = 4.0 * share * (1.0 - share)  # 1 on the border, 0 far from it
    return filled + rim * (blurred - filled)


def _box_mean(x: Tensor, far: int) -> Tensor:
    """Mean over a square that reaches so many pixels to each side, borders repeated; along one axis after the other."""
    for axis, pads in ((-1, (far + 1, far, 0, 0)), (-2, (0, 0, far + 1, far))):
        sums = F.pad(x, pads, mode="replicate").cumsum(axis)  # by its size the square costs nothing
        x = (sums.narrow(axis, 2 * far + 1, x.shape[axis]) - sums.narrow(axis, 0, x.shape[axis])) / (2 * far + 1)
    return x


def _pull_push(weighted: Tensor, weight: Tensor) -> Tensor:
    """Weighted means on ever coarser grids fill what the finer grid does not know."""
    if min(weighted.shape[-2:]) <= 2 or weighted.shape[-1] % 2 or weighted.shape[-2] % 2:
        mean = weighted.sum(dim=(2, 3), keepdim=True) / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-3)
        known = weight.clamp(0.0, 1.0)
        return known * weighted / weight.clamp_min(1e-3) + (1.0 - known) * mean
    coarse_weight = F.avg_pool2d(weight, 2)
    coarse = _pull_push(F.avg_pool2d(weighted, 2), coarse_weight)
    coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    known = weight.clamp(0.0, 1.0)
    return known * (weighted / weight.clamp_min(1e-3)) + (1.0 - known) * coarse


def background_window(background: Tensor, size: int, window: Window | None) -> Tensor:
    """The background ``(B, 3, H, W)`` resized to `size` and cut to the window."""
    if background.shape[-1] != size:
        background = F.interpolate(background, size=(size, size), mode="area")
    if window is None:
        return background
    top, left, side = window
    return torch.stack(
        [
            image[:, t : t + side, s : s + side]
            for image, t, s in zip(background, top.tolist(), left.tolist(), strict=True)
        ]
    )
