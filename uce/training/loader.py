"""Batches made ahead of their use, by threads: zarr, the draws and torch let go of the interpreter while they work.

A batch is a pure function of its number, so the threads hold no state and their number changes nothing.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Made = TypeVar("Made")
_AHEAD = 2  # batches for each thread


def made_ahead(make: Callable[[int], Made], numbers: Iterable[int], *, workers: int) -> Generator[Made, None, None]:
    """`make` of every number, in order; with workers the next ones are being made meanwhile.

    An error of `make` is raised where its batch would have come.
    """
    if not workers:
        yield from map(make, numbers)
        return
    left = iter(numbers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="uce-batches")
    try:
        due: deque[Future[Made]] = deque(pool.submit(make, number) for number in islice(left, _AHEAD * workers))
        while due:
            made = due.popleft().result()
            due.extend(pool.submit(make, number) for number in islice(left, 1))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
