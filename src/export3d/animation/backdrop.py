"""What stands behind the person instead of the photograph's own background: `--background` (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps
from torch import Tensor

from export3d.errors import UsageError
from export3d.images import read_image

KEEP, TRANSPARENT = "keep", "transparent"


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """A picture, a colour, or nothing.

    Attributes:
        picture: uint8 ``(H, W, 3)``; a colour is a picture of one pixel; None is transparent.
    """

    picture: np.ndarray | None

    @classmethod
    def of(cls, text: str) -> Backdrop | None:
        """What an option asks for: keep (None), transparent, a picture's path, or a colour.

        Raises:
            UsageError: None of them.
            UnreadableImageError, ImageSizeError: The picture cannot be read.
        """
        if text == KEEP:
            return None
        if text == TRANSPARENT:
            return cls(picture=None)
        if Path(text).is_file():
            return cls(picture=read_image(text))
        try:
            colour = ImageColor.getrgb(text)[:3]
        except ValueError as error:
            raise UsageError(
                f"--background: '{text}' is no picture and no colour. Give keep, transparent, the path of a picture, or a "
                "colour such as white or '#20a0ff'."
            ) from error
        return cls(picture=np.array(colour, dtype=np.uint8).reshape(1, 1, 3))

    @property
    def planes(self) -> int:
        """Of a film before it: red, green and blue, and the opacity where it is transparent."""
        return 4 if self.picture is None else 3

    def behind(self, height: int, width: int) -> Tensor:
        """float32 ``(planes, height, width)`` in [0, 255]: the picture cut to that shape."""
        if self.picture is None:
            return torch.zeros(4, height, width)
        fitted = ImageOps.fit(Image.fromarray(self.picture), (width, height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float()


def laid(light: Tensor, opacity: Tensor, behind: Tensor) -> Tensor:
    """Premultiplied light ``(3, h, w)`` in [0, 255] with its opacity ``(1, h, w)`` before something of 3 planes, or of 4
    (premultiplied, the last one 255 times its opacity)."""
    return torch.cat([light, 255.0 * opacity])[: len(behind)] + (1.0 - opacity) * behind


def as_picture(made: Tensor) -> np.ndarray:
    """float32 ``(3 | 4, h, w)``, of 4 planes premultiplied -> uint8 ``(h, w, 3 | 4)``, of 4 planes with straight colours."""
    if len(made) == 4:
        made = torch.cat([made[:3] * 255.0 / made[3:].clamp_min(1.0), made[3:]])
    return made.round().clamp(0.0, 255.0).permute(1, 2, 0).byte().numpy()
