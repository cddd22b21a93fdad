"""Finished blocks of cells on disk: what makes a run resumable, and what ranks share instead of messages.

A folder `<output>.parts/` holds `plan.json` (everything that decides the numbers) and one `000000.npz` per block. A
block that is there is complete (it is written aside and renamed) and is never computed again. Any number of processes,
on any machines that see the folder, may write blocks into it at once.
"""

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from uce.errors import ModelError, StorageError, UsageError
from uce.files import atomic_path, write_json

BLOCK_CELLS = 1024


@dataclass(frozen=True)
class Block:
    """The results of one block of cells, in row order.

    Attributes
    ----------
    vectors
        (cells, dim) float32 unit rows, NaN where a cell has no resolved count.
    genes
        (cells,) int64, genes of the table with a count.
    total, covered
        (cells,) float64, counts of the cell in all, and on genes of the table.
    left_out
        (cells,) int64, draws left out because whole chromosomes did not fit the sentence.
    """

    vectors: npt.NDArray[np.float32]
    genes: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    covered: npt.NDArray[np.float64]
    left_out: npt.NDArray[np.int64]


def block_ranges(n_cells: int) -> list[tuple[int, int]]:
    """Row ranges [start, stop) of the blocks of `n_cells` cells. The size is fixed: resuming depends on it."""
    return [(start, min(start + BLOCK_CELLS, n_cells)) for start in range(0, n_cells, BLOCK_CELLS)]


class Parts:
    """The folder of finished blocks of one run."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def begin(self, plan: dict[str, Any]) -> int:
        """Create the folder, or continue in it if its plan is the same; returns the number of blocks already there.

        Of several processes that begin at the same time, one decides the plan and the others are compared with it.

        Raises
        ------
        UsageError
            The folder belongs to a run with another plan; the message names what differs.
        """
        plan = json.loads(json.dumps(plan))
        if not self.begun():
            self._create(plan)
        self._compare(plan)
        return sum(1 for _ in self.folder.glob("[0-9]*.npz"))

    def begun(self) -> bool:
        """Whether the folder is there with its plan; it is no longer once the result is complete."""
        return (self.folder / "plan.json").exists()

    def _create(self, plan: dict[str, Any]) -> None:
        """Let the folder appear together with its plan. Renaming a folder is atomic, and never replaces a full one."""
        aside = self.folder.with_name(f".{self.folder.name}.tmp-{uuid4().hex}")
        aside.mkdir()
        try:
            write_json(aside / "plan.json", plan)
            with suppress(OSError):  # somebody was first, or something else is in the way: comparing plans will tell
                aside.rename(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def join(self, plan: dict[str, Any], *, done: Callable[[], bool] = lambda: False, seconds: float = 300.0) -> bool:
        """Wait until rank 0 has begun the same plan; false if it has finished before (`done()`), so nothing is left.

        Raises
        ------
        StorageError
            It has not begun within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not self.begun():
            if done():
                return False
            if time.monotonic() > deadline:
                msg = f"{self.folder}: rank 0 has not begun within {seconds:.0f} s. Do all ranks see this folder?"
                raise StorageError(msg)
            time.sleep(0.05)
        self._compare(json.loads(json.dumps(plan)))
        return True

    def _compare(self, plan: dict[str, Any]) -> None:
        try:
            old = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{self.folder / 'plan.json'}: not JSON. Delete {self.folder} to start anew."
            raise UsageError(msg) from error
        except OSError as error:
            msg = f"{self.folder}: is there without a plan.json, so it is no unfinished run. Move it away first."
            raise UsageError(msg) from error
        differing = [name for name in sorted({*old, *plan}) if old.get(name) != plan.get(name)]
        if differing:
            name = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            msg = (
                f"{self.folder}: holds an unfinished run with {name} {old.get(name)!r}, now {plan.get(name)!r}{more}. "
                f"Repeat the old command to finish it, or pass --no-resume to drop it."
            )
            raise UsageError(msg)

    def has(self, number: int) -> bool:
        """Whether block `number` is finished."""
        return self._path(number).exists()

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Those of the blocks `numbers` that are not finished."""
        return [number for number in numbers if not self.has(number)]

    def write(self, number: int, block: Block) -> None:
        """Store a finished block, all or nothing."""
        with atomic_path(self._path(number)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **{f.name: getattr(block, f.name) for f in fields(block)})

    def read(self, number: int) -> Block:
        """A finished block.

        Raises
        ------
        ModelError
            The file is damaged.
        """
        try:
            with self._path(number).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return Block(**{f.name: stored[f.name] for f in fields(Block)})
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            msg = f"{self._path(number)}: damaged. Delete this file and run again; the other blocks are kept."
            raise ModelError(msg) from error

    def blocks(self, count: int) -> Iterator[Block]:
        """Blocks 0 .. count - 1 in order."""
        return (self.read(number) for number in range(count))

    def wait(self, count: int, *, patience: float = 3600.0) -> None:
        """Wait until blocks 0 .. count - 1 are there, as long as one arrives every `patience` seconds.

        Raises
        ------
        StorageError
            Naming the blocks that are missing.
        """
        missing, last = list(range(count)), time.monotonic()
        while missing:
            before = len(missing)
            missing = self.missing(missing)
            if len(missing) < before:
                last = time.monotonic()
            elif time.monotonic() - last > patience:
                msg = f"{self.folder}: block {missing[0]} and {len(missing) - 1} more did not arrive. Run again."
                raise StorageError(msg)
            else:
                time.sleep(0.05)

    def remove(self) -> None:
        """Delete the folder: only files of the names written here, so that nothing of the user's can be lost."""
        if not self.folder.is_dir():
            return
        for path in [*self.folder.glob("[0-9]*.npz"), *self.folder.glob(".*.tmp-*"), self.folder / "plan.json"]:
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
