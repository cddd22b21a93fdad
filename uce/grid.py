"""A grid of long jobs: a row each, restartable, and shared by as many processes as are started.

rows/NAME.json    what a row is, and what it came to; a row without this file is still to be done
runs/NAME/        where its work keeps its files
"""

import json
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from uce.errors import InputError, StorageError, UceError, UsageError
from uce.files import make_folder, printable, write_json
from uce.locks import lock
from uce.progress import duration_text, say

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"
# A row and the folder it may use to its values.
Work: TypeAlias = "Callable[[Row, Path], Mapping[str, JSON]]"
DONE, FAILED = "done", "failed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes
    ----------
    name
        Unique in the grid, also where upper and lower case are one: letters, digits, '.', '_' and '-'.
    settings
        All that makes the row what it is, for the record. A stored row of other settings is refused.
    """

    name: str
    settings: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            msg = (
                f"row {printable(self.name)!r}: letters, digits, '.', '_' and '-' are needed, a letter or digit first."
            )
            raise UsageError(msg)


def run_rows(
    folder: str | Path,
    rows: Sequence[Row],
    work: Work,
    *,
    keep: bool = True,
    retry: bool = False,
    quiet: bool = False,
) -> None:
    """Do every row that has no result yet and that no other living process is doing.

    Start it in several processes at once to use several cores. A process that was killed leaves its row to the next
    one, which gets the same folder and may go on from what is in it. A row whose work fails is stored as failed, with
    the reason, and the others go on. This returns when nothing is left to take: another process may still be at a row.

    Parameters
    ----------
    folder
        Made where it is missing.
    work
        A row and its own folder, which is there, to the row's values. They must be JSON without NaN.
    keep
        Whether the folder of a row stays when the row is done. That of a failed one always stays.
    retry
        Whether to do failed rows again.

    Raises
    ------
    UsageError
        Two rows have one name, or a stored row of that name has other settings.
    InputError
        A stored row is damaged.
    StorageError
        The folder cannot be written.
    KeyboardInterrupt
        It was interrupted. The row at hand has no result; the same call does it again.
    """
    folder = Path(folder)
    _refuse_repeats(rows)
    for name in ("rows", "runs"):
        make_folder(folder / name)
    for row in rows:
        _compare(row, folder)
    if retry:
        _forget_failed(folder, rows)
    begun, there = time.monotonic(), _count(folder, rows)[0]
    taken = True
    while taken:  # again from the first one: a process may have died and left a row behind
        taken = False
        for row in rows:
            record = _attempt(row, folder, work, keep=keep)
            if record is None:
                continue
            taken = True
            stored, failed = _count(folder, rows)
            left = (time.monotonic() - begun) / (stored - there) * (len(rows) - stored) / 3600
            told = record.get("reason") or f"done in {record['seconds']:.0f} seconds"
            broken = f", {failed} failed" if failed else ""
            say(f"{row.name}: {told}. {stored} of {len(rows)} rows{broken}; left: {duration_text(left)}", quiet=quiet)


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a grid that have a result, in the order of their names; none where there is no grid.

    Returns
    -------
    Of each `name`, `settings`, `status` ("done" or "failed") and `seconds`; `values` of one that is done; `reason` of
    one that failed, and the `trace` of an error that no user can cause.

    Raises
    ------
    InputError
        A row is damaged.
    """
    return [_read(path) for path in sorted((Path(folder) / "rows").glob("[!.]*.json"))]


def _refuse_repeats(rows: Sequence[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.name.casefold() in seen:
            msg = f"row {row.name} is there twice. Give every row a name of its own."
            raise UsageError(msg)
        seen.add(row.name.casefold())


def _path(folder: Path, row: Row) -> Path:
    return folder / "rows" / f"{row.name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["name"] == path.stem and {"settings", "status", "seconds"} <= record.keys():
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    msg = f"{path}: not the result of a row, or damaged. Delete it to do the row again."
    raise InputError(msg)


def _compare(row: Row, folder: Path) -> None:
    """Refuse a stored result of other settings."""
    path = _path(folder, row)
    if not path.is_file():
        return
    there, asked = _read(path)["settings"], _plain(row.settings)
    changed = [key for key in {**asked, **there} if there.get(key) != asked.get(key)]
    if changed:
        key = changed[0]
        msg = (
            f"{path}: holds a row with {key} = {printable(str(there.get(key)))}, not "
            f"{printable(str(asked.get(key)))}. Choose another folder, or delete that file to do the row again."
        )
        raise UsageError(msg)


def _plain(values: Mapping[str, JSON]) -> dict[str, Any]:
    """As it will be read again: tuples are lists there."""
    return dict(json.loads(json.dumps(values, allow_nan=False)))


def _count(folder: Path, rows: Sequence[Row]) -> tuple[int, int]:
    """How many have a result, and of how many it is a failure."""
    stored = [_read(path) for row in rows if (path := _path(folder, row)).is_file()]
    return len(stored), sum(record["status"] == FAILED for record in stored)


def _held(row: Row, folder: Path) -> ExitStack | None:
    """The lock of a row, to be closed; None where another living process has it."""
    stack = ExitStack()
    try:
        stack.enter_context(lock(folder / "rows" / f".{row.name}.lock", wait=False))
    except StorageError:
        return None
    return stack


def _forget_failed(folder: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        if (held := _held(row, folder)) is None:
            continue
        with held:
            path = _path(folder, row)
            if path.is_file() and _read(path)["status"] == FAILED:
                path.unlink()


def _attempt(row: Row, folder: Path, work: Work, *, keep: bool) -> dict[str, Any] | None:
    """Do a row unless it is done or another's; returns its record, None where there was nothing to do."""
    path = _path(folder, row)
    if path.is_file() or (held := _held(row, folder)) is None:
        return None
    with held:
        if path.is_file():  # done by another process just before the lock was ours
            return None
        place = make_folder(folder / "runs" / row.name)
        begun = time.monotonic()
        outcome = _outcome(row, place, work)
        record = {"name": row.name, "settings": _plain(row.settings), **outcome, "seconds": time.monotonic() - begun}
        write_json(path, record)
        if not keep and record["status"] == DONE:
            shutil.rmtree(place, ignore_errors=True)
        return record


def _outcome(row: Row, place: Path, work: Work) -> dict[str, Any]:
    try:
        return {"status": DONE, "values": _plain(work(row, place))}
    except UceError as error:
        return {"status": FAILED, "reason": " ".join(str(error).split())}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"status": FAILED, "reason": " ".join(reason.split()), "trace": traceback.format_exc()}
