"""The blocks of a file computed by Ray Data: for nodes that are uneven, or come and go.

An actor opens the source by itself and writes finished blocks to the folder that all nodes see; through Ray go the
numbers of blocks alone. A block whose actor died is given to another one, and done twice it has the same bytes.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from uce import errors
from uce.cells.parts import Parts, block_ranges
from uce.errors import StorageError, UceError, UsageError
from uce.files import printable, user_folder
from uce.jobs import Job, Request, fill, plan_of
from uce.progress import Progress, say

START_SECONDS = 300.0  # for the first actor to get room
STILL_SECONDS = 3600.0  # without one finished group of blocks
_GROUP = 16  # blocks that an actor takes at once, so that it reads ahead


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process speaks to.

    Attributes
    ----------
    actors
        How many compute at once, at most.
    device
        "cuda", with one processor an actor, or "cpu", with one core and one thread an actor.
    """

    actors: int
    device: str


@contextmanager
def connect(actors: int | None, device: str) -> Iterator[Cluster]:
    """The cluster of `RAY_ADDRESS`, or one running on this machine, or else a new one of all its cores.

    Parameters
    ----------
    actors
        None takes one per graphics processor, or one per core but one, which is left for Ray's own tasks.
    device
        `auto` takes the graphics processors if the cluster has any.

    Raises
    ------
    UsageError
        Ray is not installed, or the cluster has no such device.
    StorageError
        The cluster cannot be reached.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # a thread of Ray prints what befalls its actors; stdout belongs to results
        if ours:
            _start(ray)
        try:
            yield _cluster(ray.cluster_resources(), actors, device)
        finally:
            if ours:
                ray.shutdown()


def _cluster(resources: dict[str, float], actors: int | None, device: str) -> Cluster:
    cores, graphics = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not graphics):
        msg = f"--device {device}: the Ray cluster offers none. Use --device cpu, or auto to take what is there."
        raise UsageError(msg)
    kind = "cuda" if graphics and device != "cpu" else "cpu"
    return Cluster(actors or max(1, graphics if kind == "cuda" else cores - 1), kind)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its words are for those who write it
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        msg = "--engine ray: needs Ray Data. Install it with: pip install 'uce[ray]'"
        raise UsageError(msg) from error
    return ray


def _start(ray: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = printable(str(error), limit=200)
        msg = f"--engine ray: no cluster ({reason}). Start one, or set RAY_ADDRESS=local for one of this command's own."
        raise StorageError(msg) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would end the process without a word


class Worker:
    """An actor: opens the job when its first blocks come, and keeps it open."""

    def __init__(self, request: Request, folder: str, home: str) -> None:
        os.environ["UCE_HOME"] = home
        self._request, self._parts = request, Parts(folder)
        self._stack = ExitStack()

    @cached_property
    def _job(self) -> Job:
        import torch

        torch.set_num_threads(1)  # with another number of threads sums round otherwise
        job = self._stack.enter_context(self._request.open())
        self._parts.join(plan_of(job))
        return job

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the blocks whose numbers are in the column `block`; an error of ours is told in two more columns."""
        kind = words = ""
        try:
            fill(self._job, self._parts, batch["block"].tolist())
        except UceError as error:  # Ray would hand on no more than the text of its traceback
            kind, words = type(error).__name__, str(error)
        rows = len(batch["block"])
        return {**batch, "kind": np.array([kind] * rows), "error": np.array([words] * rows)}


def compute(
    cluster: Cluster, request: Request, job: Job, parts: Parts, numbers: Iterable[int], *, quiet: bool = False
) -> None:
    """Compute those of the blocks `numbers` that are not finished, on the cluster.

    Raises
    ------
    StorageError
        The cluster had no room for an actor, or finished nothing for an hour, or an actor failed for another reason.
    UceError
        As an actor met it: such as a cell without a usable count.
    """
    if not (missing := parts.missing(numbers)):
        return
    import ray.data
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    stalled = getattr(ray.data.exceptions, "ExecutionTimeoutError", TimeoutError)  # older versions have none
    every = block_ranges(job.counts.n_cells)
    cells = sum(every[number][1] - every[number][0] for number in missing)
    say(f"ray: up to {cluster.actors} actors on {cluster.device}", quiet=quiet)
    try:
        with Progress("embedding", cells, unit="cells", quiet=quiet) as progress:
            for row in _dataset(ray.data, cluster, request, parts, missing).iter_rows():
                if row["kind"]:
                    raise getattr(errors, row["kind"])(row["error"])
                start, stop = every[int(row["block"])]
                progress.advance(stop - start)
    except GetTimeoutError as error:
        msg = (
            f"--engine ray: the cluster had no room for an actor ({_wanted(cluster)}) within {START_SECONDS:.0f} s. "
            "Wait for other work on it, or add nodes, and run again: finished blocks are kept."
        )
        raise StorageError(msg) from error
    except RayTaskError:  # a fault in the work itself, with its traceback
        raise
    except (RayError, stalled) as error:
        last = printable(str(error).strip().split("\n")[0] or type(error).__name__, limit=200)
        msg = f"--engine ray: the cluster failed ({last}). Run again: finished blocks are kept."
        raise StorageError(msg) from error


def _wanted(cluster: Cluster) -> str:
    return "a core and a graphics processor" if cluster.device == "cuda" else "one core"


def _dataset(data: Any, cluster: Cluster, request: Request, parts: Parts, missing: list[int]) -> Any:
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = START_SECONDS
    context.execution_no_progress_timeout_s = STILL_SECONDS
    group = min(_GROUP, max(1, len(missing) // (4 * cluster.actors)))
    items = data.from_items([{"block": number} for number in missing], override_num_blocks=-(-len(missing) // group))
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that are raised as well
    return items.map_batches(
        Worker,
        batch_size=None,
        fn_constructor_args=(_portable(request, cluster), str(parts.folder.resolve()), str(user_folder().resolve())),
        compute=data.ActorPoolStrategy(min_size=1, max_size=cluster.actors),
        num_cpus=1,
        num_gpus=1 if cluster.device == "cuda" else 0,
    )


def _portable(request: Request, cluster: Cluster) -> Request:
    """`request` with paths that hold in any folder, on the device of the actors."""
    import torch

    model = request.model
    if isinstance(model, str | Path) and Path(model).exists():
        model = Path(model).resolve()
    settings = replace(request.settings, device=torch.device(cluster.device))
    return replace(request, source=request.source.resolve(), model=model, settings=settings)
