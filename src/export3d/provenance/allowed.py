"""Allowed sources: only the portraits of a list may be animated ("restrict the source identities", Sec. 5).

A portrait passes by the hash of its file, or by how it looks: the signs of 255 slow cosine waves of its grey values, which
re-encoding and resizing leave alone, and in which two pictures of different people differ in about half.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export3d.errors import ImageSizeError, SourceNotAllowedError, UnreadableImageError
from export3d.files import file_sha256
from export3d.images import read_image

MAX_DIFFERENT_BITS = 36
"""Of 255, up to which two pictures count as the same; docs/provenance.md has the measurement."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
_SIDE, _WAVES = 64, 16


def look_of(image: np.ndarray) -> np.ndarray:
    """Bits ``(255,)`` bool of a uint8 ``(H, W, 3)`` picture: which of its 16x16 slowest cosine waves are above the median."""
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    angle = np.pi / _SIDE * np.outer(np.arange(_WAVES), np.arange(_SIDE) + 0.5)
    waves = np.cos(angle)
    slow = (waves @ np.asarray(grey, dtype=np.float64) @ waves.T).reshape(-1)[1:]
    bits: np.ndarray = slow > np.median(slow)
    return bits


@dataclass(frozen=True)
class AllowedSources:
    """The portraits that may be animated.

    Attributes:
        where: folder or list they come from, for error texts.
        hashes: SHA-256 of files.
        looks: ``(n, 255)`` bool, from `look_of`.
    """

    where: str
    hashes: frozenset[str]
    looks: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> AllowedSources:
        """Read a folder of pictures (with its sub-folders), or a text file with one picture or SHA-256 a line.

        Names of pictures count from the list's folder; empty lines and lines that begin with # are left out.

        Raises:
            SourceNotAllowedError: No such folder or list, nothing in it, or a line that is neither.
        """
        path = Path(path)
        hashes: set[str] = set()
        if path.is_dir():
            pictures = sorted(one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES and one.is_file())
        else:
            pictures = []
            for number, line in _lines(path):
                if re.fullmatch(r"[0-9a-fA-F]{64}", line):
                    hashes.add(line.lower())
                elif (path.parent / line).is_file():
                    pictures.append(path.parent / line)
                else:
                    raise SourceNotAllowedError(
                        f"{path}, line {number}: '{line}' is neither a picture nor a SHA-256 of 64 digits. Correct the line."
                    )
        if not pictures and not hashes:
            raise SourceNotAllowedError(f"--allow {path}: there is no picture in it, so nothing could be animated.")
        looks = [look_of(_picture(one, path)) for one in pictures]
        hashes |= {file_sha256(one) for one in pictures}
        return cls(str(path), frozenset(hashes), np.array(looks, dtype=bool).reshape(len(looks), _WAVES**2 - 1))

    def check(self, image: np.ndarray, path: Path | None = None, where: str = "the portrait") -> None:
        """Let an allowed portrait pass.

        Args:
            image: uint8 ``(H, W, 3)``.
            path: the file it was read from, if any.

        Raises:
            SourceNotAllowedError: It is not among the allowed ones.
        """
        if path is not None and file_sha256(path) in self.hashes:
            return
        if len(self.looks) and (self.looks ^ look_of(image)).sum(axis=1).min() <= MAX_DIFFERENT_BITS:
            return
        raise SourceNotAllowedError(
            f"{where}: this portrait is not among the allowed ones of {self.where}. Take one of those, or have it added."
        )


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceNotAllowedError(
            f"--allow {path}: neither a folder nor a readable text file ({error}). Give a folder of pictures, or a list."
        ) from error
    stripped = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def _picture(path: Path, where: Path) -> np.ndarray:
    try:
        return read_image(path)
    except (UnreadableImageError, ImageSizeError) as error:
        raise SourceNotAllowedError(f"--allow {where}: {error}") from error
