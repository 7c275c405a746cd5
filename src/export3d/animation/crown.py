"""What of a head the networks do not render moves along with it in the picture (not in the paper): hats, hair, headphones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.head import HAZE, HeadLayer, Place, faded, grid_of, lines_of, sizes
from export3d.animation.old_head import CHIN, GROWTH, HAIR, HEAD, JAW, RIM, soft
from export3d.animation.person import HOLE_FROM, Person, filled, planes
from export3d.camera import FOCAL
from export3d.portrait.background import grown
from export3d.rendering.fused import head_layer, spans
from export3d.tracking import Crop, crop_image
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose

CENTRE = np.array([0.0, 0.15, -0.15])
"""Of the skull, in the world of the head, scene units: its outline is that of a ball around it and does not turn."""

OVERLAP = 0.1
"""So much of the crop's side the crown is continued behind the rendered head, so that no gap opens when that turns."""

EDGE = 0.15
"""So near to the crop's border, over its side, there is a crown behind a head that reaches there."""

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
        wider = replace(person.crop, side=person.crop.side * width / size)
        colours = planes(crop_image(person.spread, wider, width))[:, :rows]
        y, x = (np.mgrid[:rows, :width] + 0.5 - room) / size
        half = np.array(person.own.shape[::-1]) / 2.0
        places = crop.from_crop(np.stack([x, y], axis=-1)) - half
        # Hair that the photograph cuts ends beyond it as a dome.
        narrower = (np.abs(places) - half).clip(0.0)[..., ::-1]
        grids = torch.from_numpy(np.stack([places + narrower, places - narrower]) / half).float()
        shares = F.grid_sample(torch.from_numpy(person.own).expand(2, 1, -1, -1), grids, "bilinear", "border", False)
        opacity = ((shares.amin(dim=0) - HOLE_FROM) / (1.0 - 2.0 * HOLE_FROM)).clamp(0.0, 1.0)
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
        seen = torch.cat([colours * opacity, opacity])
        around = filled(seen, seam)
        colours = (around[:3] + FAINT * colours) / (around[3:] + FAINT)
        rim_of_hair = opacity * (1.0 - seam * (1.0 - around[3:] / (2.0 * FAINT)).clamp_min(0.0))
        opacity = torch.where(solid[:, :rows] > 0.0, around[3:], rim_of_hair) * (1.0 - inner)
        light = torch.cat([colours * opacity, opacity])
        if own.place is not None:  # the head goes on into its crown at the crop's border, the crown ends at the room's
            crop_sides, crop_top = faded(*own.opacity.shape[-2:], over=EDGE)
            sides, top = faded(*own.opacity.shape[-2:], whole=True)
            light = torch.lerp(seen, light, crop_sides * crop_top[:rows, None]) * sides * top[:rows, None]
        return cls(light=light[None], home=HeadPose.of_camera(camera), size=size)

    @cached_property
    def framed(self) -> Tensor:
        """The light as `head_layer` reads it."""
        return F.pad(self.light[0], (1, 1, 1, 1)).permute(1, 2, 0).contiguous()

    @cached_property
    def spans(self) -> np.ndarray:
        """Where each row of it shows anything."""
        return spans(self.framed[..., 3].numpy())

    def places(self, camera: np.ndarray) -> np.ndarray:
        """``(2, 3)``: where pixels of a picture by the camera ``(25,)`` lie in the light, see `head_layer`."""
        now, then = (_place(pose) for pose in (HeadPose.of_camera(camera), self.home))
        turn, middle = plane_turn(then[3] - now[3]) * then[2] / now[2], (self.light.shape[-1] - self.size - 1) / 2.0
        start = turn @ (-middle - self.size * now[:2]) + self.size * then[:2] + middle
        return np.concatenate([start[:, None], turn], axis=1)

    def behind(self, head: HeadLayer, camera: np.ndarray) -> HeadLayer:
        """The rendered head, seen by the camera ``(25,)``, before its crown."""
        rows = self.light.shape[-2]
        grid = grid_of(lines_of(self.places(camera), rows), self.light, self.light)
        moved = F.grid_sample(self.light, grid, "bilinear", "zeros", align_corners=False)[0]
        room = 1.0 - head.opacity[:, :rows]
        colours, opacity = head.colours.clone(), head.opacity.clone()
        colours[:, :rows] += room * moved[:3]
        opacity[:, :rows] += room * moved[3:]
        return HeadLayer(colours, opacity, head.place)


def at_home(camera: np.ndarray, home: np.ndarray) -> tuple[np.ndarray, Place]:
    """The camera ``(25,)`` with the skull where the portrait's camera `home` has it, and where the picture then stands: it
    goes along with the head, which never leaves it."""
    poses = [HeadPose.of_camera(each) for each in (camera, home)]
    (x, y, near, _), (home_x, home_y, home_near, _) = (_place(pose) for pose in poses)
    origin = poses[1].origin + (poses[1].rotation - poses[0].rotation) @ CENTRE
    place = Place(scale := home_near / near, home_x - scale * x, home_y - scale * y)
    if np.array_equal(camera, home):  # to the last digit: that picture is there already
        return home, place
    return HeadPose(rotation=poses[0].rotation, origin=origin).camera(), place


def before_crown(
    parts: tuple[Tensor, ...], crown: Crown | None, camera: np.ndarray, *, place: Place | None, room: float, fused: bool
) -> HeadLayer:
    """The head of `HeadLayer.of_picture`'s `parts` with `room`, seen by the camera ``(25,)``, before its crown; by the compiled
    renderer where `fused`."""
    if fused:
        light, side = None if crown is None else (crown.framed, crown.spans, crown.places(camera)), parts[0].shape[-1]
        shown = None if place is None else faded(side, side)
        return HeadLayer(*head_layer(*parts, haze=HAZE, room=round(room * side), crown=light, shown=shown), place)
    head = HeadLayer.of_picture(*parts, place=place).with_room(room)
    return head if crown is None else crown.behind(head, camera)


def _place(pose: HeadPose) -> np.ndarray:
    """``(4,)``: where the skull's middle is in the picture, x and y in [0, 1], its size, and its turn in the plane."""
    x, y, z = pose.rotation @ CENTRE + pose.origin
    turn = np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0])
    return np.array([0.5 + FOCAL * x / z, 0.5 + FOCAL * y / z, 1.0 / z, turn])


def _grown(mask: Tensor, pixels: float) -> Tensor:
    """A mask ``(1, h, w)`` grown, with a soft rim."""
    return soft(grown(mask, round(pixels)), round(0.2 * pixels))
