"""A driven portrait as a radiance field: torso unturned, planes read, skin followed back, depth asked, decoded (Eqs. 7-8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from export3d.model.decoder import RadianceDecoder
from export3d.model.triplane import RunningMeanPlanes, TriPlaneConfig, sample_planes
from export3d.portrait.depth import SourceDepth
from export3d.portrait.lookup import SourceLookup
from export3d.portrait.neck import Neck
from export3d.portrait.state import DrivenPlanes


@dataclass(frozen=True, kw_only=True)
class FieldParts:
    """The parts of `PortraitModel` that a point in space meets."""

    triplane: TriPlaneConfig
    mean_planes: RunningMeanPlanes
    decoder: RadianceDecoder
    lookup: SourceLookup
    depth: SourceDepth
    neck: Neck

    def joints(self, driven: DrivenPlanes) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """From the unturned volume to the portrait's torso, and from the frame's torso to the unturned volume."""
        own = driven.code.state.turn
        return self.neck.posed(own), self.neck.unposed(own if driven.turn is None else driven.turn)


class PortraitField:
    """x -> density and colour, and where x was in the portrait."""

    def __init__(self, parts: FieldParts, driven: DrivenPlanes) -> None:
        self.parts, self.code = parts, driven.code
        self.planes_ = parts.mean_planes(driven.planes)  # Eq. 12
        self.pose, self.unpose = parts.joints(driven)

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (B, P, 3) -> raw density (B, P), and what `colour` and the guide need."""
        parts = self.parts
        points = self.unpose(points)  # to the unturned torso
        features = sample_planes(self.planes_, points, parts.triplane)  # Eq. 7
        features, motion = features.tensor_split([parts.triplane.channels], dim=-1)
        moved = parts.lookup.moved(points, motion)  # to the portrait's expression
        # The motion learns from where surface points were, not from the steep distances.
        clues = parts.depth.clues(self.code.maps.depth, self.code.camera, moved.detach(), self.pose)
        density, state = parts.decoder.density(features, clues)  # Eq. 8
        return density, torch.cat([state, moved], dim=-1)

    def colour(self, state: Tensor) -> Tensor:
        """-> (B, P, C + 5): colours, then the guide of the source lookup."""
        state, moved = state.tensor_split([-3], dim=-1)
        return torch.cat([self.parts.decoder.colour(state), self.parts.lookup.colour_of(state, moved)], dim=-1)
