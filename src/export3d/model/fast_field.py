"""The radiance field of one portrait for the fast renderer (not in the paper): the decoder's first layer lies in the planes.

No activation stands before that layer, so it may be applied to the texels instead of the points (there are fewer), and the
lookup of Eq. 7 becomes a weighted sum of twelve rows of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.model.decoder import COLOUR_MARGIN, RadianceDecoder
from export3d.model.source_lookup import SourceLookup
from export3d.model.triplane import TriPlaneConfig

_SAFE_EXPONENT = 80.0
"""exp of more than 88 is infinite in float32."""


@dataclass(frozen=True)
class Samples:
    """Points that were asked for their density: ``(3, P)``, or moved already ``(P, 3)``; hidden features (P, H), rows
    and weights (P, 12)."""

    points: Tensor
    moved: Tensor | None
    hidden: Tensor
    rows: Tensor
    weights: Tensor


class FoldedField:
    """Densities and colours of one portrait in one expression; without the pixel-aligned branch.

    Args:
        planes: ``(1, 3, C, P, P)``, the running mean added.
        clues: moved points (1, P, 3) -> what joins the hidden layer (1, P, H) (`SourceDepth.clues`); with a source lookup.
        unposed: points (1, P, 3) of the frame -> the same with an unturned torso (`Neck.unposed`).
    """

    def __init__(
        self,
        planes: Tensor,
        decoder: RadianceDecoder,
        triplane: TriPlaneConfig,
        source_lookup: SourceLookup | None,
        clues: Callable[[Tensor], Tensor] | None = None,
        unposed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.decoder, self.source_lookup = decoder, source_lookup
        self.clues, self.unposed = clues, unposed
        # Outside the box a ring of zeros goes on, as grid_sample's padding has it.
        self.ring = 1 if triplane.padding == "zeros" else 0
        self.per_unit = planes.shape[-1] / triplane.box_side  # texels per scene unit
        planes = F.pad(planes[0], (self.ring,) * 4)
        self.side = planes.shape[-1]
        texels = planes.permute(0, 2, 3, 1).flatten(0, 2) / 3.0  # (3 * side^2, C), a third each for the mean of Eq. 7
        features = texels[:, : triplane.channels]
        layers = [decoder.first] if decoder.first_colour is None else [decoder.first, decoder.first_colour]
        self.tables = [torch.addmm(layer.bias / 3.0, features, layer.weight.t()) for layer in layers]
        self.motion = texels[:, triplane.channels :].contiguous() if texels.shape[1] > triplane.channels else None
        last = [decoder.to_colour] if source_lookup is None else [decoder.to_colour, source_lookup.guide]
        weight, bias = torch.cat([x.weight for x in last]), torch.cat([x.bias for x in last])
        # tanh(x) = 2 sigmoid(2 x) - 1, so one sigmoid serves all channels and the rest is linear: done once for each ray.
        self.colours = decoder.config.colour_channels
        twice = torch.ones_like(bias)
        twice[self.colours : self.colours + 3] = 2.0
        self.channels = len(bias)
        self.last_weight, self.last_bias = weight * twice[:, None], bias * twice

    def density(self, points: Tensor) -> tuple[Tensor, Samples]:
        """World points ``(3, P)`` -> raw densities ``(P,)`` and what `colour` needs."""
        if self.unposed is not None:
            points = self.unposed(points.t()[None])[0].t().contiguous()
        rows, weights = self._taps(points)
        moved, more = None, 0.0
        if self.clues is not None:
            moved = self._moved(points.t(), rows, weights)
            more = self.clues(moved[None])[0]
        hidden = _softplus_(_lookup(self.tables[0], rows, weights).add_(more))
        density = torch.addmv(self.decoder.to_density.bias, hidden, self.decoder.to_density.weight[0])
        if len(self.tables) > 1:
            hidden = _softplus_(_lookup(self.tables[1], rows, weights).add_(more))
        return density, Samples(points, moved, hidden, rows, weights)

    def colour(self, state: Samples, chosen: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        """See `FastField.colour`; with a source lookup the guide's channels follow."""
        places = torch.arange(len(chosen))
        waves = torch.addmm(self.last_bias, state.hidden.index_select(0, chosen), self.last_weight.t()).sigmoid_()
        met = F.embedding_bag(places, waves, starts, mode="sum", per_sample_weights=shares)  # (r, C)
        whole = F.embedding_bag(places, shares[:, None], starts, mode="sum")  # (r, 1)
        colours = met[:, : self.colours] * (1.0 + 2.0 * COLOUR_MARGIN) - COLOUR_MARGIN * whole
        if self.source_lookup is None:
            return colours
        if state.moved is not None:
            points = state.moved.index_select(0, chosen)
        else:
            rows, weights = state.rows.index_select(0, chosen), state.weights.index_select(0, chosen)
            points = self._moved(state.points.index_select(1, chosen).t(), rows, weights)
        place = F.embedding_bag(places, points.contiguous(), starts, mode="sum", per_sample_weights=shares)
        offset = 2.0 * met[:, self.colours : self.colours + 3] - whole
        place = place + self.source_lookup.config.offset_scale * offset
        return torch.cat([colours, place, met[:, self.colours + 3 :]], dim=1)

    def _moved(self, points: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Where points ``(P, 3)`` were in the portrait, as far as the motion planes say."""
        if self.motion is None:
            return points
        assert self.source_lookup is not None
        return self.source_lookup.moved(points, _lookup(self.motion, rows, weights))

    def _taps(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table and their bilinear weights for each point, ``(P, 12)`` each."""
        side = self.side
        place = points * points.new_tensor([[self.per_unit], [-self.per_unit], [self.per_unit]])
        place = place.add_((side - 1) / 2).clamp_(0, side - 1)  # (3, P): x, -y, z in texels
        low = place.floor().clamp_(max=side - 2)
        part = place.sub_(low)
        low = low.int()
        rows = torch.empty(points.shape[1], 12, dtype=torch.int32)
        weights = torch.empty(points.shape[1], 12)
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
