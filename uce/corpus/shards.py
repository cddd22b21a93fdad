"""One shard: an AnnData of some cells as a zarr v3 group, its counts in few files of checked chunks.

`X` is CSR: `indices` uint16 where there are at most 65,536 genes, `data` uint16, or uint32 in a shard of cells with a
count above 65,535. A chunk holds about 64 cells; all chunks of a vector are in one file (the shard of zarr). Chunks are
Blosc(zstd 3, shuffle) followed by crc32c: without the latter a flipped bit can give other counts and no error.
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
    lengths: npt.NDArray[np.int64], wide: npt.NDArray[np.bool_], *, most: int = MOST_ENTRIES
) -> list[npt.NDArray[np.int64]]:
    """Positions of the cells of every shard: wide cells apart from the others, each in the order given.

    Parameters
    ----------
    lengths
        (cells,) stored values of each.
    wide
        (cells,) whether a count does not fit 16 bits.
    """
    parts = []
    for kind in (~wide, wide):
        cells = np.flatnonzero(kind)
        shard = (np.cumsum(lengths[cells]) - lengths[cells]) // most
        parts += [part for part in np.split(cells, np.flatnonzero(np.diff(shard)) + 1) if part.size]
    return parts


def write_shard(folder: Path, rows: Rows, *, obs: "pd.DataFrame", var: "pd.DataFrame", wide: bool) -> None:
    """Write cells (in their order) as an AnnData zarr store that any scverse tool opens."""
    import zarr
    from anndata.io import write_elem

    root = zarr.open_group(str(folder), mode="w-", zarr_format=3)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="zarr v3 autosharding", category=UserWarning)  # chunks are given
        # One chunk per column: a column is read whole or not at all.
        write_elem(root, "obs", obs, dataset_kwargs={"chunks": (len(obs),)})
        write_elem(root, "var", var, dataset_kwargs={"chunks": (len(var),)})
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            write_elem(root, name, {})
    _write_counts(root.create_group("X"), rows, n_genes=len(var), wide=wide)


def _write_counts(group: Any, rows: Rows, *, n_genes: int, wide: bool) -> None:
    n_cells = len(rows.indptr) - 1
    shape = {"shape": [n_cells, n_genes]}
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", **shape})
    chunk = max(1, -(-len(rows.data) * CHUNK_CELLS // n_cells))
    _write_vector(group, "data", rows.data.astype(np.uint32 if wide else np.uint16, copy=False), chunk)
    _write_vector(group, "indices", rows.indices.astype(_index_type(n_genes), copy=False), chunk)
    _write_vector(group, "indptr", rows.indptr, len(rows.indptr))


def _index_type(n_genes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if n_genes <= NARROW + 1 else np.uint32


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


def read_rows(folder: Path, start: int, stop: int) -> "sparse.csr_matrix":
    """Counts of cells `start` to `stop` of a shard, (cells, genes) CSR. Read whole blocks: a chunk holds 64 cells.

    zarr reads zeros where a file is missing; `uce.corpus.store.check_files` tells.

    Raises
    ------
    InputError
        A chunk is damaged.
    """
    import zarr
    from scipy import sparse

    with reading(f"{folder}: rows {start} to {stop}"):
        group: Any = zarr.open_group(str(folder / "X"), mode="r")
        n_cells, n_genes = (int(n) for n in group.attrs["shape"])
        bounds = np.asarray(group["indptr"][start : min(stop, n_cells) + 1])
        data = np.asarray(group["data"][bounds[0] : bounds[-1]])
        indices = np.asarray(group["indices"][bounds[0] : bounds[-1]]).astype(np.int32)
    return sparse.csr_matrix((data, indices, bounds - bounds[0]), shape=(len(bounds) - 1, n_genes))


def shard_sums(folder: Path, n_cells: int, *, block: int = 4096) -> Mapping[str, int]:
    """Cells, stored values and counts of a shard, read again from the disk."""
    entries = counts = 0
    for start in range(0, n_cells, block):
        rows = read_rows(folder, start, start + block)
        entries += int(rows.nnz)
        counts += int(rows.data.sum(dtype=np.uint64))
    return {"cells": n_cells, "entries": entries, "counts": counts}
