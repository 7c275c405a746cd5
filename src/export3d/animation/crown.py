"""What of a head the networks do not render moves along with it in the picture (not in the paper): hats, hair, headphones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.paste import CHIN, GROWTH, HAIR, HEAD, JAW, RIM, HeadLayer
from export3d.animation.person import HOLE_FROM, Person, planes
from export3d.camera import FOCAL
from export3d.portrait.background import grown
from export3d.tracking import Crop, crop_image
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose

CENTRE = np.array([0.0, 0.15, -0.15])
"""Of the skull, in the world of the head, scene units: its outline is that of a ball around it and does not turn."""

OVERLAP = 0.06
"""So much of the crop's side the crown reaches behind the rendered head, so that no gap opens when that turns."""

ISLAND = 0.015
"""Half the width, over the crop's side, of the largest piece that is left where it is: specks of the segmentation."""


@dataclass(frozen=True, kw_only=True)
class Crown:
    """The person's own pixels around the upper part of the rendered head, in the crop.

    Attributes:
        light: float32 ``(1, 4, h, S)``, colours in [0, 255] premultiplied by the opacity, and the opacity; the upper rows.
        home: the head in the photograph.
    """

    light: Tensor
    home: HeadPose

    @classmethod
    def of(cls, person: Person, crop: Crop, own: HeadLayer, camera: np.ndarray) -> Crown:
        """Of the person around their head, rendered in its `own` pose in the crop, by the portrait's camera ``(25,)``."""
        size = own.opacity.shape[-1]
        rows = round(CHIN * size)
        colours = planes(crop_image(person.spread, person.crop, size))[:, :rows]
        y, x = (np.mgrid[:rows, :size] + 0.5) / size
        height, width = person.own.shape
        places = crop.from_crop(np.stack([x, y], axis=-1)) / np.array([width, height]) * 2.0 - 1.0
        whole, grid = torch.from_numpy(person.own)[None, None], torch.from_numpy(places).float()[None]
        share = F.grid_sample(whole, grid, "bilinear", "border", align_corners=False)[0]
        opacity = ((share - HOLE_FROM) / (1.0 - 2.0 * HOLE_FROM)).clamp(0.0, 1.0)
        island = round(ISLAND * size)
        opacity = opacity * grown(1.0 - grown(1.0 - opacity, island), island + 2)
        solid = (own.opacity > 0.5).float()
        near, rim = (_grown(solid, part * size)[:, :rows] for part in (HAIR, 2.0 * (GROWTH + RIM)))
        inner = 1.0 - _grown(1.0 - solid, OVERLAP * size)[:, :rows]
        down = (torch.arange(rows)[:, None] + 0.5) / size
        beside, below = (((end - down) / (end - start)).clamp(0.0, 1.0) for start, end in ((HEAD, JAW), (JAW, CHIN)))
        opacity = opacity * torch.maximum(near * beside, rim * below) * (1.0 - inner)
        return cls(light=torch.cat([colours * opacity, opacity])[None], home=HeadPose.of_camera(camera))

    @cached_property
    def framed(self) -> Tensor:
        """The light as `head_layer` reads it."""
        return F.pad(self.light[0], (1, 1, 1, 1)).permute(1, 2, 0).contiguous()

    def places(self, camera: np.ndarray) -> np.ndarray:
        """``(2, 3)``: where pixels of a picture by the camera ``(25,)`` lie in the light, see `head_layer`."""
        size = np.array([self.light.shape[-1], self.light.shape[-2]], dtype=np.float64)
        matrix = self._back(HeadPose.of_camera(camera), size[1] / size[0])[0].double().numpy()
        turn = matrix[:, :2] * size[:, None] / size
        start = 0.5 * size * (matrix @ np.append(1.0 / size - 1.0, 1.0) + 1.0) - 0.5
        return np.concatenate([start[:, None], turn], axis=1)

    def behind(self, head: HeadLayer, camera: np.ndarray) -> HeadLayer:
        """The rendered head, seen by the camera ``(25,)``, before its crown."""
        size = head.opacity.shape[-1]
        rows = self.light.shape[-2]
        matrix = self._back(HeadPose.of_camera(camera), rows / size)
        grid = F.affine_grid(matrix, [1, 4, rows, size], align_corners=False)
        moved = F.grid_sample(self.light, grid, "bilinear", "zeros", align_corners=False)[0]
        room = 1.0 - head.opacity[:, :rows]
        colours, opacity = head.colours.clone(), head.opacity.clone()
        colours[:, :rows] += room * moved[:3]
        opacity[:, :rows] += room * moved[3:]
        return HeadLayer(colours, opacity)

    def _back(self, pose: HeadPose, part: float) -> Tensor:
        """``(1, 2, 3)``: from the picture now to that of the photograph, both in [-1, 1] of the upper `part` of the crop."""
        now, then = (_place(each) for each in (pose, self.home))
        turn = plane_turn(then[3] - now[3])[:2, :2] * then[2] / now[2]
        # Places in [0, 1] of the crop's width; the rows' own unit is the part's height.
        unit = np.diag([0.5, 0.5 * part])
        matrix = np.linalg.inv(unit) @ turn @ unit
        half = np.array([0.5, 0.5 * part])
        shift = np.linalg.inv(unit) @ (then[:2] + turn @ (half - now[:2]) - half)
        return torch.from_numpy(np.concatenate([matrix, shift[:, None]], axis=1)).float()[None]


def _place(pose: HeadPose) -> np.ndarray:
    """``(4,)``: where the skull's middle is in the picture, x and y in [0, 1], its size, and its turn in the plane."""
    x, y, z = pose.rotation @ CENTRE + pose.origin
    turn = np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0])
    return np.array([0.5 + FOCAL * x / z, 0.5 + FOCAL * y / z, 1.0 / z, turn])


def _grown(mask: Tensor, pixels: float) -> Tensor:
    """A mask ``(1, h, w)`` grown, with a soft rim."""
    soft = round(0.2 * pixels)
    mask = F.avg_pool2d(grown(mask, round(pixels)), (1, 2 * soft + 1), 1, (0, soft), count_include_pad=False)
    return F.avg_pool2d(mask, (2 * soft + 1, 1), 1, (soft, 0), count_include_pad=False)
