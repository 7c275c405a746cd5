"""When a training run stops before its end: signals, the time that was given, other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from export3d.training.loop.distributed import World

_CHECK_STOP_EVERY = 10  # steps between agreements about stopping when there are several processes


class Signals:
    """The first SIGTERM or SIGINT is remembered; a second one interrupts at once."""

    def __init__(self) -> None:
        self.received: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


@contextmanager
def stop_signals() -> Iterator[Signals]:
    """Catch SIGTERM and SIGINT while the block runs."""
    signals = Signals()
    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, signals)
    except ValueError:  # not the main thread: signals cannot be caught here
        pass
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wants_to_stop(signals: Signals, out_of_time: bool, step: int, world: World) -> str | None:
    """Why to stop after this step, if any process must."""
    reason = signals.received or ("max_minutes" if out_of_time else None)
    if world.size == 1:
        return reason
    if step % _CHECK_STOP_EVERY:
        return None
    return (reason or "another process") if world.any(reason is not None) else None
