"""What of a head the networks do not render moves along with it in the picture (not in the paper): hats, hair, headphones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.head import HAZE, HeadLayer, sizes
from export3d.animation.paste import CHIN, GROWTH, HAIR, HEAD, JAW, RIM, soft
from export3d.animation.person import HOLE_FROM, Person, filled, planes
from export3d.camera import FOCAL
from export3d.portrait.background import grown
from export3d.rendering.fused import head_layer
from export3d.tracking import Crop, crop_image
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose

CENTRE = np.array([0.0, 0.15, -0.15])
"""Of the skull, in the world of the head, scene units: its outline is that of a ball around it and does not turn."""

OVERLAP = 0.1
"""So much of the crop's side the crown is continued behind the rendered head, so that no gap opens when that turns."""

SEAM = 0.012
"""So near to the rendered head, over the crop's side, the crown shows what is continued, not skin."""

FAINT = 0.05
"""What is around the head is so much of a crown at least."""

ISLAND = 0.015
"""Half the width, over the crop's side, of the largest piece that is left where it is: specks of the segmentation."""


@dataclass(frozen=True, kw_only=True)
class Crown:
    """The person's own pixels around the upper part of the rendered head, in the crop and the room around it.

    Attributes:
        light: float32 ``(1, 4, h, W)``, colours in [0, 255] premultiplied by the opacity, and the opacity; the upper rows.
        home: the head in the photograph.
        size: of the crop, pixels; W less the room at both sides.
    """

    light: Tensor
    home: HeadPose
    size: int

    @classmethod
    def of(cls, person: Person, crop: Crop, own: HeadLayer, camera: np.ndarray) -> Crown:
        """Of the person around their head, rendered in its `own` pose, by the portrait's camera ``(25,)``."""
        size, room = sizes(own.opacity)
        rows, width = room + round(CHIN * size), size + 2 * room
        seen = replace(person.crop, side=person.crop.side * width / size)
        colours = planes(crop_image(person.spread, seen, width))[:, :rows]
        y, x = (np.mgrid[:rows, :width] + 0.5 - room) / size
        places = crop.from_crop(np.stack([x, y], axis=-1)) / np.array(person.own.shape[::-1]) * 2.0 - 1.0
        whole, grid = torch.from_numpy(person.own)[None, None], torch.from_numpy(places).float()[None]
        share = F.grid_sample(whole, grid, "bilinear", "border", align_corners=False)[0]
        opacity = ((share - HOLE_FROM) / (1.0 - 2.0 * HOLE_FROM)).clamp(0.0, 1.0)
        island = round(ISLAND * size)
        opacity = opacity * grown(1.0 - grown(1.0 - opacity, island), island + 2)
        solid = (own.opacity > 0.5).float()
        near, rim = (_grown(solid, part * size)[:, :rows] for part in (HAIR, 2.0 * (GROWTH + RIM)))
        inner = 1.0 - _grown(1.0 - solid, OVERLAP * size)[:, :rows]
        down = (torch.arange(rows)[:, None] + 0.5 - room) / size
        beside, below = (((end - down) / (end - start)).clamp(0.0, 1.0) for start, end in ((HEAD, JAW), (JAW, CHIN)))
        opacity = opacity * torch.maximum(near * beside, rim * below)
        # Behind the rendered head there is more of what is around it; a rim of skin is no crown.
        seam = grown(solid, round(SEAM * size))[:, :rows]
        around = filled(torch.cat([colours * opacity, opacity]), seam)
        colours = (around[:3] + FAINT * colours) / (around[3:] + FAINT)
        rim_of_hair = opacity * (1.0 - seam * (1.0 - around[3:] / (2.0 * FAINT)).clamp_min(0.0))
        opacity = torch.where(solid[:, :rows] > 0.0, around[3:], rim_of_hair) * (1.0 - inner)
        return cls(light=torch.cat([colours * opacity, opacity])[None], home=HeadPose.of_camera(camera), size=size)

    @cached_property
    def framed(self) -> Tensor:
        """The light as `head_layer` reads it."""
        return F.pad(self.light[0], (1, 1, 1, 1)).permute(1, 2, 0).contiguous()

    def places(self, camera: np.ndarray) -> np.ndarray:
        """``(2, 3)``: where pixels of a picture by the camera ``(25,)`` lie in the light, see `head_layer`."""
        size = np.array([self.light.shape[-1], self.light.shape[-2]], dtype=np.float64)
        matrix = self._back(HeadPose.of_camera(camera))[0].double().numpy()
        turn = matrix[:, :2] * size[:, None] / size
        start = 0.5 * size * (matrix @ np.append(1.0 / size - 1.0, 1.0) + 1.0) - 0.5
        return np.concatenate([start[:, None], turn], axis=1)

    def behind(self, head: HeadLayer, camera: np.ndarray) -> HeadLayer:
        """The rendered head, seen by the camera ``(25,)``, before its crown."""
        rows, width = self.light.shape[-2:]
        matrix = self._back(HeadPose.of_camera(camera))
        grid = F.affine_grid(matrix, [1, 4, rows, width], align_corners=False)
        moved = F.grid_sample(self.light, grid, "bilinear", "zeros", align_corners=False)[0]
        room = 1.0 - head.opacity[:, :rows]
        colours, opacity = head.colours.clone(), head.opacity.clone()
        colours[:, :rows] += room * moved[:3]
        opacity[:, :rows] += room * moved[3:]
        return HeadLayer(colours, opacity)

    def _back(self, pose: HeadPose) -> Tensor:
        """``(1, 2, 3)``: from the picture now to that of the photograph, both in [-1, 1] of `light`."""
        now, then = (_place(each) for each in (pose, self.home))
        turn = plane_turn(then[3] - now[3])[:2, :2] * then[2] / now[2]
        # Places are in [0, 1] of the crop.
        rows, width = self.light.shape[-2:]
        unit = np.diag([0.5 * width, 0.5 * rows]) / self.size
        matrix = np.linalg.inv(unit) @ turn @ unit
        half = np.array([0.5, (0.5 * (rows + self.size) - 0.5 * width) / self.size])
        shift = np.linalg.inv(unit) @ (then[:2] + turn @ (half - now[:2]) - half)
        return torch.from_numpy(np.concatenate([matrix, shift[:, None]], axis=1)).float()[None]


def before_crown(
    parts: tuple[Tensor, ...], crown: Crown | None, camera: np.ndarray, *, room: float, fused: bool
) -> HeadLayer:
    """The head of `HeadLayer.of_picture`'s `parts` with `room`, seen by the camera ``(25,)``, before its crown; by the compiled
    renderer where `fused`."""
    if fused:
        light = None if crown is None else (crown.framed, crown.places(camera))
        return HeadLayer(*head_layer(*parts, haze=HAZE, room=round(room * parts[0].shape[-1]), crown=light))
    head = HeadLayer.of_picture(*parts).with_room(room)
    return head if crown is None else crown.behind(head, camera)


def _place(pose: HeadPose) -> np.ndarray:
    """``(4,)``: where the skull's middle is in the picture, x and y in [0, 1], its size, and its turn in the plane."""
    x, y, z = pose.rotation @ CENTRE + pose.origin
    turn = np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0])
    return np.array([0.5 + FOCAL * x / z, 0.5 + FOCAL * y / z, 1.0 / z, turn])


def _grown(mask: Tensor, pixels: float) -> Tensor:
    """A mask ``(1, h, w)`` grown, with a soft rim."""
    return soft(grown(mask, round(pixels)), round(0.2 * pixels))
