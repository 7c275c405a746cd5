"""VFHQ's names and meta_info files (docs/data.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from export3d.errors import UsageError
from export3d.preprocess.jobs import Box
from export3d.reading import read_number, shortened

_NTSC = Fraction(1000, 1001)
_PATTERNS = (r"P(\d+)", r"C(\d+)", r"F(\d+)-(\d+)")


@dataclass(frozen=True)
class ClipName:
    """`Clip+{video id}+P{person}+C{clip}+F{start}-{end}`; frame numbers at the native rate."""

    video_id: str
    person: int
    clip: int
    first_frame: int
    end_frame: int

    @staticmethod
    def parse(name: str) -> ClipName | None:
        """Split on '+' into exactly five parts (the id itself may start with '-'); None if it is no such name."""
        parts = name.split("+")
        if len(parts) != 5 or parts[0] != "Clip" or not parts[1]:
            return None
        numbers = [re.fullmatch(pattern, part) for pattern, part in zip(_PATTERNS, parts[2:], strict=True)]
        if not all(numbers):
            return None
        person, clip, (first, end) = (match.groups() for match in numbers if match)
        return ClipName(parts[1], int(person[0]), int(clip[0]), int(first), int(end))

    @property
    def identity(self) -> str:
        """One person of one video."""
        return f"{self.video_id}-P{self.person}"


@dataclass(frozen=True, kw_only=True)
class MetaInfo:
    """One file of meta_info."""

    video_id: str
    width: int
    height: int
    fps: Fraction
    landmarks: np.ndarray
    """``(N, 5, 2)`` float32, five points for each frame, in pixels of the full frame."""
    crop: Box
    """x0, y0, x1, y1 in pixels of the full frame."""

    @staticmethod
    def parse(text: str, where: str) -> MetaInfo:
        """Read a meta_info file.

        Raises:
            UsageError: A line is missing or malformed; names the file and the line.
        """
        header: dict[str, str] = {}
        landmarks: list[list[float]] = []
        crop: Box | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if words[0] == "CROP":
                numbers = _numbers(words[-4:], 4, f"{where}, line {number}")
                crop = (numbers[0], numbers[1], numbers[2], numbers[3])
            elif words[0] == "FRAME":
                continue
            elif ":" in line:
                name, _, value = line.partition(":")
                header[name.strip()] = value.strip()
            else:
                # frame number, index, box x0 y0 w h, five points
                landmarks.append(_numbers(words, 16, f"{where}, line {number}")[6:])
        lacking = [name for name in ("Video ID", "H", "W", "FPS") if name not in header]
        if lacking or crop is None:
            names = ", ".join([*lacking, *([] if crop else ["CROP"])])
            raise UsageError(f"{where}: not a VFHQ meta_info file: no line {names}.")
        try:
            height, width = int(header["H"]), int(header["W"])
        except ValueError as error:
            raise UsageError(f"{where}: H and W must be whole numbers ({error}).") from error
        if not (0 <= crop[0] < crop[2] and 0 <= crop[1] < crop[3]):
            raise UsageError(f"{where}: CROP must be x0 y0 x1 y1 with x0 < x1 and y0 < y1; got {crop}.")
        fps = exact_fps(header["FPS"], where)
        return MetaInfo(
            video_id=header["Video ID"],
            width=width,
            height=height,
            fps=fps,
            landmarks=np.array(landmarks, dtype=np.float32).reshape(-1, 5, 2),
            crop=crop,
        )


def exact_fps(text: str, where: str) -> Fraction:
    """`29.97` or `30000/1001` -> a fraction; decimals near a multiple of 1000/1001 become exactly that.

    Raises:
        UsageError: Not a rate between 1 and 240.
    """
    try:
        value = read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"{where}: expected a frame rate such as 29.97 or 30000/1001; got '{shortened(text)}'."
        ) from error
    if not 1 <= value <= 240:
        raise UsageError(f"{where}: expected a frame rate of 1 to 240; got '{text}'.")
    whole = round(value)
    ntsc = round(value / _NTSC) * _NTSC
    if "/" in text or abs(value - whole) < Fraction(1, 1000):
        return value if "/" in text else Fraction(whole)
    return ntsc if abs(value - ntsc) < Fraction(6, 1000) else value


def _numbers(words: list[str], count: int, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise UsageError(f"{where}: expected {count} numbers ({error}).") from error
    if len(numbers) != count:
        raise UsageError(f"{where}: expected {count} numbers; got {len(numbers)}.")
    return numbers
