"""How quickly a run goes: cells, tokens, padding, waiting for batches, and the share of what the devices could do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Throughput:
    """What was done since the last line of the log, over all processes.

    Attributes
    ----------
    flops_per_token
        Floating-point operations of training for each token that is no padding.
    peak
        Of all devices together, in operations a second; None where it is not known.
    """

    flops_per_token: float
    peak: float | None
    cells: int = 0
    tokens: float = 0.0
    places: float = 0.0  # of tokens and padding
    waited: float = 0.0  # seconds of this process without a batch
    since: float = field(default_factory=time.perf_counter)

    def add(self, *, cells: int, tokens: float, places: float, waited: float) -> None:
        """Count one update."""
        self.cells += cells
        self.tokens += tokens
        self.places += places
        self.waited += waited

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.since += time.perf_counter() - began

    def line(self) -> dict[str, Any]:
        """Rates since the last call."""
        now = time.perf_counter()
        seconds = max(now - self.since, 1e-9)
        rates = {
            "cells_per_second": round(self.cells / seconds, 1),
            "tokens_per_second": round(self.tokens / seconds),
            "padding": round(1 - self.tokens / max(self.places, 1.0), 4),
            "waiting": round(self.waited / seconds, 4),
        }
        if self.peak:
            rates["mfu"] = round(self.tokens / seconds * self.flops_per_token / self.peak, 4)
        self.cells, self.tokens, self.places, self.waited, self.since = 0, 0.0, 0.0, 0.0, now
        return rates
