"""Source lookup (not in the paper): each ray asks where its surface point lay in the portrait, and looks there.

Beside colour, the volume gives for each point the place where that piece of skin was in the portrait's expression, and
two gates: whether the portrait shows that place, and whether it shows its mirror image. These are composited along the
ray like a colour. The portrait is then read at the *output* resolution, so that its detail is not limited by the rays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.nn.conv import ConvStack, binomial_mean, conv
from export3d.portrait.layers import Layers
from export3d.portrait.state import PortraitMaps

GUIDE_CHANNELS = 5
"""Place in the portrait's head frame (3), gate of that place, gate of its mirror image."""

_SOLID = 1e-3  # opacity below which a ray has met nothing that could be looked up


@dataclass(frozen=True, kw_only=True)
class SourceLookupConfig:
    """The source lookup."""

    channels: int = 12
    """Learned channels of the portrait (at half its resolution) that join the input of the super-resolution."""
    width: int = 32
    """Width of the small encoder behind them; it halves the resolution once."""
    offset_scale: float = 0.08
    """Scene units per unit of the offset layer (0.08 = 3.8 cm)."""
    sharpen: float = 0.2
    """Share of its fine detail that the portrait gets on top before it is read: what reading between pixels takes away."""


class SourceLookup(nn.Module):
    """The guide (where was this point, is it to be seen there) and the lookup."""

    def __init__(self, config: SourceLookupConfig, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConvStack((3, config.width, config.width), 0.1, kernel=5, first_stride=2)
        self.to_features = conv(config.width, config.channels)
        self.guide = nn.Linear(hidden, GUIDE_CHANNELS)
        nn.init.zeros_(self.guide.weight)
        nn.init.zeros_(self.guide.bias)

    def encode(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] -> learned features (B, channels, H/2, W/2)."""
        return self.to_features(self.encoder(source)).float()

    def sharpened(self, source: Tensor) -> Tensor:
        """``source`` (B, 3, H, W) in [-1, 1] with its detail (itself less its 3x3 binomial mean) strengthened, in [-1, 1]."""
        if self.config.sharpen == 0.0:
            return source
        return (source + self.config.sharpen * (source - binomial_mean(source))).clamp(-1.0, 1.0)

    def moved(self, points: Tensor, motion: Tensor) -> Tensor:
        """Points ``(B, P, 3)`` displaced by what the motion planes say at them ``(B, P, 3)``."""
        return points + self.config.offset_scale * motion

    def guide_of(self, state: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points lay in the portrait, and whether they can be seen there.

        Args:
            state: ``(B, P, hidden)`` the decoder's state.
            points: ``(B, P, 3)`` world positions, as `moved` gives them.

        Returns:
            places ``(B, P, 3)`` in scene units and gate logits ``(B, P, 2)`` (the place, its mirror image).
        """
        values = self.guide(state).float()
        return points + self.config.offset_scale * torch.tanh(values[..., :3]), values[..., 3:]

    def colour_of(self, state: Tensor, points: Tensor) -> Tensor:
        """What the renderer composites beside the colours: ``(B, P, GUIDE_CHANNELS)``."""
        places, logits = self.guide_of(state, points)
        return torch.cat([places, torch.sigmoid(logits)], dim=-1)

    def features(
        self, guide: Tensor, opacity: Tensor, maps: PortraitMaps, camera: Camera, pose: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The portrait's learned features at the rays ``(B, channels, r, r)``; arguments as of `layers`."""
        # Places stay float32: rounded, they would be read a part of a pixel beside.
        with torch.autocast(guide.device.type, enabled=False):
            place, _ = _unmultiplied(guide, opacity)
            return read_at(maps.features, _seen_at(camera, place, pose))

    def layers(
        self,
        guide: Tensor,
        opacity: Tensor,
        picture: Tensor,
        *,
        camera: Camera,
        size: tuple[int, int],
        pose: Callable[[Tensor], Tensor],
    ) -> Layers:
        """Read the portrait at the output size.

        Args:
            guide: ``(B, GUIDE_CHANNELS, r, q)`` composited, premultiplied by the opacity.
            opacity: ``(B, 1, r, q)``.
            picture: ``(B, 3, H, W)`` of the portrait, of any size; channels beside the colours become clues.
            camera: the portrait's camera.
            size: height and width ``(h, w)`` to which the rays are enlarged.
            pose: places ``(B, P, 3)`` -> where the portrait's torso has them (`Neck.posed`).
        """
        with torch.autocast(guide.device.type, enabled=False):
            guide, opacity = enlarged(guide, size), enlarged(opacity, size)
            place, gates = _unmultiplied(guide, opacity)
            mirrored = torch.cat([-place[:, :1], place[:, 1:]], dim=1)
            seen_at = [_seen_at(camera, at, pose) for at in (place, mirrored)]
            # Between pixels a linear mean blurs; a cubic one keeps edges (and may overshoot a little).
            own, other = (read_at(picture, at, "bicubic").clamp(-1.0, 1.0) for at in seen_at)
            gates = gates * torch.cat([_inside(at, picture.shape[-1]) for at in seen_at], dim=1)
            gate, other_gate = gates[:, :1], gates[:, 1:]
            prior = torch.cat([torch.full_like(gate, 0.1), gate, 0.3 * other_gate * (1.0 - gate)], dim=1)
        return Layers(
            colours=torch.stack([own[:, :3], other[:, :3]], dim=1),
            prior=prior + 0.01,
            clues=torch.cat([gates, own[:, 3:], other[:, 3:]], dim=1),
            opacity=opacity,
        )


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear ``(B, C, r, q)`` -> ``(B, C, h, w)`` (pixel centres aligned by area)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _unmultiplied(guide: Tensor, opacity: Tensor) -> tuple[Tensor, Tensor]:
    """Places ``(B, 3, r, r)`` and gates ``(B, 2, r, r)`` of what the ray met."""
    met = guide / opacity.clamp_min(_SOLID)
    return met[:, :3], met[:, 3:].clamp(0.0, 1.0)


def _seen_at(camera: Camera, place: Tensor, pose: Callable[[Tensor], Tensor]) -> Tensor:
    """Where the camera sees the places ``(B, 3, r, r)``: (B, r, r, 2), in [0, 1] within its picture."""
    points = place.flatten(2).transpose(1, 2)
    position, _ = camera.project(pose(points))
    return position.reshape(place.shape[0], *place.shape[-2:], 2)


def _inside(seen_at: Tensor, size: int) -> Tensor:
    """1 where a picture of `size` pixels shows the positions ``(B, r, r, 2)``, 0 beyond its border, where the lookup would
    repeat the border's pixels; linear over one pixel: (B, 1, r, r)."""
    margin = torch.minimum(seen_at, 1.0 - seen_at).amin(dim=-1)
    return (margin * size + 0.5).clamp(0.0, 1.0)[:, None]


def read_at(image: Tensor, seen_at: Tensor, mode: str = "bilinear") -> Tensor:
    """``image`` (B, C, H, W) at the positions ``(B, r, r, 2)`` -> (B, C, r, r)."""
    return F.grid_sample(image, seen_at * 2.0 - 1.0, mode=mode, padding_mode="border", align_corners=False)
