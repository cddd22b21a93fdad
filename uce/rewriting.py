"""The cells of any input as a new `.h5ad` on disk, in pieces, so that a result can be added to it."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from uce.cells.stores import open_zarr

if TYPE_CHECKING:
    from uce.cells.counts import Counts

_SLAB_BYTES = 1 << 24
_GROUPS = {"csr_matrix", "csc_matrix", "dict", "raw", "anndata", ""}


def copy_h5ad(source: Path, target: Path) -> None:
    """Copy a `.h5ad`, byte for byte; one in the layout before anndata 0.7 is read whole and written in today's."""
    with h5py.File(source, "r") as file:
        old = isinstance(file["obs"], h5py.Dataset)
    if not old:
        shutil.copyfile(source, target)
        return
    import warnings

    import anndata as ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata warns of its own old layouts, which is why we are here
        ad.read_h5ad(source).write_h5ad(target)


def copy_zarr(source: Path, target: Path) -> None:
    """Copy an AnnData zarr folder or `.zarr.zip` to a `.h5ad`: large arrays in slabs, all else through anndata."""
    with ExitStack() as stack, h5py.File(target, "w") as file:
        root = open_zarr(source, stack).root
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in sorted(root.keys()):
            _copy_element(root[name], file, name)


def _copy_element(node: Any, parent: h5py.Group, name: str) -> None:
    from anndata.io import read_elem, write_elem

    kind = str(node.attrs.get("encoding-type", ""))
    is_array = hasattr(node, "dtype")
    if is_array and node.ndim and node.dtype.kind in "iufb":
        _copy_array(node, parent, name)
    elif not is_array and kind in _GROUPS:
        group = parent.create_group(name)
        group.attrs.update(_attributes(node))
        for child in sorted(node.keys()):
            _copy_element(node[child], group, child)
    else:
        write_elem(parent, name, read_elem(node))


def _copy_array(node: Any, parent: h5py.Group, name: str) -> None:
    options = {"compression": "gzip", "compression_opts": 1, "chunks": True} if 0 not in node.shape else {}
    copy = parent.create_dataset(name, node.shape, node.dtype, **options)
    copy.attrs.update(_attributes(node))
    row_bytes = max(1, int(np.prod(node.shape[1:], dtype=np.int64)) * node.dtype.itemsize)
    rows = max(1, _SLAB_BYTES // row_bytes)
    for start in range(0, node.shape[0], rows):
        copy[start : start + rows] = node[start : start + rows]


def _attributes(node: Any) -> dict[str, Any]:
    return {name: np.array(value) if isinstance(value, list) else value for name, value in dict(node.attrs).items()}


def write_counts(path: Path, counts: "Counts") -> None:
    """A new AnnData file with the cells, genes and counts of `counts`, block by block."""
    import pandas as pd
    from anndata.io import write_elem

    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", pd.DataFrame(index=pd.Index([str(name) for name in counts.obs_names])))
        write_elem(file, "var", counts.var)
        for group in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            write_elem(file, group, {})
        _write_csr(file, counts)


def _write_csr(file: h5py.File, counts: "Counts", *, rows: int = 1024) -> None:
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array([counts.n_cells, len(counts.var)], np.int64)
    data, indices = (
        group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(65_536,), compression="gzip", shuffle=True)
        for name, dtype in (("data", np.float64), ("indices", np.int32))
    )
    ends = [np.zeros(1, np.int64)]
    for start in range(0, counts.n_cells, rows):
        block = counts.read(start, min(start + rows, counts.n_cells))
        for target, values in ((data, block.data), (indices, block.indices)):
            target.resize(target.shape[0] + len(values), axis=0)
            target[target.shape[0] - len(values) :] = values
        ends.append(ends[-1][-1] + block.indptr[1:].astype(np.int64))
    group.create_dataset("indptr", data=np.concatenate(ends))
