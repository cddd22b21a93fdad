"""Datasets side by side: one task each, in this process or in several that are started afresh."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

from uce.errors import StorageError, UceError
from uce.progress import Progress


def run_tasks(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], *, workers: int, what: str, quiet: bool
) -> list[str]:
    """Call `function(*task)` for every task.

    Returns
    -------
    The error of each task in one line, "" where there was none.

    Raises
    ------
    StorageError
        The disk is full or cannot be written: the other tasks would fare no better. Or a worker was killed.
    """
    with Progress(what, len(tasks), unit="datasets", quiet=quiet) as progress:
        if workers == 1 or len(tasks) < 2:
            errors = []
            for task in tasks:
                errors.append(_attempt(function, task))
                progress.advance(1)
            return errors
        return _in_processes(function, tasks, min(workers, len(tasks)), progress)


def _in_processes(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], workers: int, progress: Progress
) -> list[str]:
    # Started afresh: a fork of a process with threads may hang, and HDF5 keeps state.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    errors = [""] * len(tasks)
    try:
        places = {pool.submit(_attempt, function, task): place for place, task in enumerate(tasks)}
        for done in as_completed(places):
            errors[places[done]] = done.result()
            progress.advance(1)
    except BrokenProcessPool as error:
        msg = "a worker was killed, perhaps for lack of memory. Give the command again, with fewer --workers."
        raise StorageError(msg) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return errors


def _end_with_parent() -> None:
    """A worker must not go on writing once its parent was killed: the next build would meet it."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _attempt(function: Callable[..., None], task: tuple[Any, ...]) -> str:
    try:
        function(*task)
    except StorageError:
        raise
    except UceError as error:
        return str(error)
    except OSError as error:
        # Whatever reads a source has turned its own errors into InputError.
        msg = f"the corpus cannot be written ({error.strerror or error}). Free some space, then give the command again."
        raise StorageError(msg) from error
    return ""
