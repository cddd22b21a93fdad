"""Matrices of cells by genes, read a block of rows at a time: compressed rows, dense slabs, and what is in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from uce.errors import InputError

SLAB_BYTES = 64 << 20  # dense rows held at once
STREAM_ITEMS = 1 << 19  # numbers of a long vector held at once


class Rows(Protocol):
    """A matrix (cells, genes) that gives any range of its rows as they are stored."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR, column indices checked; duplicates and stored zeros left in."""


def aligned_range(chunk_rows: int, row: int, n_rows: int) -> tuple[int, int]:
    """The slab of whole chunks that holds `row`."""
    start = row // chunk_rows * chunk_rows
    return start, min(start + chunk_rows, n_rows)


def _scipy_values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # scipy.sparse has no float16, and works in the byte order of the machine.
    dtype = np.dtype(np.float32) if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return values.astype(dtype, copy=False)


@dataclass(frozen=True)
class CompressedRows:
    """CSR whose three vectors are sliced on demand (HDF5, zarr or temporary files).

    `indptr` stays on disk too: 8 bytes a cell would be the one thing here that grows with the file.
    """

    where: str
    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR."""
        bounds = np.asarray(self.indptr[start : stop + 1]).astype(np.int64)
        data = _scipy_values(np.asarray(self.data[bounds[0] : bounds[-1]]))
        columns = np.asarray(self.indices[bounds[0] : bounds[-1]])
        check_columns(columns, self.shape[1], f"{self.where}, rows {start} to {stop}")
        columns = columns.astype(np.int32 if self.shape[1] < 2**31 else np.int64, copy=False)
        return sparse.csr_matrix((data, columns, bounds - bounds[0]), shape=(stop - start, self.shape[1]), copy=False)


def check_columns(columns: npt.NDArray[Any], n_columns: int, where: str) -> None:
    """Raise InputError if a column index lies outside the matrix: scipy would read memory that is not its own."""
    if not columns.size:
        return
    lowest, highest = int(columns.min()), int(columns.max())
    if lowest < 0 or highest >= n_columns:
        wrong = lowest if lowest < 0 else highest
        msg = f"{where}: column index {wrong} in a matrix of {n_columns} genes; the file is damaged, write it again."
        raise InputError(msg)


def check_compressed(
    where: str, *, n_data: int, n_indices: int, indptr: Any, shape: tuple[int, int], major: int = 0
) -> None:
    """Check the vectors of a CSR (`major` 0) or CSC (`major` 1) matrix before anything is read from them.

    Raises
    ------
    InputError
        Lengths that disagree, or row pointers that do not rise from 0 to the number of stored values.
    """
    advice = "the file is damaged, write it again"
    if n_data != n_indices:
        msg = f"{where}: {n_data} values but {n_indices} column indices; {advice}."
        raise InputError(msg)
    if indptr.shape[0] != shape[major] + 1:
        msg = f"{where}: {indptr.shape[0]} row pointers, {shape[major] + 1} needed for shape {shape}; {advice}."
        raise InputError(msg)
    previous = 0
    for start in range(0, indptr.shape[0], STREAM_ITEMS):
        part = np.asarray(indptr[start : start + STREAM_ITEMS]).astype(np.int64)
        if start == 0 and part[0] != 0:
            msg = f"{where}: the row pointers start at {part[0]} instead of 0; {advice}."
            raise InputError(msg)
        if (steps := np.diff(part, prepend=previous)).min() < 0:
            msg = f"{where}: the row pointers decrease at row {start + int(np.argmax(steps < 0))}; {advice}."
            raise InputError(msg)
        previous = int(part[-1])
    if previous != n_data:
        msg = f"{where}: the last row pointer is {previous}, but {n_data} values are stored; {advice}."
        raise InputError(msg)


@dataclass
class DenseRows:
    """A dense matrix on disk, read in slabs of whole chunks; the last slab is kept, as CSR."""

    where: str
    array: Any
    _kept: tuple[int, int, sparse.csr_matrix] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def slab_rows(self) -> int:
        """Rows read together: whole chunks, as many as fit the budget."""
        chunk_rows = self.array.chunks[0] if getattr(self.array, "chunks", None) else 1
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        return max(1, SLAB_BYTES // row_bytes // chunk_rows) * int(chunk_rows)

    @property
    def needs_spill(self) -> bool:
        """Whether one row of chunks alone is over the budget: the matrix is stored by columns."""
        return self.slab_rows * self.shape[1] * self.dtype.itemsize > 4 * SLAB_BYTES

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR."""
        parts = []
        row = start
        while row < stop:
            first, last, slab = self._slab(row)
            parts.append(slab[row - first : min(stop, last) - first])
            row = last
        if not parts:
            return sparse.csr_matrix((0, self.shape[1]), dtype=_scipy_values(np.empty(0, self.dtype)).dtype)
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    def _slab(self, row: int) -> tuple[int, int, sparse.csr_matrix]:
        if self._kept is None or not self._kept[0] <= row < self._kept[1]:
            first, last = aligned_range(self.slab_rows, row, self.shape[0])
            self._kept = first, last, sparse.csr_matrix(_scipy_values(np.asarray(self.array[first:last])))
        return self._kept

    def triplets(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Row, column and value of every non-zero entry, a tile of whole chunks at a time, in no order of rows."""
        chunk_rows, chunk_columns = (int(n) for n in self.array.chunks)
        for top in range(0, self.shape[0], chunk_rows):
            for left in range(0, self.shape[1], chunk_columns):
                tile = np.asarray(self.array[top : top + chunk_rows, left : left + chunk_columns])
                rows, columns = np.nonzero(tile)
                yield rows + top, columns + left, _scipy_values(tile[rows, columns])


@dataclass(frozen=True)
class LoadedRows:
    """Rows of a matrix in memory, or of a view that makes them when asked."""

    where: str
    fetch: Callable[[int, int], Any]
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR."""
        part = self.fetch(start, stop)
        if sparse.issparse(part):
            part = sparse.csr_matrix(part)
        else:
            part = sparse.csr_matrix(_scipy_values(np.atleast_2d(np.asarray(part))))
        check_columns(part.indices, self.shape[1], f"{self.where}, rows {start} to {stop}")
        return part


@dataclass(frozen=True)
class SelectedColumns:
    """Rows of another matrix with columns left out (-1) or summed into one (the same target)."""

    rows: Rows
    targets: npt.NDArray[np.int64]
    n_columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, kept columns."""
        return self.rows.shape[0], self.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.rows.dtype

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR; entries that fall together stay separate, to be summed in a wide type."""
        whole = self.rows.block(start, stop)
        targets = self.targets[whole.indices]
        keep = targets >= 0
        bounds = np.concatenate([[0], np.cumsum(keep)])[whole.indptr]
        return sparse.csr_matrix((whole.data[keep], targets[keep], bounds), shape=(stop - start, self.n_columns))


@dataclass(frozen=True)
class PickedRows:
    """Some rows of another matrix, in any order and repeated at will, and some of its columns."""

    rows: Rows
    cells: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Picked cells, picked genes."""
        return self.cells.size, self.rows.shape[1] if self.genes is None else self.genes.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.rows.dtype

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Picked rows `start` to `stop` as CSR; neighbours are read together."""
        wanted, place = np.unique(self.cells[start:stop], return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1) if wanted.size else []
        empty = self.rows.block(0, 0)
        stacked = sparse.vstack([empty, *(self.rows.block(run[0], run[-1] + 1) for run in runs)], format="csr")
        picked = stacked[place]
        return picked if self.genes is None else picked[:, self.genes]
