"""Counts of any source as a stream of row blocks: find the matrix that holds them, and prove it on every block."""

import hashlib
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from uce.cells.anndata_slots import loaded_source, stored_source
from uce.cells.choice import Choice, choose
from uce.cells.container import container_of, layout_of, open_store
from uce.cells.count_test import all_whole, canonical, fractional
from uce.cells.gene_columns import keep_genes
from uce.cells.layouts import Rows
from uce.cells.log_counts import undo_log
from uce.cells.slots import Source
from uce.cells.stores import reading
from uce.cells.tenx import folder_source, legacy_source, tenx_source
from uce.errors import InputError, UsageError
from uce.files import nearest, printable

if TYPE_CHECKING:
    from anndata import AnnData

Policy = Literal["strict", "round", "invert", "as-is"]
MISSING = "unknown"


@dataclass
class Counts:
    """An opened source of counts; a context manager.

    Attributes
    ----------
    file : path or "AnnData object", for messages.
    n_cells : number of rows, empty cells included.
    var : one row per column of the blocks; index = names as found, text columns kept.
    slot : where the counts are: "X", "raw", "layers/counts", "matrix".
    notes : in plain words, what was found, undone, dropped or is doubtful.
    organism : as the file states it, None if it does not.
    kind : "h5ad", "zarr", "zarr-zip", "AnnData", "10x-h5" or "10x-folder".
    repairs : entries mended so far: "duplicates" summed, "zeros" dropped.
    """

    file: str
    n_cells: int
    var: pd.DataFrame
    slot: str
    notes: list[str]
    organism: str | None
    kind: str
    _source: Source = field(repr=False)
    _rows: Rows = field(repr=False)
    _choice: Choice = field(repr=False)
    _opened: tuple[int, ...] = ()
    repairs: Counter[str] = field(default_factory=Counter)

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Counts of cells `start` to `stop`.

        Returns
        -------
        CSR (stop - start, len(var)), float64, whole and above zero (not whole under policy "as-is"), indices sorted
        and unique.

        Raises
        ------
        InputError
            A value of these rows is no count, or they cannot be read; the message names the rows.
        """
        stop = min(stop, self.n_cells)
        block, zeros, duplicates = canonical(self._rows.block(start, stop))
        self.repairs.update(zeros=zeros, duplicates=duplicates)
        self._refuse_values(block, start, stop)
        if self._choice.treatment == "undo":
            return self._undo(block, start, stop)
        return block if self._choice.treatment == "as-is" else self._whole(block, start, stop)

    def _whole(self, block: sparse.csr_matrix, start: int, stop: int) -> sparse.csr_matrix:
        if all_whole(block.data):
            return block
        if self._choice.treatment == "whole" and (broken := fractional(block.data)).any():
            self._refuse(block, int(np.argmax(broken)), start, stop, "is not whole")
        block.data = np.rint(block.data)
        return canonical(block)[0]

    def _refuse_values(self, block: sparse.csr_matrix, start: int, stop: int) -> None:
        # min and max see every NaN and infinity at a fraction of the cost of a mask.
        if not block.nnz or (block.data.min() >= 0 and block.data.max() < np.inf):
            return
        wrong = ~np.isfinite(block.data)
        words = "is missing or infinite" if wrong.any() else "is negative"
        self._refuse(block, int(np.argmax(wrong if wrong.any() else block.data < 0)), start, stop, words)

    def _refuse(self, block: sparse.csr_matrix, entry: int, start: int, stop: int, words: str) -> None:
        cell = start + int(np.searchsorted(block.indptr, entry, side="right")) - 1
        gene = printable(str(self.var.index[block.indices[entry]]))
        msg = (
            f"{self.file}: {self.slot}, rows {start} to {stop}: value {block.data[entry]:g} of cell "
            f"{printable(str(self.obs_names[cell]))} (row {cell}), gene {gene}, {words}; counts needed."
        )
        raise InputError(msg)

    def _undo(self, block: sparse.csr_matrix, start: int, stop: int) -> sparse.csr_matrix:
        assert self._choice.scale is not None
        undone = undo_log(block, self._choice.scale, start=start)
        if not undone.accepted.all():
            failed = np.flatnonzero(~undone.accepted)
            shown = ", ".join(str(start + cell) for cell in failed[:5])
            msg = (
                f"{self.file}: {self.slot}, rows {start} to {stop}: the logarithm cannot be undone exactly for "
                f"{failed.size} cells (rows {shown}); give the raw counts instead."
            )
            raise InputError(msg)
        return undone.counts

    @cached_property
    def obs_names(self) -> npt.NDArray[np.object_]:
        """(cells,) names as they are, duplicates included."""
        with reading(f"{self.file}: names of cells"):
            names = self._source.cells.names()
        return np.array(["" if name is None else name for name in names], dtype=object)

    @property
    def obs_columns(self) -> list[str]:
        """Names of the columns of obs."""
        return self._source.cells.columns

    def obs_column(self, name: str) -> npt.NDArray[np.str_]:
        """(cells,) one column of obs as text; missing values read "unknown".

        Raises
        ------
        UsageError
            There is no such column.
        """
        if name not in self.obs_columns:
            msg = f"{self.file}: obs has no column {name!r}.{nearest(name, self.obs_columns)}"
            raise UsageError(msg)
        with reading(f"{self.file}: obs/{printable(name)}"):
            values = self._source.cells.text(name)
        return np.array([MISSING if value is None else value for value in values], dtype=np.str_)

    def fingerprint(self) -> str:
        """SHA-256 over shape, names, slot and the first and last 64 rows; another one once the file has changed."""
        digest = hashlib.sha256(f"{self.kind} {self.slot} {self.n_cells} {len(self.var)}".encode())
        for names in (self.var.index, self.obs_names):
            digest.update("\n".join(map(str, names)).encode("utf-8", "surrogatepass"))
        now = self._source.stamp()
        digest.update(str(now[:1] if now == self._opened else now).encode())
        for start in (0, max(0, self.n_cells - 64)):
            block = self.read(start, min(start + 64, self.n_cells))
            for part in (block.data, block.indices.astype("<i8"), block.indptr.astype("<i8")):
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file and remove temporary ones."""
        self._source.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_counts(
    source: "str | Path | AnnData",
    *,
    layer: str | None = None,
    use_raw: bool = False,
    policy: Policy = "invert",
    genome: str | None = None,
) -> Counts:
    """Open a file, folder or AnnData, find the counts in it and test them on a sample of cells.

    Parameters
    ----------
    source
        .h5ad, zarr folder or .zarr.zip, 10x .h5, 10x folder, or an AnnData (view, backed, any layout).
    layer
        Take this layer and no other; "X" and "raw" are reserved words for these two.
    use_raw
        Same as `layer="raw"`.
    policy
        "invert" takes whole counts, or log1p of normalised counts that can be undone exactly; "strict" whole counts
        alone; "round" also rounds fractional counts; "as-is" takes any numbers that are not negative.
    genome
        Genome of a 10x file that holds several.

    Raises
    ------
    InputError
        The source cannot be read, or no matrix in it holds counts; each one tried is listed with the reason.
    UsageError
        An option that does not fit the source.
    """
    if use_raw and layer not in (None, "raw"):
        msg = f"use_raw and layer={layer!r} name two places; give one."
        raise UsageError(msg)
    if policy not in ("strict", "round", "invert", "as-is"):
        msg = f"counts policy {policy!r} is none of strict, round, invert, as-is."
        raise UsageError(msg)
    opened = open_source(source, genome=genome)
    try:
        opened = keep_genes(opened)
        choice = choose(opened, layer="raw" if use_raw else layer, policy=policy)
        var = opened.slots[choice.slot].var()
        counts = Counts(
            opened.file,
            opened.n_cells,
            var,
            choice.slot,
            [*choice.notes, *opened.notes],
            opened.organism,
            opened.kind,
            opened,
            choice.rows,
            choice,
            opened.stamp(),
        )
        repeated = opened.n_cells - len(set(counts.obs_names))
        if repeated:
            counts.notes.append(f"{repeated} cells share a name with another; cells are told apart by position.")
        return counts
    except BaseException:
        opened.stack.close()
        raise


