"""The radiance field of a portrait in one expression, which the renderer asks for densities and colours (Eq. 8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from export3d.model.code import SourceCode
from export3d.model.decoder import RadianceDecoder
from export3d.model.pixel_aligned import PixelAligned
from export3d.model.source_depth import SourceDepth
from export3d.model.source_lookup import SourceLookup
from export3d.model.triplane import TriPlaneConfig, sample_planes


class PortraitField:
    """The radiance field of one portrait in one expression: what the renderer asks for densities and colours."""

    def __init__(
        self,
        planes: Tensor,
        decoder: RadianceDecoder,
        triplane: TriPlaneConfig,
        pixel_aligned: PixelAligned | None,
        source_lookup: SourceLookup | None,
        source_depth: SourceDepth | None,
        code: SourceCode,
        pose: Callable[[Tensor], Tensor] | None = None,
        unposed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.planes_ = planes
        self.decoder = decoder
        self.triplane = triplane
        self.pixel_aligned = pixel_aligned
        self.source_lookup = source_lookup
        self.source_depth = source_depth
        self.code = code
        self.pose, self.unposed = pose, unposed  # of the portrait's torso, and of the frame's (`Neck`)

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points ``(B, P, 3)`` -> raw density ``(B, P)`` and the decoder's state."""
        if self.unposed is not None:
            points = self.unposed(points)
        features = sample_planes(self.planes_, points, self.triplane)
        features, motion = features[..., : self.triplane.channels], features[..., self.triplane.channels :]
        if self.pixel_aligned is not None and self.code.pixels is not None:
            own = self.pixel_aligned.lookup(self.code.pixels, self.code.camera, points, features)
            features = torch.cat([features, own], dim=-1)
        if self.source_lookup is None:
            return self.decoder.density(features)
        moved = self.source_lookup.moved(points, motion)
        clues = None
        if self.source_depth is not None and self.code.depth is not None:
            # The motion learns from where surface points were, not from the steep distances.
            clues = self.source_depth.clues(self.code.depth, self.code.camera, moved.detach(), self.pose)
        density, state = self.decoder.density(features, clues)
        return density, torch.cat([state, moved], dim=-1)  # the guide of a point needs its place

    def colour(self, state: Tensor) -> Tensor:
        """Decoder state -> colours ``(B, P, C)``, with a source lookup also the guide's channels."""
        if self.source_lookup is None:
            return self.decoder.colour(state)
        state, points = state[..., :-3], state[..., -3:]
        return torch.cat([self.decoder.colour(state), self.source_lookup.colour_of(state, points)], dim=-1)
