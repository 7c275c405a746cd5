"""Images: uint8 (H, W, 3) arrays <-> float (3, H, W) tensors in [-1, 1]. Only this file knows ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from export3d.errors import ImageSizeError, UnreadableImageError

MIN_SIDE_PX = 32
"""Smaller pictures cannot hold a face that any tracker finds."""

MAX_PIXELS = 100_000_000
"""Larger pictures (100 megapixels) are refused before they are decoded."""


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 ``(..., H, W, 3)`` in 0..255 -> float32 ``(..., 3, H, W)`` in [-1, 1]."""
    if image.dtype != np.uint8 or image.shape[-1] != 3:
        raise ValueError(f"image must be uint8 (..., H, W, 3); got {image.dtype} {image.shape}")
    return torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, -3).float() / 127.5 - 1.0


def to_uint8(image: Tensor) -> np.ndarray:
    """Float ``(..., 3, H, W)`` in [-1, 1] -> uint8 ``(..., H, W, 3)`` in 0..255; clipped."""
    scaled = ((image.detach().float().clamp(-1.0, 1.0) + 1.0) * 127.5).round()
    return scaled.to(torch.uint8).movedim(-3, -1).cpu().numpy()


def read_image(path: str | Path) -> np.ndarray:
    """Read any still image as uint8 ``(H, W, 3)`` RGB; EXIF rotation applied, transparency over black.

    Raises:
        UnreadableImageError: Missing, not an image, or truncated.
        ImageSizeError: Under 32 pixels on a side, or over 100 megapixels.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableImageError(f"{path}: no such image file.")
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if min(width, height) < MIN_SIDE_PX or width * height > MAX_PIXELS:
                raise ImageSizeError(
                    f"{path}: the image is {width}x{height}; expected at least {MIN_SIDE_PX} pixels on each "
                    f"side and at most {MAX_PIXELS // 1_000_000} megapixels. Resize it first."
                )
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255 instead of scaling
                upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
            return np.array(upright.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise ImageSizeError(
            f"{path}: {error}; expected at most {MAX_PIXELS // 1_000_000} megapixels. Resize it first."
        ) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{path}: not an image that Pillow can read ({error}).") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImageError(f"{path}: the image is damaged or truncated ({error}). Export it again.") from error


def to_tensor_of(images: Tensor) -> Tensor:
    """uint8 tensor ``(..., H, W, 3)`` -> float ``(..., 3, H, W)`` in [-1, 1] (`to_tensor` for tensors)."""
    if images.device.type == "cpu":
        return to_tensor(images.numpy())
    return images.movedim(-1, -3).float() / 127.5 - 1.0
