"""Frames side by side: each worker thread makes whole frames with one thread of PyTorch, while the next ones are tracked.

A frame is many small operations, which share out badly among threads; frames share out well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    items: Iterable[Item], works: Sequence[Callable[[Item], Result]], ahead: int = 1
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in the order of the items.

    Args:
        items: read in the calling thread, `ahead` items before the workers need them.
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
    with ThreadPoolExecutor(len(works), thread_name_prefix="frame") as pool:
        source = iter(items)
        failed: Exception | None = None
        try:
            while True:
                try:
                    item = next(source)
                except StopIteration:
                    break
                except Exception as error:  # what was read before it is still handed out
                    failed = error
                    break
                waiting.append((item, pool.submit(run, item)))
                if len(waiting) >= len(works) + ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
            if failed is not None:
                raise failed
        finally:
            for _, future in waiting:
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
