"""The candidate matrices of AnnData: in memory, backed, or closed on disk as .h5ad, zarr folder or zipped zarr."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from uce.cells.frames import (
    frame_columns,
    frame_length,
    is_text_column,
    read_column,
    read_names,
    read_numbers,
    read_text_frame,
    text_columns,
    to_text,
)
from uce.cells.layouts import CompressedRows, DenseRows, LoadedRows, PickedRows, Rows, check_columns, check_compressed
from uce.cells.slots import Cells, Slot, Source, check_number_type, check_shape, organism_of
from uce.cells.spill import column_triplets, spill_rows
from uce.cells.stores import Store, check_chunks
from uce.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

ENCODINGS = {"": "dense", "array": "dense", "csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}


def stored_source(store: Store, *, kind: str, stack: ExitStack, notes: list[str]) -> Source:
    """Candidates of an AnnData written to disk; only shapes and names are looked at here.

    Raises
    ------
    InputError
        There is no table of cells, or no matrix.
    """
    n_cells = frame_length(store, "obs")
    if n_cells is None or frame_length(store, "var") is None:
        missing = "obs" if n_cells is None else "var"
        msg = f"{store.file}: no table {missing} with an index; not an AnnData file, or damaged."
        raise InputError(msg)
    slots = {}
    for name, path, var in _matrix_paths(store):
        rows = partial(_stored_rows, store, path, var, n_cells, stack=stack, notes=notes)
        slots[name] = Slot(name, rows, partial(_var, store, var))
    columns = frame_columns(store, "obs")

    def column_if_there(name: str) -> npt.NDArray[np.object_] | None:
        return read_column(store, "obs", name) if name in columns and is_text_column(store, "obs", name) else None

    cells = Cells(
        columns,
        lambda: read_names(store, "obs"),
        lambda name: read_column(store, "obs", name),
        lambda name: read_numbers(store, "obs", name),
    )
    return Source(
        store.file,
        kind,
        n_cells,
        slots,
        cells,
        organism_of(_uns_texts(store), column_if_there),
        notes,
        stack,
        obsm={key: partial(_element, store, f"obsm/{key}") for key in store.keys("obsm")},
        records=lambda: _records(_element(store, "uns/uce")) if store.find("uns/uce") is not None else {},
    )


def _records(found: Any) -> dict[str, Any]:
    """What this package may have written down; anything else under its name is another's."""
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _element(store: Store, path: str) -> Any:
    from anndata.io import read_elem

    return read_elem(store.need(path))


def _matrix_paths(store: Store) -> list[tuple[str, str, str]]:
    """Name, path and var path of every matrix."""
    found = [(f"layers/{key}", f"layers/{key}", "var") for key in store.keys("layers")]
    if store.find("raw/X") is not None:
        found.append(("raw", "raw/X", "raw/var"))
    elif store.find("raw.X") is not None:
        found.append(("raw", "raw.X", "raw.var"))
    if store.find("X") is not None:
        found.append(("X", "X", "var"))
    return [entry for entry in found if store.attribute(entry[1], "encoding-type") != "null"]


def _uns_texts(store: Store) -> dict[str, str]:
    texts = {}
    for key in ("organism", "organism_ontology_term_id", "species"):
        node = store.find(f"uns/{key}")
        if node is not None and getattr(node, "shape", None) in ((), (1,)) and node.dtype.kind in "SUOT":
            texts[key] = str(to_text(np.atleast_1d(np.asarray(node[...])), f"{store.file}: uns/{key}")[0])
    return texts


def _var(store: Store, path: str) -> pd.DataFrame:
    frame = read_text_frame(store, path)
    return frame if path == "var" else join_names(frame, lambda: read_text_frame(store, "var"))


