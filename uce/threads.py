"""How many threads torch works with, while other libraries work."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """After the block torch works with as many threads as before.

    numba's first parallel function, such as scanpy has, sets the number of OpenMP's threads for all of the process to
    that of the processors, whatever OMP_NUM_THREADS says. Two processes that share the processors then mostly wait for
    each other's threads, and sums are rounded otherwise than before.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
