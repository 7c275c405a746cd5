"""stopping.py: one clean stop for every signal; a second one cannot spoil it."""

from __future__ import annotations

import os
import signal

import pytest

from export3d.cli import main, models
from export3d.stopping import SIGNALS, StoppedBySignal, stop_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_stops_once_and_a_second_one_is_ignored(number: signal.Signals) -> None:
    cleaned = False
    before = signal.getsignal(number)
    with pytest.raises(StoppedBySignal) as stopped, stop_signals():
        try:
            os.kill(os.getpid(), number)
            pytest.fail("not stopped")
        finally:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned and stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_handler_may_note_the_signal_instead() -> None:
    noted: list[str] = []
    with stop_signals(lambda number: noted.append(number.name)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert noted == ["SIGTERM"]


def test_under_nohup_a_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("stop", "code"), [(StoppedBySignal(signal.SIGHUP), 129), (KeyboardInterrupt(), 130)])
def test_a_stop_that_python_wraps_is_still_a_stop(
    stop: KeyboardInterrupt, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of `__set_name__`, while the classes of a library are made: Python 3.11 raises a RuntimeError from it."""

    def wrapped(_: list[str]) -> int:
        raise RuntimeError("Error calling __set_name__") from stop

    monkeypatch.setattr(models, "models_main", wrapped)
    assert main(["models"]) == code
    assert capsys.readouterr().err == "error: Stopped. No unfinished file was left behind.\n"
    monkeypatch.setattr(models, "models_main", lambda _: int("no stop"))
    with pytest.raises(ValueError, match="no stop"):
        main(["models"])