def open_source(source: "str | Path | AnnData", *, genome: str | None = None) -> Source:
    """Open a file, folder or AnnData for its tables alone; the caller closes its `stack`.

    Raises
    ------
    InputError
        The source cannot be read.
    UsageError
        An option that does not fit the source.
    """
    if not isinstance(source, str | Path):
        module = sys.modules.get("anndata")
        if module is None or not isinstance(source, module.AnnData):
            msg = f"{type(source).__name__} given; a path or an AnnData is needed."
            raise UsageError(msg)
        if genome is not None:
            msg = f"AnnData object: genome={genome!r} is for 10x files; leave it out."
            raise UsageError(msg)
        return loaded_source(source)
    path = Path(source)
    container = container_of(path)
    stack = ExitStack()
    try:
        with reading(str(path)):
            opened = _open_path(path, container, genome, stack)
    except BaseException:
        stack.close()
        raise
    return replace(opened, stamp=lambda: _stamp(path))


def _open_path(path: Path, container: str, genome: str | None, stack: ExitStack) -> Source:
    if container == "10x-folder":
        return folder_source(path, genome=genome, stack=stack)
    notes: list[str] = []
    store = open_store(path, container, stack, notes)
    layout = layout_of(store)
    if layout == "10x":
        return tenx_source(store, genome=genome, stack=stack, notes=notes)
    if layout == "10x-legacy":
        return legacy_source(store, genome=genome, stack=stack, notes=notes)
    if genome is not None:
        msg = f"{path}: genome={genome!r} is for 10x files; leave it out."
        raise UsageError(msg)
    return stored_source(store, kind="h5ad" if container == "hdf5" else container, stack=stack, notes=notes)


def _stamp(path: Path) -> tuple[int, ...]:
    """Size, time of writing and inode; of the files of a folder together."""
    files = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.is_file())
    stats = [entry.stat() for entry in files]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0), path.stat().st_ino
