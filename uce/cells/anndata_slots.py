"""The candidate matrices of AnnData: in memory, backed, or closed on disk as .h5ad, zarr folder or zipped zarr."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

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
from uce.cells.layouts import CompressedRows, DenseRows, LoadedRows, Rows, check_compressed
from uce.cells.slots import Cells, Slot, Source, check_number_type, check_shape, organism_of
from uce.cells.spill import column_triplets, spill_rows
from uce.cells.stores import Store
from uce.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


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
        slots[name] = Slot(
            name, lambda p=path, v=var: _stored_rows(store, p, v, n_cells, stack, notes), lambda v=var: _var(store, v)
        )
    columns = frame_columns(store, "obs")

    def column_if_there(name: str) -> npt.NDArray[np.object_] | None:
        return read_column(store, "obs", name) if name in columns and is_text_column(store, "obs", name) else None

    cells = Cells(
        columns,
        lambda: read_names(store, "obs"),
        lambda name: read_column(store, "obs", name),
        lambda name: read_numbers(store, "obs", name),
    )
    return Source(store.file, kind, n_cells, slots, cells, organism_of(_uns_texts(store), column_if_there), notes, stack)


def _matrix_paths(store: Store) -> list[tuple[str, str, str]]:
    """Name, path and var path of every matrix."""
    found = [(f"layers/{key}", f"layers/{key}", "var") for key in store.keys("layers")]
    if store.find("raw/X") is not None:
        found.append(("raw", "raw/X", "raw/var"))
    elif store.find("raw.X") is not None:
        found.append(("raw", "raw.X", "raw.var"))
    if store.find("X") is not None:
        found.append(("X", "X", "var"))
    return [entry for entry in found if store.attributes(entry[1]).get("encoding-type") != "null"]


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


def _stored_rows(store: Store, path: str, var: str, n_cells: int, stack: ExitStack, notes: list[str]) -> Rows:
    node = store.need(path)
    attributes = store.attributes(path)
    where = f"{store.file}: {path}"
    encoding = str(attributes.get("encoding-type") or attributes.get("h5sparse_format") or "")
    n_genes = frame_length(store, var)
    if hasattr(node, "shape"):
        if encoding not in ("", "array"):
            msg = f"{where} has the unknown encoding {encoding!r}; write the file again with a current anndata."
            raise InputError(msg)
        check_shape(store.file, path, node.shape, n_cells, n_genes)
        check_number_type(node.dtype, where)
        dense = DenseRows(where, node)
        return _by_rows(dense.triplets(), dense.shape, node.size, dense.dtype, where, stack, notes) if dense.needs_spill else dense
    layout = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}.get(encoding)
    if layout is None:
        msg = f"{where} has the unknown encoding {encoding!r}; write the file again with a current anndata."
        raise InputError(msg)
    declared = attributes.get("shape", attributes.get("h5sparse_shape"))
    if declared is None:
        msg = f"{where} does not state its shape; the file is damaged, write it again."
        raise InputError(msg)
    shape = (int(declared[0]), int(declared[1]))
    check_shape(store.file, path, shape, n_cells, n_genes)
    data, indices, indptr = (store.need_array(f"{path}/{part}") for part in ("data", "indices", "indptr"))
    check_number_type(data.dtype, where)
    major = 0 if layout == "csr" else 1
    check_compressed(
        where, n_data=data.shape[0], n_indices=indices.shape[0], indptr=indptr, shape=shape, major=major
    )
    if layout == "csr":
        return CompressedRows(where, data, indices, indptr, shape)
    entries = column_triplets(data, indices, indptr, where, n_cells)
    return _by_rows(entries, shape, data.shape[0], data.dtype, where, stack, notes)


def _by_rows(
    entries: Any, shape: tuple[int, int], n: int, dtype: Any, where: str, stack: ExitStack, notes: list[str]
) -> Rows:
    rows = spill_rows(entries, where=where, shape=shape, dtype=np.dtype(dtype), n_entries=int(n), stack=stack)
    notes.append(
        f"{where.rsplit(': ', 1)[-1]} is stored by columns, so a temporary copy by rows was written; to save that time, "
        "store it as CSR (adata.X = adata.X.tocsr())."
    )
    return rows


def loaded_source(adata: "AnnData") -> Source:
    """Candidates of an AnnData object; nothing is copied, and a view is followed block by block."""
    file = "AnnData object" if not adata.isbacked else str(adata.filename)
    slots = {}
    for key in adata.layers:
        slots[f"layers/{key}"] = _loaded_slot(adata, f"layers/{key}", lambda a, k=key: a.layers[k])
    if adata.raw is not None:
        raw = adata.raw
        slots["raw"] = Slot(
            "raw",
            lambda: _loaded_rows(file, "raw", raw.X, adata.n_obs, raw.n_vars),
            lambda: join_names(text_columns(raw.var, f"{file}: raw.var"), lambda: text_columns(adata.var, "var")),
        )
    if adata.X is not None if not adata.isbacked else True:
        slots["X"] = _loaded_slot(adata, "X", lambda a: a.X)
    cells = Cells(
        [str(name) for name in adata.obs.columns],
        lambda: to_text(adata.obs_names.to_numpy(dtype=object), f"{file}: obs"),
        lambda name: to_text(adata.obs[name].to_numpy(dtype=object), f"{file}: obs/{name}"),
        lambda name: _numbers(adata.obs, name),
    )

    def column_if_there(name: str) -> npt.NDArray[np.object_] | None:
        return cells.text(name) if name in adata.obs.columns else None

    return Source(file, "AnnData", adata.n_obs, slots, cells, organism_of(dict(adata.uns), column_if_there))


def _numbers(frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64] | None:
    if name not in frame.columns or not pd.api.types.is_numeric_dtype(frame[name]):
        return None
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _loaded_slot(adata: "AnnData", name: str, pick: Callable[["AnnData"], Any]) -> Slot:
    file = "AnnData object" if not adata.isbacked else str(adata.filename)

    def rows() -> Rows:
        if adata.is_view:
            # The matrix of a view is a fresh copy of all its rows: take it a block at a time.
            probe = pick(adata[:1])
            check_number_type(np.dtype(probe.dtype), f"{file}: {name}")
            return LoadedRows(f"{file}: {name}", lambda a, b: pick(adata[a:b]), adata.shape, np.dtype(probe.dtype))
        return _loaded_rows(file, name, pick(adata), adata.n_obs, adata.n_vars)

    return Slot(name, rows, lambda: text_columns(adata.var, f"{file}: var"))


def _loaded_rows(file: str, name: str, matrix: Any, n_cells: int, n_genes: int) -> Rows:
    where = f"{file}: {name}"
    check_shape(file, name, matrix.shape, n_cells, n_genes)
    check_number_type(np.dtype(matrix.dtype), where)
    if sparse.issparse(matrix):
        by_rows = matrix if matrix.format == "csr" else matrix.tocsr()
        check_compressed(
            where,
            n_data=len(by_rows.data),
            n_indices=len(by_rows.indices),
            indptr=by_rows.indptr,
            shape=by_rows.shape,
        )
        return CompressedRows(where, by_rows.data, by_rows.indices, by_rows.indptr, by_rows.shape)
    return LoadedRows(where, lambda a, b: matrix[a:b], matrix.shape, np.dtype(matrix.dtype))

