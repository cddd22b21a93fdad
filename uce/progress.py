"""Words for people: sizes and times, and on stderr a progress bar with rate and time left, where it was asked for."""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


def say(text: object, *, quiet: bool = False) -> None:
    """Print a line for people on stderr; stdout belongs to results."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


class Progress:
    """A bar with rate and time left; on a terminal it moves, in a log file it writes a line every half minute.

    Parameters
    ----------
    initial
        Units that were done before, which the rate leaves out.
    scaled
        Write large numbers as 12.3k and 4.56M.
    """

    def __init__(
        self, what: str, total: int, *, unit: str, quiet: bool = False, initial: int = 0, scaled: bool = False
    ) -> None:
        every = 0.2 if sys.stderr.isatty() else 30.0
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=initial,
            desc=what,
            unit=f" {unit}",
            unit_scale=scaled,
            disable=quiet or not total,
            file=sys.stderr,
            mininterval=every,
            maxinterval=every * 2,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self._bar.update(count)

    def note(self, text: str) -> None:
        """Write `text` behind the bar from its next line on."""
        self._bar.set_postfix_str(text, refresh=False)


def size_text(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6)):,} MB"


def duration_text(hours: float) -> str:
    """A long time as a person reads it."""
    if hours >= 48:
        return f"{hours:,.0f} hours ({hours / 24:,.0f} days)"
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 1.5 else "a minute at most"
