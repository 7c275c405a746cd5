"""Loads the next batches in one background thread; the order is fixed, so the thread changes no result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Gives `load(first)`, `load(first + 1)`, ... `load(last - 1)` in order.

    Args:
        load: a pure function of the step.
        depth: how many batches are loaded ahead; 0 loads in the calling thread.
        pin: put them into memory that a GPU can fetch from while it calculates.
    """

    def __init__(self, load: Callable[[int], T], first: int, last: int, depth: int = 2, *, pin: bool = False) -> None:
        self._load = (lambda step: pinned(load(step))) if pin else load
        self._next = first
        self._last = last
        self._waiting: deque[Future[T]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="export3d-batches") if depth > 0 else None
        for _ in range(depth):
            self._submit()

    def next(self) -> T:
        """The next batch; an error of `load` is raised here."""
        if self._pool is None:
            batch = self._load(self._next)
            self._next += 1
            return batch
        batch = self._waiting.popleft().result()
        self._submit()
        return batch

    def close(self) -> None:
        """Stop the thread; batches that were not asked for are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _submit(self) -> None:
        if self._pool is not None and self._next < self._last:
            self._waiting.append(self._pool.submit(self._load, self._next))
            self._next += 1


def pinned(value: Any) -> Any:
    """A tensor, or a dataclass of tensors, in page-locked memory; anything else as it is."""
    if isinstance(value, Tensor):
        return value.pin_memory()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: pinned(getattr(value, field.name)) for field in fields(value)})
    return value
