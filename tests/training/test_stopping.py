"""Signals are noted while a run saves, and mean what they did before and after it."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from uce.training.stopping import Stopping

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {name: signal.getsignal(getattr(signal, name)) for name in NAMES}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def _send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_noted_and_the_handler_of_before_comes_back(name: str) -> None:
    came = []
    signal.signal(getattr(signal, name), lambda number, _: came.append(number))
    with Stopping() as stopping:
        assert stopping.requested is None
        _send(name)
        assert stopping.requested == name
        assert came == []
    _send(name)
    assert came == [getattr(signal, name)]
    assert stopping.requested == name


def test_the_first_signal_is_the_reason_and_only_a_second_ctrl_c_is_not_waited_for() -> None:
    with Stopping() as stopping:
        for name in ("SIGUSR1", "SIGTERM", "SIGTERM", "SIGINT"):
            _send(name)
        assert stopping.requested == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            _send("SIGINT")


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]

    def fail() -> None:
        with Stopping():
            assert [signal.getsignal(getattr(signal, name)) for name in NAMES] != before
            raise ValueError("of the run")

    with pytest.raises(ValueError, match="of the run"):
        fail()
    assert [signal.getsignal(getattr(signal, name)) for name in NAMES] == before


def test_in_another_thread_it_does_nothing() -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    seen = []

    def enter() -> None:
        with Stopping() as stopping:
            seen.append((stopping.requested, [signal.getsignal(getattr(signal, name)) for name in NAMES]))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
