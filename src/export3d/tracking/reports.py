"""MediaPipe kept to itself: no report of its use over the network, no fonts listed, no sound library sought.

From version 0.10.35 on the wheel sends reports to play.googleapis.com and has no switch for it
(google-ai-edge/mediapipe#6291).
On Linux its own entries of `getaddrinfo` and `getenv` are therefore led to functions that fail: it finds no host and knows
of no proxy. The rest of the process keeps the true ones. On other systems this is not done (docs/reliability.md).
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_DEFERRED = ("cv2", "matplotlib", "matplotlib.pyplot", "sounddevice")
"""Imported by MediaPipe, used only to draw and to record: they list fonts, write under home, and start ldconfig and gcc."""

_FAILING = {"getaddrinfo": "abs", "getenv": "atol"}
"""Imported function -> what stands in: `abs` of a pointer is not 0, which alone means success; `atol` of a name is 0, no value.
Both touch nothing, and need no Python in MediaPipe's threads."""

_JMPREL, _PLTRELSZ, _STRTAB, _SYMTAB, _DYNAMIC = 23, 2, 5, 6, 2  # elf.h


@contextmanager
def deferred_imports() -> Iterator[None]:
    """What is imported but not needed is imported once somebody uses it."""
    stubs = {name: _stub(name) for name in _DEFERRED if name not in sys.modules}
    for name, stub in stubs.items():
        parent, _, child = name.rpartition(".")
        if parent in stubs:
            setattr(stubs[parent], child, stub)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, stub in stubs.items():
            if sys.modules.get(name) is stub:
                del sys.modules[name]


def _stub(name: str) -> ModuleType:
    stub = ModuleType(name)
    stub.__getattr__ = lambda wanted: getattr(importlib.import_module(name), wanted)  # type: ignore[method-assign]
    return stub


def stop_reports(library: Path) -> bool:
    """Cut a loaded library off from the network; False where that cannot be done (not Linux, or no such entries)."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    base = next((int(line.split("-")[0], 16) for line in lines if line.endswith(str(library))), None)
    if base is None:
        return False
    entries = {name: _entry(library, name) for name in _FAILING}
    for name, at in entries.items():
        if at is not None:
            page = (base + at) & -mmap.PAGESIZE
            ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
            ctypes.c_void_p.from_address(base + at).value = address(_FAILING[name])
    return None not in entries.values()


def address(name: str) -> int | None:
    """Of a function of the C library."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value


def _entry(library: Path, wanted: str) -> int | None:
    """Where a 64-bit ELF file keeps the address of an imported function."""
    with open(library, "rb") as file:

        def read(at: int, size: int) -> bytes:
            file.seek(at)
            return file.read(size)

        header = read(0, 64)
        if header[:5] != b"\x7fELF\x02":
            return None
        at, (size, count) = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<HH", header, 54)
        segments = [struct.unpack("<IIQQQQQQ", read(at + size * i, 56)) for i in range(count)]
        dynamic = next(segment for segment in segments if segment[0] == _DYNAMIC)
        found = dict(struct.iter_unpack("<QQ", read(dynamic[2], dynamic[5] // 16 * 16)))
        for offset, info, _ in struct.iter_unpack("<QQq", read(found[_JMPREL], found[_PLTRELSZ])):
            name = struct.unpack("<I", read(found[_SYMTAB] + 24 * (info >> 32), 4))[0]
            if read(found[_STRTAB] + name, len(wanted) + 1) == wanted.encode() + b"\0":
                return offset
    return None
