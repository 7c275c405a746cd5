"""The visible label: a few words in the lower right corner, off the face."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export3d.errors import UsageError

DEFAULT_LABEL = "AI-generated"
MAX_LENGTH = 40

_MIN_FONT_PX, _FONT_SHARE = 11, 1 / 24  # of the frame's height
_TEXT, _GROUND = (255, 255, 255, 235), (0, 0, 0, 150)  # RGBA
_OVERSAMPLING = 4


class Label:
    """Draws the words into frame after frame.

    Args:
        text: 1 to 40 characters that Pillow's own font has.

    Raises:
        UsageError: Too long, empty, or with a letter that cannot be drawn.
    """

    def __init__(self, text: str = DEFAULT_LABEL) -> None:
        self.text = text.strip()
        if not 0 < len(self.text) <= MAX_LENGTH:
            raise UsageError(f"--label must have 1 to {MAX_LENGTH} characters; got {len(self.text)}.")
        missing = _without_glyph(self.text)
        if missing:
            raise UsageError(
                f"--label: the built-in font has no '{missing}'; use the letters A to Z, digits and plain signs."
            )
        self._size = (0, 0)
        self._patch = np.zeros((0, 0, 4), dtype=np.float32)
        self._place = (slice(0), slice(0))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A copy of the uint8 ``(H, W, 3)`` image with the label."""
        if self._size != image.shape[:2]:
            self._prepare(*image.shape[:2])
        out = image.copy()
        share = self._patch[..., 3:] / 255.0
        below = out[self._place].astype(np.float32)
        out[self._place] = np.round(share * self._patch[..., :3] + (1.0 - share) * below).astype(np.uint8)
        return out

    def _prepare(self, height: int, width: int) -> None:
        """Draw the patch once for a size of frames; a narrow frame gets smaller letters."""
        size = max(_MIN_FONT_PX, round(_FONT_SHARE * height))
        patch = _draw(self.text, size)
        room = (width - 2, height - 2)
        if patch.width > room[0] or patch.height > room[1]:
            patch.thumbnail((max(1, room[0]), max(1, room[1])))
        gap = min(round(0.4 * size), width - patch.width, height - patch.height)
        bottom, right = height - gap, width - gap
        self._place = (slice(bottom - patch.height, bottom), slice(right - patch.width, right))
        self._patch = np.asarray(patch, dtype=np.float32)
        self._size = (height, width)


def _draw(text: str, size: int) -> Image.Image:
    """RGBA picture of the words on a rounded dark ground, drawn large and made small for smooth edges."""
    font = ImageFont.load_default(size * _OVERSAMPLING)
    left, _, right, _ = font.getbbox(text)
    pad, height = 0.45 * size * _OVERSAMPLING, round(1.5 * size) * _OVERSAMPLING
    width = -(-round(right - left + 2 * pad) // _OVERSAMPLING) * _OVERSAMPLING
    large = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(large)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), radius=height // 3, fill=_GROUND)
    pen.text((width / 2, height / 2), text, font=font, fill=_TEXT, anchor="mm")
    return large.resize((width // _OVERSAMPLING, height // _OVERSAMPLING), Image.Resampling.BOX)


def _without_glyph(text: str) -> str:
    """The characters of a text for which the font shows its sign of a missing one."""
    font = ImageFont.load_default(16)

    def drawn(letter: str) -> bytes:
        picture = Image.new("L", (32, 32))
        ImageDraw.Draw(picture).text((4, 4), letter, font=font, fill=255)
        return picture.tobytes()

    unknown = drawn("\uffff")
    return "".join(sorted({one for one in text if drawn(one) == unknown}))
