"""Frames side by side: each worker thread makes whole frames with one thread of PyTorch, while a reader tracks the next ones.

A frame is many small operations, which share out badly among threads; frames share out well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

TOGETHER = 2
"""Frames of a film whose planes are made in one pass: it reads the weights once, and takes an eighth less time."""

READ_AHEAD = 4
"""Driving frames that wait for the workers: two batches."""


def in_order(
    items: Iterable[Item], works: Sequence[Callable[[Item], Result]], ahead: int = 2
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in the order of the items.

    Args:
        items: read in the calling thread, `ahead` items before the workers need them; with one alone they wait for a caller
            who is busy.
        works: one function for each worker thread; they may hold state, no two threads use the same. With one function
            nothing runs beside the caller.

    Raises:
        Whatever `items` or a function raises, after the results of the items before it.
    """
    if len(works) == 1:
        for item in items:
            yield item, works[0](item)
        return
    free: SimpleQueue[Callable[[Item], Result]] = SimpleQueue()
    for work in works:
        free.put(work)

    def run(item: Item) -> Result:
        work = free.get()
        try:
            return work(item)
        finally:
            free.put(work)

    waiting: deque[tuple[Item, Future[Result]]] = deque()
    failed: list[Exception] = []
    with ThreadPoolExecutor(len(works), thread_name_prefix="frame") as pool:
        try:
            for item in _until_failed(items, failed):
                waiting.append((item, pool.submit(run, item)))
                if len(waiting) >= len(works) + ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
    if failed:
        raise failed[0]


def _until_failed(items: Iterable[Item], failed: list[Exception]) -> Iterator[Item]:
    """The items up to an error of theirs, which is put into the list: what was read before it is still handed out."""
    try:
        yield from items
    except Exception as error:
        failed.append(error)


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Lists of so many items, the last one shorter; an error of `items` comes after those that were read before it."""
    some: list[Item] = []
    failed: list[Exception] = []
    for item in _until_failed(items, failed):
        some.append(item)
        if len(some) == count:
            yield some
            some = []
    if some:
        yield some
    if failed:
        raise failed[0]


@contextmanager
def read_ahead(items: Iterable[Item], count: int) -> Iterator[Iterator[Item]]:
    """The items, of which a thread of its own reads so many ahead, from the start of the context on; an error of theirs comes
    in its place."""
    end: Any = object()
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        coming = deque(reader.submit(next, source, end) for _ in range(count))

        def read() -> Iterator[Item]:
            while (item := coming.popleft().result()) is not end:
                coming.append(reader.submit(next, source, end))
                yield item

        try:
            yield read()
        finally:
            for future in coming:
                future.cancel()


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """PyTorch uses so many threads here, and in threads that start meanwhile, until this ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_each(workers: int) -> AbstractContextManager[None]:
    """With several workers, PyTorch uses one thread in each of them until this ends."""
    return nullcontext() if workers == 1 else threads_of(1)


class Worker(Protocol):
    """What makes pictures, and can be had once more for another thread."""

    @property
    def device(self) -> torch.device: ...

    def twin(self) -> Any: ...


Maker = TypeVar("Maker", bound=Worker)


def made_beside(
    animator: Maker,
    items: Iterable[Item],
    picture: Callable[[Item, Maker], np.ndarray],
    workers: int,
    *,
    ahead: Callable[[Sequence[Item], Maker], None] | None = None,
) -> Iterator[tuple[Item, np.ndarray]]:
    """Each item with its picture, in order; made side by side on a CPU, one after the other on an accelerator.

    Args:
        ahead: told `TOGETHER` items before their pictures are made.
    """
    workers = (workers or torch.get_num_threads()) if animator.device.type == "cpu" else 1

    def make(some: Sequence[Item], own: Maker) -> list[np.ndarray]:
        if ahead is not None:
            ahead(some, own)
        return [picture(item, own) for item in some]

    with one_thread_each(workers):
        animators = [animator] if workers == 1 else [animator.twin() for _ in range(workers)]
        lists = batched(items, 1 if ahead is None else TOGETHER)
        for some, images in in_order(lists, [partial(make, own=own) for own in animators]):
            yield from zip(some, images, strict=True)
