"""One way to stop: the first SIGINT, SIGTERM or SIGHUP ends the work cleanly, a second one cannot spoil that."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Handler = Callable[[signal.Signals], None]


class StoppedBySignal(KeyboardInterrupt):
    """A signal asked to stop. What is open is closed and removed on its way up, as after Ctrl-C."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells count."""
        return 128 + self.number


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The stop that an error was made of, or None: what happens while a class is being made, Python gives another name."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause


def raise_stopped(number: signal.Signals) -> None:
    """The handler of all work that is begun anew by the next run."""
    raise StoppedBySignal(number)


@contextmanager
def stop_signals(handle: Handler = raise_stopped) -> Iterator[None]:
    """Give the first stop signal to `handle`; later ones are ignored. SIGHUP stays ignored under nohup.

    Outside the main thread nothing is changed: signals cannot be caught there.
    """
    came = False

    def first_only(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not came:
            came = True
            handle(signal.Signals(number))

    previous: dict[int, object] = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                previous[number] = signal.signal(number, first_only)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def obey_parent_only() -> None:
    """For worker processes: a Ctrl-C reaches them too, but their parent ends them, or they end with it when it is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in SIGNALS:
        if number != signal.SIGTERM:  # with which the parent does it
            signal.signal(number, signal.SIG_IGN)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
