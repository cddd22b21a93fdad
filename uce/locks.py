"""One process at a time: a lock file that names its owner, and is taken over when the owner has died."""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uce.errors import StorageError

_POLL_SECONDS = 0.2
_EMPTY_SECONDS = 10.0  # a lock file without content for longer than this was left by a crash between its two writes

logger = logging.getLogger("uce")


@contextmanager
def lock(path: str | Path, *, wait: bool = True, elsewhere: bool = True) -> Iterator[None]:
    """Hold the lock file `path` for the block; wait while another living process holds it.

    The file holds the owner's host and process id. The lock of a dead process of this host is taken over; one
    of another host is waited for, and a line says which file to delete if that host has crashed.

    Parameters
    ----------
    elsewhere
        Whether the lock of another host counts. False where a scheduler starts a job again on another host when the
        first one has died: then only a second start on one host is noticed.

    Raises
    ------
    StorageError
        Another process holds it and `wait` is false.
    """
    path = Path(path)
    told = False
    while not _created(path):
        owner = _owner(path)
        if _abandoned(path, owner, elsewhere):
            _remove_abandoned(path, elsewhere)
            continue
        if not wait:
            msg = f"{path}: {owner} is writing there. Wait for it, or delete this file if it no longer runs."
            raise StorageError(msg)
        if not told:
            logger.warning("Waiting for %s, which holds %s. If it no longer runs, delete that file.", owner, path)
            told = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _guard(path).unlink(missing_ok=True)


def _created(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, stream)
    return True


def _owner(path: Path) -> str:
    """The owner as `process 12 on HOST`, empty where the file is gone or has no content yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _abandoned(path: Path, owner: str, elsewhere: bool = True) -> bool:
    if not owner:
        try:
            return time.time() - path.stat().st_mtime > _EMPTY_SECONDS
        except OSError:
            return False
    pid, host = int(owner.split()[1]), owner.split(" on ", 1)[1]
    return not _runs(pid) if host == socket.gethostname() else not elsewhere


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _guard(path: Path) -> Path:
    return path.with_name(path.name + ".guard")


def _remove_abandoned(path: Path, elsewhere: bool) -> None:
    """Remove the lock unless somebody else did and a new owner holds it: of several who see a dead owner, one acts."""
    with _guard(path).open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if _abandoned(path, _owner(path), elsewhere):
            path.unlink(missing_ok=True)