def join_names(raw: pd.DataFrame, var: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """raw.var with the text columns of var, where raw.var has an index alone and the index of var matches."""
    if len(raw.columns):
        return raw
    full = var()
    full = full[~full.index.duplicated()]
    if not len(full.columns) or not raw.index.isin(full.index).any():
        return raw
    joined = full.reindex(raw.index)
    return joined.astype(object).where(joined.notna(), None)


def _stored_rows(store: Store, path: str, var: str, n_cells: int, *, stack: ExitStack, notes: list[str]) -> Rows:
    node = store.need(path)
    encoding = str(store.attribute(path, "encoding-type") or store.attribute(path, "h5sparse_format") or "")
    kind = ENCODINGS.get(encoding)
    if kind is None or (kind == "dense") != hasattr(node, "shape"):
        msg = f"{store.file}: {path} has the unknown encoding {encoding!r}; write it again with a current anndata."
        raise InputError(msg)
    if kind == "dense":
        declared = node.shape
    elif (declared := store.attribute(path, "shape")) is None:
        declared = store.attribute(path, "h5sparse_shape")
    if declared is None:
        msg = f"{store.file}: {path} does not state its shape; the file is damaged, write it again."
        raise InputError(msg)
    shape = tuple(int(n) for n in declared)
    check_shape(store.file, path, shape, n_cells, frame_length(store, var))
    rows = _dense_rows(store, path, stack) if kind == "dense" else _sparse_rows(store, path, kind, shape, stack)
    if isinstance(rows, CompressedRows) and kind != "csr":
        notes.append(
            f"{path} is stored by columns, so a temporary copy by rows was written; to save that time, store it as CSR "
            "(adata.X = adata.X.tocsr())."
        )
    return rows


def _dense_rows(store: Store, path: str, stack: ExitStack) -> Rows:
    dense = DenseRows(f"{store.file}: {path}", store.need_array(path))
    check_number_type(dense.dtype, dense.where)
    if not dense.needs_spill:
        return dense
    n_entries = sum(values.size for _, _, values in dense.triplets())
    return spill_rows(
        dense.triplets(), where=dense.where, shape=dense.shape, dtype=dense.dtype, n_entries=n_entries, stack=stack
    )


def _sparse_rows(store: Store, path: str, kind: str, shape: tuple[int, ...], stack: ExitStack) -> CompressedRows:
    where = f"{store.file}: {path}"
    data, indices, indptr = (store.need_array(f"{path}/{part}") for part in ("data", "indices", "indptr"))
    check_number_type(data.dtype, where)
    if store.is_zarr:
        check_chunks(store, f"{path}/data", f"{path}/indices")
    size = shape[0], shape[1]
    n_entries = int(data.shape[0])
    major = 0 if kind == "csr" else 1
    check_compressed(where, n_data=n_entries, n_indices=indices.shape[0], indptr=indptr, shape=size, major=major)
    if kind == "csr":
        return CompressedRows(where, data, indices, indptr, size)
    entries = column_triplets(data, indices, indptr, where, size[0])
    return spill_rows(entries, where=where, shape=size, dtype=np.dtype(data.dtype), n_entries=n_entries, stack=stack)


def loaded_source(adata: "AnnData") -> Source:
    """Candidates of an AnnData object; nothing is copied, a backed one is read from its file, a view block by block."""
    file = str(adata.filename) if adata.isbacked else "AnnData object"
    parent, pick = _followed_view(adata)
    stack = ExitStack()
    notes: list[str] = []

    def slot(name: str, matrix: Callable[[], Any], var: Callable[[], pd.DataFrame], every_gene: bool = False) -> Slot:
        def rows() -> Rows:
            return _loaded_rows(file, name, matrix(), adata=parent, stack=stack, notes=notes)

        return Slot(name, lambda: pick(rows(), every_gene), var)

    var = partial(text_columns, adata.var, f"{file}: var")
    slots = {f"layers/{key}": slot(f"layers/{key}", partial(_layer, parent, key), var) for key in parent.layers}
    if parent.raw is not None:
        raw_var = partial(text_columns, parent.raw.var, f"{file}: raw.var")
        slots["raw"] = slot("raw", lambda: parent.raw.X, lambda: join_names(raw_var(), var), every_gene=True)
    if parent.X is not None:
        slots["X"] = slot("X", lambda: parent.X, var)
    cells = Cells(
        [str(name) for name in adata.obs.columns],
        lambda: to_text(adata.obs_names.to_numpy(dtype=object), f"{file}: obs"),
        lambda name: to_text(adata.obs[name].to_numpy(dtype=object), f"{file}: obs/{name}"),
        lambda name: _numbers(adata.obs, name),
    )

    def column_if_there(name: str) -> npt.NDArray[np.object_] | None:
        return cells.text(name) if name in adata.obs.columns else None

    organism = organism_of(dict(adata.uns), column_if_there)
    return Source(
        file,
        "AnnData",
        adata.n_obs,
        slots,
        cells,
        organism,
        notes,
        stack,
        obsm={str(key): partial(adata.obsm.__getitem__, key) for key in adata.obsm},
        records=lambda: _records(adata.uns.get("uce")),
    )


def _followed_view(adata: "AnnData") -> tuple["AnnData", Callable[[Rows, bool], Rows]]:
    """The AnnData that holds the matrices, and what picks the cells and genes of a view from their rows."""
    if not adata.is_view:
        return adata, lambda rows, _: rows
    # AnnData has no public way from a view to its places in the parent, and view.X copies all of its rows at once.
    parent = adata._adata_ref
    cells = np.arange(parent.n_obs)[adata._oidx]
    genes = np.arange(parent.n_vars)[adata._vidx]
    return parent, lambda rows, every_gene: PickedRows(rows, cells, None if every_gene else genes)


def _layer(adata: "AnnData", key: str) -> Any:
    return adata.layers[key]


def _numbers(frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64] | None:
    if name not in frame.columns or not pd.api.types.is_numeric_dtype(frame[name]):
        return None
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _loaded_rows(file: str, name: str, matrix: Any, *, adata: "AnnData", stack: ExitStack, notes: list[str]) -> Rows:
    where = f"{file}: {name}"
    n_genes = adata.raw.n_vars if name == "raw" else adata.n_vars
    check_shape(file, name, matrix.shape, adata.n_obs, n_genes)
    on_disk = getattr(matrix, "group", matrix)
    if isinstance(on_disk, h5py.Dataset | h5py.Group):
        store = Store(file, on_disk.file, adata.filename.stat().st_size)
        var = on_disk.name.strip("/").rpartition("X")[0] + "var"
        return _stored_rows(store, on_disk.name.strip("/"), var, adata.n_obs, stack=stack, notes=notes)
    check_number_type(np.dtype(matrix.dtype), where)
    if sparse.issparse(matrix):
        if matrix.format in ("csr", "csc"):
            _check_loaded(matrix, where)
        matrix = matrix if matrix.format == "csr" else matrix.tocsr()
    return LoadedRows(where, lambda start, stop: matrix[start:stop], matrix.shape, np.dtype(matrix.dtype))


def _check_loaded(matrix: Any, where: str) -> None:
    """Check a sparse matrix in memory before scipy turns or slices it: it trusts the indices it is given."""
    major = 0 if matrix.format == "csr" else 1
    parts = {"n_data": len(matrix.data), "n_indices": len(matrix.indices), "indptr": matrix.indptr}
    check_compressed(where, **parts, shape=matrix.shape, major=major)
    check_columns(matrix.indices, matrix.shape[1 - major], where)
