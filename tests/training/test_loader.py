"""Batches made ahead come in order, errors where their batch would have come, and no thread is left behind."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from uce.errors import InputError
from uce.training.loader import made_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("uce-batches")]


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_batches_come_in_order_however_long_each_takes(workers: int) -> None:
    later = threading.Event()

    def make(number: int) -> int:
        if number == 0 and workers > 1:
            later.wait(10)  # the second batch is ready before the first
        later.set()
        return number * number

    assert list(made_ahead(make, range(3, 3), workers=workers)) == []
    assert list(made_ahead(make, range(40), workers=workers)) == [number * number for number in range(40)]
    assert not threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_raised_where_its_batch_would_have_come(workers: int) -> None:
    def make(number: int) -> int:
        if number == 4:
            raise InputError("batch 4 is damaged")
        return number

    batches = made_ahead(make, range(10), workers=workers)
    assert [next(batches) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="batch 4 is damaged"):
        next(batches)
    assert not threads()


def test_a_loader_that_is_closed_early_leaves_no_thread() -> None:
    made: list[int] = []
    with closing(made_ahead(lambda number: made.append(number) or number, range(10**9), workers=2)) as batches:
        assert next(batches) == 0
        assert threads()
    assert not threads()
    assert len(made) <= 5


@pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (1, 2), (3, 6)])
def test_no_more_is_made_ahead_than_two_for_each_thread(workers: int, ahead: int) -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    with closing(made_ahead(lambda number: number, numbers(), workers=workers)) as batches:
        for taken in range(1, 20):
            next(batches)
            assert len(asked) == taken + ahead
