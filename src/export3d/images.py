"""Images: uint8 (H, W, 3) arrays <-> float (3, H, W) tensors in [-1, 1]. Only this file knows ranges."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from export3d.errors import ImageSizeError, UnreadableImageError
from export3d.files import write_atomically
from export3d.reading import reading

MIN_SIDE_PX = 32
"""Smaller pictures cannot hold a face that any tracker finds."""

MAX_PIXELS = 100_000_000
"""Larger pictures (100 megapixels) are refused before they are decoded."""

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What Pillow may take a file for, whatever its name says: others start programs (EPS) or are hardly tried."""

_MOVING_FORMATS = ("GIF", "WEBP", "PNG")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 ``(..., H, W, 3)`` in 0..255 -> float32 ``(..., 3, H, W)`` in [-1, 1]."""
    if image.dtype != np.uint8 or image.shape[-1] != 3:
        raise ValueError(f"image must be uint8 (..., H, W, 3); got {image.dtype} {image.shape}")
    return torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, -3).float() / 127.5 - 1.0


def to_uint8(image: Tensor) -> np.ndarray:
    """Float ``(..., 3, H, W)`` in [-1, 1] -> uint8 ``(..., H, W, 3)`` in 0..255; clipped."""
    scaled = image.detach().float().clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_()
    channels = scaled.to(torch.uint8).cpu().numpy()
    shape = channels.shape[:-3] + channels.shape[-2:] + channels.shape[-3:-2]
    made = np.empty(shape, dtype=np.uint8)
    for channel in range(shape[-1]):  # four times as fast as turning all axes at once
        made[..., channel] = channels[..., channel, :, :]
    return made


@contextmanager
def open_picture(source: Path | bytes, where: str, formats: Sequence[str] = PICTURE_FORMATS) -> Iterator[Image.Image]:
    """A picture of one of the known formats and an allowed size, still to be decoded; what goes wrong inside is typed.

    Raises:
        UnreadableImageError: Missing, of no known format, damaged or truncated.
        ImageSizeError: Over 100 megapixels.
    """
    remedy = "Export it again as PNG or JPEG."
    with reading(where, "not an image that can be read, or damaged or truncated", UnreadableImageError, remedy):
        head = source[:32] if isinstance(source, bytes) else _first_bytes(source)
        if head[4:8] == b"ftyp" and head[8:12] not in _HEIC_BRANDS:
            raise ValueError("a film")  # Pillow would load all of its formats first
        if head[4:8] == b"ftyp" and not _can_read_heic():
            raise UnreadableImageError(
                f"{where}: a HEIC picture, which needs another package. Run: pip install pillow-heif, or save it as JPEG."
            )
        allowed = [*formats, "HEIF"] if head[8:12] in _HEIC_BRANDS else list(formats)
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=allowed) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise ImageSizeError(_wrong_size(where, f"{width}x{height}"))
                yield opened
        except Image.DecompressionBombError as error:
            raise ImageSizeError(_wrong_size(where, "far too large")) from error


def read_image(path: str | Path) -> np.ndarray:
    """Read any still image as uint8 ``(H, W, 3)`` sRGB; EXIF rotation applied, transparency over black.

    Raises:
        UnreadableImageError: Missing, not an image, or truncated.
        ImageSizeError: Under 32 pixels on a side, or over 100 megapixels.
    """
    return read_cutout(path)[0]


def read_cutout(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Like :func:`read_image`, with the opacity uint8 ``(H, W)`` of a picture that has transparent places, else None."""
    path = Path(path)
    if not path.is_file():
        raise UnreadableImageError(f"{path}: no such image file.")
    with open_picture(path, str(path)) as opened:
        width, height = opened.size
        if min(width, height) < MIN_SIDE_PX:
            raise ImageSizeError(_wrong_size(str(path), f"{width}x{height}"))
        opened.load()
        upright = _upright(opened)
        if upright.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255 instead of scaling
            upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
        upright = _to_srgb(upright, opened.info.get("icc_profile"))
        if upright.mode not in ("RGBA", "LA", "PA") and "transparency" not in upright.info:
            return np.array(upright.convert("RGB")), None
        rgba = upright.convert("RGBA")
        opacity = np.array(rgba.getchannel("A"))
        over_black = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        return np.array(over_black.convert("RGB")), None if opacity.min() == 255 else opacity


def is_moving(path: Path) -> bool | None:
    """Whether a picture file holds a film (GIF, WebP or PNG of several frames); None where it is no picture."""
    try:
        with open_picture(path, str(path)) as opened:
            # Further pages of a TIFF, or the small copies in an MPO of a phone, are no frames.
            return opened.format in _MOVING_FORMATS and getattr(opened, "n_frames", 1) > 1
    except ImageSizeError:
        return False  # `read_image` refuses it with the right words
    except UnreadableImageError:
        return None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that is not what it says must not cost the picture
        return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours of a picture with a profile of its own (Display P3, Adobe RGB) as sRGB."""
    if not profile or image.mode not in ("RGB", "RGBA", "L", "CMYK"):
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a damaged profile is ignored, as viewers do


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)


def _can_read_heic() -> bool:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _wrong_size(where: str, size: str) -> str:
    return (
        f"{where}: the image is {size}; expected at least {MIN_SIDE_PX} pixels on each side and at most "
        f"{MAX_PIXELS // 1_000_000} megapixels. Resize it first."
    )


def to_tensor_of(images: Tensor) -> Tensor:
    """uint8 tensor ``(..., H, W, 3)`` -> float ``(..., 3, H, W)`` in [-1, 1] (`to_tensor` for tensors)."""
    if images.device.type == "cpu":
        return to_tensor(images.numpy())
    return images.movedim(-1, -3).float() / 127.5 - 1.0


def bounds(mask: np.ndarray) -> tuple[slice, slice] | None:
    """The rows and columns that hold all of a mask ``(H, W)``; None where it is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if rows else None


def write_sheet(path: Path, picture: np.ndarray, quality: int = 90) -> None:
    """Write a picture that shows numbers or many frames, in the format of the ending; `quality` of a JPEG.

    Raises:
        OutputError: It cannot be written.
    """
    content = io.BytesIO()
    Image.fromarray(picture).save(content, Image.registered_extensions()[path.suffix.lower()], quality=quality)
    write_atomically(path, content.getvalue())
