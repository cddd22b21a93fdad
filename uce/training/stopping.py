"""Signals that ask a run to end: it saves first."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

# What a terminal, a scheduler that ends a job, and one that is about to (SIGUSR1, where the system has it) send.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Stopping:
    """While it is entered, a signal that asks for the end is only noted; a second Ctrl-C ends the run at once.

    Python runs handlers in the main thread alone; entered in another one, this notes nothing and changes nothing.

    Attributes
    ----------
    requested
        Name of the first signal that came, such as "SIGTERM". None: none did.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: it was not set from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = self.requested or signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
