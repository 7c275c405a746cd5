"""What of the old head leaves a photograph in which it moves, and what stays (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from export3d.animation.head import SIDE_FADE, rising
from export3d.animation.person import HOLE_FROM
from export3d.portrait.background import grown

ENOUGH_PX = 256
"""A crop of twice as many pixels and more is looked at in larger ones: all of this is soft."""

MASK_PX = 256
"""Side of the picture into which a face's outline is drawn."""

GROWTH, RIM = 0.02, 0.01
"""The hole of the old head is so much wider than its matte, and its rim so soft, as shares of the crop's side."""

HAIR = 0.25
"""What is farther from the rendered head, as a share of the crop's side, is not its hair but somebody else."""

NECK = (0.74, 0.86)
"""Between these heights of the crop less and less of the old neck leaves."""

JAW_CORNERS, THROAT_SIDES, NECK_SIDES = [4, 12], (0.3, 1.0), (1.5, 2.0)
"""Of 68 landmarks; from where to where what is neck for sure ends, and what may be, half their distance being 1."""

HAIRLINE, HEAD, JAW, CHIN = 0.35, 0.55, 0.66, 0.8
"""Between the first two heights of the crop less and less of what is not rendered is head, between the last two of what is;
below all is body."""


@dataclass(frozen=True, kw_only=True)
class OldHead:
    """Shares of the pixels of a part of a photograph, each ``(1, h, w)`` in [0, 1].

    Attributes:
        hole: above 0 where the old head is, its hair and a rim included.
        leaves: what goes with the head, so that the background shows.
        face: of its face; 0 where its landmarks are unknown, as is the throat.
        throat: of the face, what has neck and clothing behind it.
    """

    hole: Tensor
    leaves: Tensor
    face: Tensor
    throat: Tensor


def old_head(
    owned: Tensor, rendered: Tensor, places: Tensor, *, side: float, room: float, landmarks: np.ndarray | None
) -> OldHead:
    """Where the head of the person `owned` ``(1, h, w)`` is, who is `rendered` ``(1, h, w)``.

    Args:
        places: ``(h, w, 2)`` where the pixels lie in the crop, in [0, 1].
        side: of the crop, pixels.
        room: share of the crop's side above it and at both sides that goes with the head.
        landmarks: ``(68, 2)`` in [0, 1] of the crop; with them jaw and neck leave, and shoulders stay.
    """
    if (pixels := int(side // ENOUGH_PX)) > 1:
        height, width = owned.shape[-2:]
        given = (
            F.avg_pool2d(x[None], pixels, ceil_mode=True)[0] for x in (owned, rendered, places.permute(2, 0, 1).float())
        )
        owned, rendered, at = given
        old = old_head(owned, rendered, at.permute(1, 2, 0), side=side / pixels, room=room, landmarks=landmarks)
        enlarge = partial(F.interpolate, scale_factor=float(pixels), mode="bilinear", align_corners=False)
        return OldHead(**{name: enlarge(x[None])[0, :, :height, :width] for name, x in vars(old).items()})
    rim, growth, down = max(round(RIM * side), 1), max(round(GROWTH * side), 2), places[None, ..., 1]
    hole = _hole(owned, rendered, down, side)
    # Long hair beside the neck stays with the body: no line where the one ends and the other begins.
    solid = (rendered > 0.5).float()
    beside, shoulders, below, low = (
        ((end - down) / (end - start)).clamp(0.0, 1.0)
        for start, end in ((HAIRLINE, HEAD), (HEAD, JAW), (JAW, CHIN), NECK)
    )
    face = throat = neck = torch.zeros_like(owned)
    if landmarks is not None:
        face = soft(grown(_inside(landmarks, places), growth + rim), rim)
        throat = face * rising((down - HEAD) / (JAW - HEAD)) * _between_jaws(landmarks, places, THROAT_SIDES)
        near = _between_jaws(landmarks, places, NECK_SIDES)
        below = torch.lerp(shoulders, below, near)
        neck = low * near
    going = torch.maximum(
        torch.maximum(grown(solid, growth + rim) * below, soft(grown(solid, rim), rim) * neck), beside
    )
    leaves = soft(hole, rim) * going * _within(owned, places, room, side)
    return OldHead(hole=hole, leaves=leaves, face=face, throat=throat)


def soft(mask: Tensor, pixels: int) -> Tensor:
    """The mean of a mask ``(1, h, w)`` of 0 and 1 over the square that reaches so many pixels to each side."""
    counts = []
    for axis, pads in ((1, (0, 0, pixels + 1, pixels)), (2, (pixels + 1, pixels))):
        n, at = mask.shape[axis], torch.arange(mask.shape[axis])
        sums = F.pad(mask, pads).cumsum(axis)  # whole numbers, so that differences are exact
        mask = sums.narrow(axis, 2 * pixels + 1, n) - sums.narrow(axis, 0, n)
        counts.append((at + pixels + 1).clamp_max(n) - (at - pixels).clamp_min(0))
    return mask / (counts[0][:, None] * counts[1])


def _hole(share: Tensor, rendered: Tensor, down: Tensor, side: float) -> Tensor:
    """``(1, H, W)`` 1 where the old head is: of the person's `share`, what lies near the `rendered` head, `down` to the neck
    (heights in the crop). The shoulders stay: they hardly move, and only a part of them is rendered."""
    solid = (rendered > 0.5).float()
    near = (grown(solid, max(round(HAIR * side), 1)) > 0.0) & (down < HEAD)
    gone = (share > HOLE_FROM) & (near | ((solid > 0.0) & (down < CHIN)))
    return grown(gone.float(), max(round(GROWTH * side), 2))


def _inside(landmarks: np.ndarray, places: Tensor) -> Tensor:
    """``(1, H, W)`` 1 inside the outline of 68 landmarks; `places` ``(H, W, 2)`` and they are in [0, 1] of the crop."""
    drawn = Image.new("1", (MASK_PX, MASK_PX))
    outline = landmarks[[*range(17), *range(26, 16, -1)]] * MASK_PX
    ImageDraw.Draw(drawn).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    mask = torch.from_numpy(np.array(drawn, dtype=np.float32))[None, None]
    return F.grid_sample(mask, places[None].float() * 2.0 - 1.0, "bilinear", "zeros", align_corners=False)[0].round()


def _between_jaws(landmarks: np.ndarray, places: Tensor, sides: tuple[float, float]) -> Tensor:
    """``(1, H, W)``: 1 above and below the middle between the jaw's corners, falling to 0 between both of these distances."""
    left, right = landmarks[JAW_CORNERS, 0].tolist()
    away = (2.0 * places[None, ..., 0] - left - right).abs() / max(right - left, 1e-6)
    return rising((sides[1] - away) / (sides[1] - sides[0]))


def _within(owned: Tensor, places: Tensor, room: float, side: float) -> Tensor:
    """``(1, H, W)``: how much of a person goes with the head's picture; where they reach beyond it, its border stays."""
    x, y = places.unbind(-1)
    stays = (owned > HOLE_FROM) & (torch.stack([x, 1.0 - x, y]).amin(dim=0) < -room)
    rim = max(round(SIDE_FADE * side / 2.0), 1)
    return 1.0 - soft(grown(stays.float(), 3 * rim), rim)
