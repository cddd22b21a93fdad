"""One shard: an AnnData of some cells as a zarr v3 group, its counts in few files of checked chunks.

`X` is CSR: `indices` and `indptr` int32, as scipy and scanpy compute with no narrower ones and not with two kinds (2 %
of the disk), `data` uint16, or uint32 in a shard of cells with a count above 65,535. A chunk holds about 64 cells; all
chunks of a vector are in one file (the shard of zarr). Chunks are Blosc(zstd 3, shuffle) followed by crc32c: without
the latter a flipped bit can give other counts and no error.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uce.cells.stores import reading
from uce.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse

CHUNK_CELLS = 64
MOST_ENTRIES = 1 << 26  # stored values of one shard: 256 MB before compression
NARROW = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class Rows:
    """Counts of cells as the three vectors of CSR: (entries,), (entries,), (cells + 1,)."""

    data: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    indptr: npt.NDArray[np.int64]


def need_zarr3() -> None:
    """Refuse where the zarr at hand cannot write version 3 of the format.

    Raises
    ------
    UsageError
        With the version there is.
    """
    import zarr

    if int(zarr.__version__.split(".")[0]) < 3:
        msg = f"a corpus needs zarr 3 or newer; this is zarr {zarr.__version__}. Run: pip install 'zarr>=3'."
        raise UsageError(msg)


def split_rows(
    lengths: npt.NDArray[np.int64], kinds: npt.NDArray[np.int64], *, most: int = MOST_ENTRIES
) -> list[npt.NDArray[np.int64]]:
    """Positions of the cells of every shard: no two kinds in one, each in the order given.

    Parameters
    ----------
    lengths
        (cells,) stored values of each.
    kinds
        (cells,) a number for what may not be mixed.
    """
    parts = []
    for kind in np.unique(kinds).tolist():
        cells = np.flatnonzero(kinds == kind)
        shard = (np.cumsum(lengths[cells]) - lengths[cells]) // most
        parts += [part for part in np.split(cells, np.flatnonzero(np.diff(shard)) + 1) if part.size]
    return parts


def write_shard(folder: Path, rows: Rows, *, obs: "pd.DataFrame", var: "pd.DataFrame", wide: bool) -> None:
    """Write cells (in their order) as an AnnData zarr store that any scverse tool opens.

    `n_cells` is added to var: in how many of these cells each gene is seen.
    """
    import zarr
    from anndata.io import write_elem

    seen = np.bincount(rows.indices, minlength=len(var)).astype(np.uint32)
    root = zarr.open_group(str(folder), mode="w-", zarr_format=3)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="zarr v3 autosharding", category=UserWarning)  # chunks are given
        # One chunk per column: a column is read whole or not at all.
        write_elem(root, "obs", obs, dataset_kwargs={"chunks": (len(obs),)})
        write_elem(root, "var", var.assign(n_cells=seen), dataset_kwargs={"chunks": (len(var),)})
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            write_elem(root, name, {})
    _write_counts(root.create_group("X"), rows, n_genes=len(var), wide=wide)


def _write_counts(group: Any, rows: Rows, *, n_genes: int, wide: bool) -> None:
    n_cells = len(rows.indptr) - 1
    shape = {"shape": [n_cells, n_genes]}
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", **shape})
    chunk = max(1, -(-len(rows.data) * CHUNK_CELLS // n_cells))
    _write_vector(group, "data", rows.data.astype(np.uint32 if wide else np.uint16, copy=False), chunk)
    _write_vector(group, "indices", rows.indices.astype(np.int32, copy=False), chunk)
    _write_vector(group, "indptr", rows.indptr.astype(np.int32), len(rows.indptr))


def _write_vector(group: Any, name: str, values: npt.NDArray[Any], chunk: int) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk,),
        shards=(-(-len(values) // chunk) * chunk,),
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=values.itemsize), Crc32cCodec()],
        # A chunk of zeros (all counts in the first gene) is written too: a missing one always means damage.
        config={"write_empty_chunks": True},
    )
    array[:] = values


class ShardReader:
    """The counts of one shard, opened once for many reads; any number of threads may read at a time.

    zarr reads zeros where a file is missing; `uce.corpus.store.check_files` tells.

    Attributes
    ----------
    n_cells, n_genes
        Size of the shard.

    Raises
    ------
    InputError
        There is no shard, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        import zarr

        self._folder = folder
        with reading(f"{folder}/X"):
            group: Any = zarr.open_group(str(folder / "X"), mode="r", zarr_format=3)
            self.n_cells, self.n_genes = (int(n) for n in group.attrs["shape"])
            self._data, self._indices = group["data"], group["indices"]
            self._bounds: npt.NDArray[np.int32] = np.asarray(group["indptr"][:])

    def read(self, start: int, stop: int) -> "sparse.csr_matrix":
        """Counts of cells `start` to `stop`, (cells, genes) CSR. Read whole blocks: a chunk holds 64 cells.

        Raises
        ------
        InputError
            A chunk is damaged.
        """
        from scipy import sparse

        bounds = self._bounds[start : stop + 1]
        with reading(f"{self._folder}: rows {start} to {stop}"):
            data = np.asarray(self._data[bounds[0] : bounds[-1]])
            indices = np.asarray(self._indices[bounds[0] : bounds[-1]])
        shape = (len(bounds) - 1, self.n_genes)
        return sparse.csr_matrix((data, indices, bounds - bounds[0]), shape=shape)


def read_gene_columns(folder: Path) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint32]]:
    """Of each gene of a shard: `measured` (genes,), whether its source has a column for it, and `n_cells` (genes,).

    Raises
    ------
    InputError
        The shard is damaged.
    """
    import zarr

    with reading(f"{folder}/var"):
        group: Any = zarr.open_group(str(folder / "var"), mode="r", zarr_format=3)
        return np.asarray(group["measured"][:], dtype=bool), np.asarray(group["n_cells"][:], dtype=np.uint32)


def read_obs_column(folder: Path, name: str) -> npt.NDArray[Any] | None:
    """(cells,) a column of obs of a shard, words as str; None where it has none of this name.

    Raises
    ------
    InputError
        The shard is damaged.
    """
    import zarr

    with reading(f"{folder}/obs/{name}"):
        group: Any = zarr.open_group(str(folder / "obs"), mode="r", zarr_format=3)
        if name not in group:
            return None
        column = group[name]
        if hasattr(column, "shape"):
            return _plain(np.asarray(column[:]))
        # No code is -1: a value that is missing was stored as the word "unknown".
        codes: npt.NDArray[np.int64] = np.asarray(column["codes"][:], dtype=np.int64)
        return _plain(np.asarray(column["categories"][:]))[codes]


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers as they are; words of any length as those of a fixed one, which older functions of numpy know."""
    return values if values.dtype.kind in "biuf" else np.array(values.tolist(), dtype=np.str_)


def shard_sums(folder: Path, n_cells: int, *, block: int = 4096) -> Mapping[str, int]:
    """Cells, stored values and counts of a shard, read again from the disk."""
    reader = ShardReader(folder)
    entries = counts = 0
    for start in range(0, n_cells, block):
        rows = reader.read(start, start + block)
        entries += int(rows.nnz)
        counts += int(rows.data.sum(dtype=np.uint64))
    return {"cells": n_cells, "entries": entries, "counts": counts}
