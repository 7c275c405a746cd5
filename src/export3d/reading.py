"""The one boundary between files and the program: what a library raises becomes a typed error; structured files have bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from export3d.errors import Export3DError

T = TypeVar("T")

MAX_JSON_BYTES = 1 << 28
"""A manifest of a million clips has about 200 MB."""

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Side = Annotated[int, Meta(ge=1, le=16384)]
"""Side of a picture in pixels."""
Frames = Annotated[int, Meta(ge=1, le=10_000_000)]
Name = Annotated[str, Meta(max_length=4096)]
FileName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")]
"""The name of a file in a known folder: it cannot lead out of it."""
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

_MAX_RATE = 1000
_LONGEST = 200


def shortened(value: object, length: int = _LONGEST) -> str:
    """A value for an error text: on one line, printable, cut in the middle where it is long."""
    text = value[: 4 * length] if isinstance(value, str) else str(value)
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 4 :]}"


@contextmanager
def reading(where: object, problem: str, error: type[Export3DError], remedy: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is a damaged file: it becomes `error`, "where: problem (reason). remedy".

    Raises:
        Export3DError: Of the given type; typed errors from inside pass as they are.
    """
    try:
        yield
    except Export3DError:
        raise
    except Exception as cause:  # readers meet every kind: a library says of damage what it likes
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if isinstance(cause, KeyError):
            reason = f"{reason} is missing"
        raise error(f"{where}: {problem} ({shortened(reason)}).{' ' if remedy else ''}{remedy}") from cause


def read_json(path: Path, problem: str, error: type[Export3DError], remedy: str = "") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        Export3DError: Of the given type: not readable, not JSON, larger than any such file, or no object.
    """
    with reading(path, problem, error, remedy):
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes; expected at most {MAX_JSON_BYTES}")
        return parse_json(path.read_bytes())


def parse_json(content: bytes | str) -> dict[str, Any]:
    """The object in a JSON text; a `ValueError` or `RecursionError` where there is none. NaN and Infinity are no JSON."""
    return msgspec.json.decode(content, type=dict[str, Any])


def read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a log with one on each line; lines that were cut off when the process was killed are left out."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)  # knows NaN, which a log may hold
            if isinstance(entry, dict) and isinstance(entry.get("step", 0), int):
                entries.append(entry)
    return entries


def checked(values: Any, schema: type[T]) -> T:
    """Plain values as a dataclass whose annotations hold the bounds; a `ValueError` names the first that does not fit."""
    return msgspec.convert(values, schema)


def read_number(text: str) -> Fraction:
    """29.97 or 30000/1001 as a fraction; a `ValueError` where it is no such number, or has more than 12 digits a part."""
    if not re.fullmatch(r"[-+]?([0-9]{1,12}([./][0-9]{0,12})?|\.[0-9]{1,12})", text.strip()):
        raise ValueError(f"expected a number; got {shortened(text)}")
    return Fraction(text.strip())


def read_rate(value: Any) -> Fraction:
    """Frames per second from "30000/1001" or [30000, 1001]; a `ValueError` unless it is over 0 and at most 1000."""
    parts = value.split("/") if isinstance(value, str) else list(value)
    if len(parts) != 2 or not all(re.fullmatch(r"[0-9]{1,12}", str(part)) for part in parts):
        raise ValueError(f"expected a frame rate such as 30000/1001; got {shortened(value)}")
    rate = Fraction(int(parts[0]), int(parts[1]))
    if not 0 < rate <= _MAX_RATE:
        raise ValueError(f"expected a frame rate over 0 and at most {_MAX_RATE}; got {shortened(value)}")
    return rate
