"""Turning a matrix stored by columns, or as text, into rows on disk: a bucket sort that never holds it in memory."""

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uce.cells.layouts import STREAM_ITEMS, CompressedRows, check_columns
from uce.errors import InputError, StorageError

BUCKET_BYTES = 32 << 20

Triplets = Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]]


@dataclass(frozen=True)
class FileVector:
    """A vector of numbers in a raw binary file, read by slices."""

    path: Path
    dtype: np.dtype[Any]
    n: int

    @property
    def shape(self) -> tuple[int]:
        """Number of items."""
        return (self.n,)

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        start, stop, _ = part.indices(self.n)
        return np.fromfile(self.path, self.dtype, max(0, stop - start), offset=start * self.dtype.itemsize)


def column_triplets(data: Any, indices: Any, indptr: Any, where: str, n_rows: int) -> Triplets:
    """Row, column and value of the entries of a CSC matrix on disk, in pieces of bounded size."""
    bounds = np.asarray(indptr[:]).astype(np.int64)
    for start in range(0, int(bounds[-1]), STREAM_ITEMS):
        stop = min(start + STREAM_ITEMS, int(bounds[-1]))
        rows = np.asarray(indices[start:stop])
        check_columns(rows, n_rows, where)
        columns = np.searchsorted(bounds, np.arange(start, stop), side="right") - 1
        yield rows.astype(np.int64), columns.astype(np.int64), np.asarray(data[start:stop])


def spill_rows(
    triplets: Triplets, *, where: str, shape: tuple[int, int], dtype: np.dtype[Any], n_entries: int, stack: ExitStack
) -> CompressedRows:
    """Write entries in any order as CSR into a temporary folder that `stack` removes.

    Entries go to one file per range of rows, then each file is sorted by row (stable, so the order within a row is
    the order of arrival). Memory: one bucket of about 32 MB.

    Raises
    ------
    StorageError
        The disk of the temporary folder has no room for two copies of the matrix.
    """
    dtype = np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
    entry = np.dtype([("row", np.int64), ("column", np.int32), ("value", dtype)])
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uce-rows-")))
    _check_room(folder, 2 * n_entries * entry.itemsize, where)
    n_buckets = int(np.clip(n_entries * entry.itemsize // BUCKET_BYTES + 1, 1, 512))
    rows_each = max(1, -(-shape[0] // n_buckets))
    per_row = np.zeros(shape[0] + 1, np.int64)
    n_buckets = max(1, -(-shape[0] // rows_each))
    with ExitStack() as files:
        buckets = [files.enter_context((folder / f"bucket-{i}").open("wb")) for i in range(n_buckets)]
        for rows, columns, values in triplets:
            _distribute(rows, columns, values, entry=entry, rows_each=rows_each, buckets=buckets)
            per_row[1:] += np.bincount(rows, minlength=shape[0])
    with (folder / "columns").open("wb") as columns_file, (folder / "values").open("wb") as values_file:
        for i in range(n_buckets):
            bucket = np.fromfile(folder / f"bucket-{i}", entry)
            (folder / f"bucket-{i}").unlink()
            bucket = bucket[np.argsort(bucket["row"], kind="stable")]
            np.ascontiguousarray(bucket["column"]).tofile(columns_file)
            np.ascontiguousarray(bucket["value"]).tofile(values_file)
    indptr = np.cumsum(per_row)
    n = int(indptr[-1])
    return CompressedRows(
        where,
        FileVector(folder / "values", dtype, n),
        FileVector(folder / "columns", np.dtype(np.int32), n),
        indptr,
        shape,
    )


def _distribute(
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    values: npt.NDArray[Any],
    *,
    entry: np.dtype[Any],
    rows_each: int,
    buckets: list[Any],
) -> None:
    batch = np.empty(rows.size, entry)
    batch["row"], batch["column"], batch["value"] = rows, columns, values
    bucket_of = rows // rows_each
    order = np.argsort(bucket_of, kind="stable")
    batch, bucket_of = batch[order], bucket_of[order]
    edges = np.searchsorted(bucket_of, np.arange(len(buckets) + 1))
    for i in np.unique(bucket_of):
        batch[edges[i] : edges[i + 1]].tofile(buckets[i])


def _check_room(folder: Path, needed: int, where: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = (
            f"{where}: turning it into rows needs {needed / 1e9:.1f} GB in {folder.parent}, {free / 1e9:.1f} GB are "
            "free; set TMPDIR to a larger disk, or store the matrix by rows (CSR)."
        )
        raise StorageError(msg)


def check_positions(rows: npt.NDArray[np.int64], n_rows: int, where: str) -> None:
    """Raise InputError if a zero-based index of a text matrix lies outside it."""
    if rows.size and (rows.min() < 0 or rows.max() >= n_rows):
        wrong = int(rows.min() if rows.min() < 0 else rows.max())
        msg = f"{where} {wrong + 1} where there are {n_rows}; the file is damaged."
        raise InputError(msg)
