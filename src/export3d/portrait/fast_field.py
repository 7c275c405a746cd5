"""The radiance field of one portrait for the fast renderer (not in the paper): the decoder's first layer lies in the planes.

No activation stands before that layer, so it may be applied to the texels instead of the points (there are fewer), and the
lookup of Eq. 7 becomes a weighted sum of twelve rows of a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.model.decoder import COLOUR_MARGIN
from export3d.portrait.field import FieldParts
from export3d.portrait.state import DrivenPlanes

_SAFE_EXPONENT = 80.0
"""exp of more than 88 is infinite in float32."""


@dataclass(frozen=True)
class Samples:
    """Points that were asked for their density: where they were in the portrait ``(P, 3)``, hidden features ``(P, H)``."""

    moved: Tensor
    hidden: Tensor


class FoldedField:
    """Densities and colours of one driven portrait."""

    def __init__(self, parts: FieldParts, driven: DrivenPlanes) -> None:
        self.parts, code = parts, driven.code
        decoder, lookup, triplane = parts.decoder, parts.lookup, parts.triplane
        pose, self.unposed = parts.joints(driven)
        self.clues = partial(parts.depth.clues, code.maps.depth, code.camera, pose=pose)
        planes = parts.mean_planes(driven.planes)
        # Outside the box a ring of zeros goes on, as grid_sample's padding has it.
        self.ring = 1 if triplane.padding == "zeros" else 0
        self.per_unit = planes.shape[-1] / triplane.box_side  # texels per scene unit
        planes = F.pad(planes[0], (self.ring,) * 4)
        self.side = planes.shape[-1]
        texels = planes.permute(0, 2, 3, 1).flatten(0, 2) / 3.0  # (3 * side^2, C), a third each for the mean of Eq. 7
        features = texels[:, : triplane.channels]
        layers = [decoder.first] if decoder.first_colour is None else [decoder.first, decoder.first_colour]
        self.tables = [torch.addmm(layer.bias / 3.0, features, layer.weight.t()) for layer in layers]
        self.motion = texels[:, triplane.channels :].contiguous()
        last = [decoder.to_colour, lookup.guide]
        weight, bias = torch.cat([x.weight for x in last]), torch.cat([x.bias for x in last])
        # tanh(x) = 2 sigmoid(2 x) - 1, so one sigmoid serves all channels and the rest is linear: done once for each ray.
        self.colours = decoder.config.colour_channels
        twice = torch.ones_like(bias)
        twice[self.colours : self.colours + 3] = 2.0
        self.channels = len(bias)
        self.last_weight, self.last_bias = weight * twice[:, None], bias * twice

    def density(self, points: Tensor) -> tuple[Tensor, Samples]:
        """World points ``(3, P)`` -> raw densities ``(P,)`` and what `colour` needs."""
        decoder = self.parts.decoder
        points = self.unposed(points.t()[None])[0]
        rows, weights = self._taps(points.t())
        moved = self.parts.lookup.moved(points, _lookup(self.motion, rows, weights))
        more = self.clues(moved[None])[0]
        hidden = _softplus_(_lookup(self.tables[0], rows, weights).add_(more))
        density = torch.addmv(decoder.to_density.bias, hidden, decoder.to_density.weight[0])
        if len(self.tables) > 1:
            hidden = _softplus_(_lookup(self.tables[1], rows, weights).add_(more))
        return density, Samples(moved, hidden)

    def colour(self, state: Samples, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        """See `FastField.colour`; the guide's channels follow."""
        places = torch.arange(len(chosen), device=chosen.device)
        waves = torch.addmm(self.last_bias, state.hidden.index_select(0, chosen), self.last_weight.t()).sigmoid_()
        met = F.embedding_bag(places, waves, starts, mode="sum", per_sample_weights=shares)  # (r, C)
        whole = F.embedding_bag(places, shares[:, None], starts, mode="sum")  # (r, 1)
        colours = met[:, : self.colours] * (1.0 + 2.0 * COLOUR_MARGIN) - COLOUR_MARGIN * whole
        points = state.moved.index_select(0, chosen).contiguous()
        place = F.embedding_bag(places, points, starts, mode="sum", per_sample_weights=shares)
        offset = 2.0 * met[:, self.colours : self.colours + 3] - whole
        place = place + self.parts.lookup.config.offset_scale * offset
        return torch.cat([colours, place, met[:, self.colours + 3 :]], dim=1)

    def _taps(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table and their bilinear weights for each point, ``(P, 12)`` each."""
        side = self.side
        place = points * points.new_tensor([[self.per_unit], [-self.per_unit], [self.per_unit]])
        place = place.add_((side - 1) / 2).clamp_(0, side - 1)  # (3, P): x, -y, z in texels
        low = place.floor().clamp_(max=side - 2)
        part = place.sub_(low)
        low = low.int()
        rows = torch.empty(points.shape[1], 12, dtype=torch.int32, device=points.device)
        weights = points.new_empty(points.shape[1], 12)
        for plane, (u, v) in enumerate(((0, 1), (2, 1), (0, 2))):  # width and height axes, as in `sample_planes`
            first, a, b = 4 * plane, part[u], part[v]
            corner = torch.add(low[u], low[v], alpha=side).add_(plane * side * side)
            for tap, step in enumerate((0, 1, side, side + 1)):
                torch.add(corner, step, out=rows[:, first + tap])
            both = a * b
            weights[:, first + 3] = both
            torch.sub(a, both, out=weights[:, first + 1])
            torch.sub(b, both, out=weights[:, first + 2])
            torch.sub(1.0 - a, weights[:, first + 2], out=weights[:, first])
        return rows, weights


def _lookup(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)


def _softplus_(x: Tensor) -> Tensor:
    """Soft-plus in place, to about 1e-7: PyTorch's own takes a third of the time of a whole density."""
    if x.numel() and float(x.detach().amax()) > _SAFE_EXPONENT:
        return F.softplus(x)
    return x.exp_().add_(1.0).log_()
