"""Keeps freed memory in the process: on the CPU, a training step otherwise spends a quarter of its time on page faults.

The commands that animate use it as well: every frame needs the same large blocks.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_NEVER = -1  # a number of bytes cannot be given: mallopt takes an int, and a step may hold more than 2 GiB


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks instead of giving them back after each step; False where there is no glibc.

    The process keeps its peak memory until it ends, which a training run needs again in the next step anyway.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, 2**28))
    return all(mallopt(name, value) == 1 for name, value in settings)
