"""A clip as bytes of a ustar archive, and the places of its members inside it (docs/data.md)."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from PIL import Image

from export3d.data.clip import ARRAY_SHAPES, Clip
from export3d.errors import DataError, ImageSizeError, UnreadableImageError
from export3d.images import open_picture
from export3d.reading import parse_json, reading, shortened

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MAX_SIDE = 4096
"""Pixels; larger training frames are a lie of the header."""
_JPEG_QUALITY = 95
_PNG_LEVEL = 2  # half the time of level 4 for 8 % more bytes, measured on photographs of 256 x 256


def clip_members(clip: Clip, frame_format: str) -> Iterator[tuple[str, bytes]]:
    """The members of a clip in their documented order: ``(name, content)``. Same clip, same bytes."""
    meta = {**clip.meta, "frame_format": frame_format}
    yield f"{clip.key}.json", json.dumps(meta, ensure_ascii=False).encode()
    for index, frame in enumerate(clip.frames):
        yield f"{clip.key}.{index:04d}.{frame_format}", encode_image(frame, frame_format)
    for name in ARRAY_SHAPES:
        if name in clip.arrays:
            yield f"{clip.key}.{name}.npy", _encode_array(clip.arrays[name])
    for index in range(len(clip.frames)):
        if clip.masks is not None:
            yield f"{clip.key}.{index:04d}.mask.png", encode_image(clip.masks[index], "png")
        if clip.depths is not None:
            yield f"{clip.key}.{index:04d}.depth.png", encode_image(clip.depths[index], "png")
    if clip.background is not None:
        yield f"{clip.key}.background.png", encode_image(clip.background, "png")


def clip_bytes(clip: Clip, frame_format: str) -> bytes:
    """The tar records of one clip (headers, contents, padding), without an end-of-archive mark."""
    out = io.BytesIO()
    for name, content in clip_members(clip, frame_format):
        out.write(tar_header(name, len(content)))
        out.write(content)
        out.write(bytes(-len(content) % BLOCK))
    return out.getvalue()


def tar_header(name: str, size: int) -> bytes:
    """A 512-byte ustar header without date or owner, so that equal clips are equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def scan_members(read: Callable[[int, int], bytes], start: int, end: int, where: str) -> dict[str, tuple[int, int]]:
    """Find the members in a byte range of an archive.

    Args:
        read: ``read(offset, length)`` gives bytes of the archive.
        start, end: byte range that holds whole members.
        where: named in errors.

    Returns:
        Member name -> ``(offset of the content, length)``.

    Raises:
        DataError: A header is not where it should be, or the archive ends early.
    """
    members: dict[str, tuple[int, int]] = {}
    position = start
    while position < end:
        header = read(position, BLOCK)
        name, size = parse_header(header, f"{where}, byte {position}")
        if size < 0 or position + BLOCK + size > end:
            raise DataError(
                f"{where}: damaged tar: member '{shortened(name, 80)}' runs past the end of its clip. Prepare it again."
            )
        members[name] = (position + BLOCK, size)
        position += BLOCK + size + (-size % BLOCK)
    return members


def parse_header(header: bytes, where: str) -> tuple[str, int]:
    """Name and size from a ustar header; `DataError` if it is cut short or its checksum is wrong."""
    if len(header) < BLOCK or header[257:262] != b"ustar":
        raise DataError(f"{where}: damaged tar: no member header here. Copy the shard again or prepare it again.")
    try:
        stored = int(header[148:156].rstrip(b"\0 "), 8)
        size = int(header[124:136].rstrip(b"\0 "), 8)
        name = header[:100].rstrip(b"\0").decode("utf-8")
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: damaged tar: unreadable member header ({error}).") from error
    if sum(header) - sum(header[148:156]) + 8 * 32 != stored:
        raise DataError(f"{where}: damaged tar: wrong header checksum. Copy the shard again or prepare it again.")
    return name, size


def encode_image(image: np.ndarray, frame_format: str) -> bytes:
    """uint8 RGB, uint8 grey or uint16 grey -> PNG or JPEG (quality 95, no colour subsampling)."""
    out = io.BytesIO()
    if frame_format == "jpg":
        Image.fromarray(image).save(out, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(image).save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()


def decode_image(content: bytes, where: str) -> np.ndarray:
    """PNG or JPEG -> array as stored; `DataError` if it cannot be decoded."""
    with reading(where, "the image cannot be decoded", DataError, "Prepare the clip again."):
        try:
            with open_picture(content, where, ("PNG", "JPEG")) as image:
                if max(image.size) > MAX_SIDE:
                    raise ValueError(f"{image.size[0]}x{image.size[1]} pixels; expected at most {MAX_SIDE} on a side")
                array = np.array(image)
        except (UnreadableImageError, ImageSizeError) as error:
            raise ValueError(str(error)) from error
    return array.astype(np.uint16) if array.dtype == np.int32 else array


def _encode_array(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return out.getvalue()


def decode_array(content: bytes, where: str) -> np.ndarray:
    """`.npy` -> array; never unpickles."""
    with reading(where, "the array cannot be read", DataError, "Prepare the clip again."):
        return load_npy(io.BytesIO(content), len(content))


def load_npy(file: IO[bytes], size: int) -> np.ndarray:
    """The array of a `.npy` file of `size` bytes; never unpickles, and never makes more than the file holds.

    Raises:
        ValueError: The header lies about the size, or the array holds objects.
    """
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran_order, dtype = read_header(file)
    count = math.prod(shape)
    if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise ValueError(f"its header promises {shortened(shape)} of {dtype}, more than the file holds")
    content = file.read(count * dtype.itemsize)
    order = "F" if fortran_order else "C"
    return np.frombuffer(content, dtype=dtype, count=count).reshape(shape, order=order).copy()


def decode_meta(content: bytes, where: str) -> dict[str, Any]:
    """The JSON member -> dict."""
    with reading(where, "the JSON member cannot be read", DataError):
        return parse_json(content)
