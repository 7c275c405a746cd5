"""When a training run stops before its end: signals, the time that was given, other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from export3d.stopping import stop_signals
from export3d.training.loop.distributed import World

_CHECK_STOP_EVERY = 10  # steps between agreements about stopping when there are several processes


class Signals:
    """Remembers the stop signal: the loop ends after its step, with a state."""

    received: str | None = None

    def __call__(self, number: signal.Signals) -> None:
        self.received = number.name


@contextmanager
def noted_signals() -> Iterator[Signals]:
    """Note stop signals while the block runs, instead of ending it."""
    signals = Signals()
    with stop_signals(signals):
        yield signals


def wants_to_stop(signals: Signals, out_of_time: bool, step: int, world: World) -> str | None:
    """Why to stop after this step, if any process must."""
    reason = signals.received or ("max_minutes" if out_of_time else None)
    if world.size == 1:
        return reason
    if step % _CHECK_STOP_EVERY:
        return None
    return (reason or "another process") if world.any(reason is not None) else None
