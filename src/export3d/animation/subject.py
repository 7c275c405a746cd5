"""A portrait that is ready to be driven, and how its pictures stand in the photograph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from export3d.animation.bend import Bend
from export3d.animation.crown import Crown
from export3d.animation.framing import inside
from export3d.animation.lids import Lids
from export3d.animation.mouth import Mouth
from export3d.animation.person import Person, continued
from export3d.face_state import FaceState
from export3d.tracking import Crop, crop_image

LEVEL_ENOUGH_RAD = math.radians(8.0)
"""A photo this near to a quarter turn is turned back by the quarter turn alone."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A portrait that is ready to be driven.

    Attributes:
        image: uint8 ``(H, W, 3)``, the photo as it was given.
        crop: the square of the photo that the network sees.
        state: the portrait's own face (B = 1) with the turn of its head.
        camera: ``(25,)`` float32, the portrait's own camera.
        landmarks: ``(68, 2)`` in [0, 1] of the crop, where a tracker found them.
        code: what the network keeps of the portrait.
        lids: that are drawn in the photograph, where films have its own detail.
        bend: of the corners of its mouth, likewise.
        mouth: that is drawn into pictures, likewise, where the photograph shows it shut.
        person: apart from the background, where a film shows the whole photograph or another background.
        crown: what of the person's head is not rendered.
        whole: films show the whole photograph.
        side: of pictures of the face, pixels, as the photograph's detail allows.
        warnings: what of the photograph makes films worse.
    """

    image: np.ndarray
    crop: Crop
    state: FaceState
    camera: np.ndarray
    code: Any
    landmarks: np.ndarray | None = None
    lids: Lids | None = None
    bend: Bend | None = None
    mouth: Mouth | None = None
    person: Person | None = None
    crown: Crown | None = None
    whole: bool = False
    side: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def shown(self) -> Crop:
        """The square of the photo that a film of the face shows: the crop set upright, no more than there is of it."""
        return inside(self.image.shape, self.crop)

    def seen(self, least: int) -> np.ndarray:
        """What the network sees of the photo, uint8 ``(S, S, 3)``: as fine as the photo, with `least` to 2048 pixels a side."""
        return crop_image(*continued(self.image, self.crop), round(min(max(self.crop.side, least), 2048)))

    def picture(self, size: int) -> np.ndarray:
        """The aligned portrait as uint8 ``(size, size, 3)``, as the photo stands."""
        return crop_image(*continued(self.image, self.shown), size)

    def turned_back(self, picture: np.ndarray) -> np.ndarray:
        """The uint8 ``(S, S, 3 | 4)`` picture of the levelled crop -> `shown`, as the photo stands, ``(S', S', 3 | 4)``.

        Quarter turns are exact. Corners that stay empty show the photo, with 4 channels nothing.
        """
        picture, shown = self._turned_back(picture), self.shown
        if shown.side == self.crop.side:
            return picture
        scale = len(picture) / self.crop.side
        side = 2 * round(shown.side * scale / 2.0)
        x, y = (
            round((a - b + (self.crop.side - shown.side) / 2.0) * scale)
            for a, b in ((shown.center_x, self.crop.center_x), (shown.center_y, self.crop.center_y))
        )
        x, y = (min(max(at, 0), len(picture) - side) for at in (x, y))
        return np.ascontiguousarray(picture[y : y + side, x : x + side])

    def _turned_back(self, picture: np.ndarray) -> np.ndarray:
        if not self.crop.angle:
            return picture
        quarters = round(self.crop.angle / (math.pi / 2.0))
        rest = self.crop.angle - quarters * math.pi / 2.0
        if abs(rest) < LEVEL_ENOUGH_RAD:
            return np.ascontiguousarray(np.rot90(picture, -quarters))
        turned = Image.fromarray(picture).convert("RGBA")
        turned = turned.rotate(-math.degrees(self.crop.angle), Image.Resampling.BICUBIC)
        if picture.shape[-1] == 4:
            return np.asarray(turned)
        behind = Image.fromarray(crop_image(*continued(self.image, replace(self.crop, angle=0.0)), picture.shape[0]))
        behind.paste(turned.convert("RGB"), mask=turned.getchannel("A"))
        return np.asarray(behind)
