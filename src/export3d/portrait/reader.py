"""What is read off the portrait alone: its matte, its depth map, its background and its detail (not in the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export3d.model.superres import upsample2
from export3d.portrait.background import SourceMatte, fill_background, without_rim
from export3d.portrait.depth import SourceDepth
from export3d.portrait.lookup import SourceLookup, enlarged
from export3d.portrait.state import PhotoMaps, PortraitMaps


class PortraitReader(nn.Module):
    """The networks that look at the portrait and at nothing else."""

    def __init__(self, matte: SourceMatte, depth: SourceDepth) -> None:
        super().__init__()
        self.matte, self.depth = matte, depth

    def geometry(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Matte logits (B, 1, H/2, W/2) and depth maps (B, 2 + C, H/2, W/2): all that the portrait stage of training needs."""
        logits = self.matte(source)
        return logits, self.depth.maps(source, torch.sigmoid(logits.detach()))

    def forward(
        self, source: Tensor, lookup: SourceLookup, true_mask: Tensor | None = None, photo: Tensor | None = None
    ) -> PortraitMaps:
        """``source`` (B, 3, H, W) in [-1, 1] -> maps. `true_mask` (B, 1, H, W) in [0, 1] is given in training, where it
        replaces the model's own matte in filling the background; `photo` (B, 3, S, S) is the same crop at its own size."""
        logits, depth = self.geometry(source)
        found = torch.sigmoid(logits.detach())
        head = upsample2(found)
        return PortraitMaps(
            matte_logits=logits,
            background=fill_background(source.float(), head if true_mask is None else true_mask),
            picture=torch.cat([lookup.sharpened(source.float()), head.float()], dim=1),
            features=lookup.encode(source),
            depth=depth,
            photo=None if photo is None else photo_maps(photo.float(), found, lookup),
        )


def photo_maps(photo: Tensor, foreground: Tensor, lookup: SourceLookup) -> PhotoMaps:
    """What is kept of a photograph ``(B, 3, S, S)`` in [-1, 1]; its foreground ``(B, 1, m, m)`` is enlarged to it."""
    size, small = int(photo.shape[-1]), int(foreground.shape[-1])
    head = enlarged(foreground, (size, size))
    reach = max(2, round(2 * size / (2 * small)))  # as far as at the model's own size
    behind = fill_background(photo, head, reach)
    if size > 2 * small:  # at the model's own size the line is as soft as everything else
        behind = without_rim(behind, head, reach)
    return PhotoMaps(lookup.sharpened(photo), behind.contiguous())
