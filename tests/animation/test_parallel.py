"""animation/parallel.py: frames made side by side come out in order, and errors and threads are put right."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from export3d.animation.parallel import batched, in_order, one_thread_each, read_ahead


def test_results_come_in_the_order_of_the_items_even_if_later_ones_are_ready_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 2 == 0 else 0.0)
        return item * item

    assert list(in_order(range(9), [work, work, work])) == [(i, i * i) for i in range(9)]


def test_two_workers_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=5.0)  # breaks, and the test fails, if no second worker comes
    assert len(list(in_order(range(4), [lambda _: both.wait()] * 2))) == 4


def test_no_function_is_used_by_two_threads_at_once() -> None:
    busy = [threading.Lock(), threading.Lock()]

    def hold(lock: threading.Lock) -> bool:
        free = lock.acquire(blocking=False)
        time.sleep(0.005)
        if free:
            lock.release()
        return free

    works = [lambda _: hold(busy[0]), lambda _: hold(busy[1])]
    assert all(free for _, free in in_order(range(20), works))


def test_only_a_few_items_are_read_before_they_are_needed() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            read.append(i)
            yield i

    for count, (item, _) in enumerate(in_order(items(), [lambda i: i] * 2, ahead=1), start=1):
        assert item == count - 1 and len(read) <= count + 2


def test_a_reader_starts_before_it_is_asked_and_stays_a_few_items_ahead() -> None:
    read: list[int] = []
    started = threading.Event()

    def items() -> Iterator[int]:
        for i in range(50):
            read.append(i)
            started.set()
            yield i

    with read_ahead(items(), 3) as frames:
        assert started.wait(5.0)
        for count, item in enumerate(frames):
            assert item == count and len(read) <= count + 5  # this one, three ahead, and one being read
            if count == 9:
                break
    stopped = len(read)
    time.sleep(0.02)
    assert len(read) == stopped < 20


def test_an_error_of_what_is_read_ahead_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("the fourth cannot be read")

    got: list[int] = []
    with pytest.raises(ValueError, match="the fourth"), read_ahead(items(), 2) as frames:
        for item in frames:
            got.append(item)
    assert got == [0, 1, 2]
    with read_ahead(range(5), 8) as numbers:
        assert list(numbers) == [0, 1, 2, 3, 4]


def test_lists_of_items_are_full_but_for_the_last_one() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]] and list(batched([], 2)) == []


def test_an_error_comes_after_the_items_before_it_though_their_list_is_not_full() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no more")

    seen: list[list[int]] = []
    with pytest.raises(ValueError, match="no more"):
        for some in batched(items(), 2):
            seen.append(some)
    assert seen == [[0, 1], [2]]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_items_comes_after_the_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no more")

    seen: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        for item, _ in in_order(items(), [lambda i: i] * workers):
            seen.append(item)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_reaches_the_caller_and_stops_the_rest(workers: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise RuntimeError("frame 2")
        done.append(item)

    with pytest.raises(RuntimeError, match="frame 2"):
        list(in_order(range(100), [work] * workers))
    assert len(done) < 10


def test_pytorch_gets_its_threads_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    inside: list[int] = []
    with pytest.raises(KeyError), one_thread_each(2):
        worker = threading.Thread(target=lambda: inside.append(torch.get_num_threads()))
        worker.start()
        worker.join()
        raise KeyError
    with one_thread_each(1):
        assert torch.get_num_threads() == before
    assert inside == [1] and torch.get_num_threads() == before
