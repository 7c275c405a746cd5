"""Whether bf16 autocast pays on this machine: measured once, since some processors emulate it very slowly."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIDE = 384
_REPEATS = 3
_WORTH = 1.2  # bf16 must be at least this much faster to be chosen


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Turn `auto`, `bf16` or `fp32` into a yes or no for this device."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _matmul_seconds(torch.float32) > _WORTH * _matmul_seconds(torch.bfloat16)


@cache
def _matmul_seconds(dtype: torch.dtype) -> float:
    """By one thread's own time: with several, other work on the machine decided now and then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, best = torch.ones(_SIDE, _SIDE, dtype=dtype), float("inf")
    torch.mm(a, a)
    for _ in range(_REPEATS):
        start = time.thread_time()
        torch.mm(a, a)
        best = min(best, time.thread_time() - start)
    torch.set_num_threads(threads)
    return best
