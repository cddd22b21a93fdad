"""Updates that would spoil a run: which are left out, which look wrong, and the record of the cells they showed."""

import json
import math
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.errors import StorageError, UsageError
from uce.files import atomic_path

SUSPECTS = "suspects.jsonl"
_MEMORY, _FEWEST = 100, 20  # norms that are remembered, and that are needed before one can be called a spike
_MOST_LEFT_OUT = 3  # in a row

Verdict = Literal["sound", "spike", "left out"]


class Guard:
    """Judges updates by their loss and gradient norm.

    What it remembers need not be saved. Whether an update is left out depends on that update alone; the norms before it
    only decide what is reported, and the count of updates left out in a row only when a hopeless run ends.

    Parameters
    ----------
    factor
        A norm that is so many times the median of the last 100 is a spike. It is reported; clipping shortens it.
    """

    def __init__(self, *, factor: float = 10.0) -> None:
        self.factor = factor
        self._norms: deque[float] = deque(maxlen=_MEMORY)
        self._left_out = 0

    def judge(self, loss: float, norm: float) -> Verdict:
        """What to do with an update. Loss and norm must be those of all processes, so that all of them agree.

        Parameters
        ----------
        loss
            Of the update.
        norm
            Length of its gradient before clipping.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._left_out += 1
            return "left out"
        self._left_out = 0
        spike = len(self._norms) >= _FEWEST and norm > self.factor * median(self._norms)
        self._norms.append(norm)
        return "spike" if spike else "sound"

    def check(self, step: int, datasets: Iterable[str], rate: float) -> None:
        """End a run that does not recover. To be called when the cells of the update are recorded.

        Parameters
        ----------
        step
            Number of the update, from 1 as in the log.
        datasets
            Whose cells it showed.
        rate
            Its learning rate.

        Raises
        ------
        UsageError
            The last three updates were left out.
        """
        if self._left_out >= _MOST_LEFT_OUT:
            msg = (
                f"step {step} ({', '.join(datasets)}): loss or gradient not finite, {self._left_out} updates in a row. "
                f"Lower optimizer.lr ({rate:.3g} here), or look at the cells named in {SUSPECTS}."
            )
            raise UsageError(msg)


def suspect_record(
    dataset: str, rows: NDArray[np.int64], *, step: int, part: int, why: str, loss: float, norm: float
) -> dict[str, Any]:
    """What names the cells of a part of an update: dataset and rows of its store, as values of JSON.

    Parameters
    ----------
    dataset, rows
        Of the cells of the part, those of all processes.
    step
        Number of the update, from 1 as in the log.
    part
        Number of the part among all parts of the run, from 0.
    why
        What is wrong with it.
    loss, norm
        Of the whole update; text ("nan", "inf") where JSON has no number for them.
    """
    numbers = {"loss": loss, "norm": norm}
    return {
        "step": step,
        "part": part,
        "dataset": dataset,
        "rows": rows.tolist(),
        "why": why,
        **{name: value if math.isfinite(value) else str(value) for name, value in numbers.items()},
    }


def cut_suspects(run: Path, step: int) -> None:
    """Take back the lines of updates after the first `step`, which will be done again."""
    if not (run / SUSPECTS).is_file():
        return
    kept = [line for line in (run / SUSPECTS).read_text(encoding="utf-8").splitlines() if _step(line) <= step]
    with atomic_path(run / SUSPECTS) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut by a crash


def write_suspects(run: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append lines to `suspects.jsonl` of a run.

    Raises
    ------
    StorageError
        The disk is full, or the like.
    """
    try:
        with (run / SUSPECTS).open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
    except OSError as error:
        msg = f"{run / SUSPECTS}: cannot be written ({error.strerror}). Free some space, and give the command again."
        raise StorageError(msg) from error
