"""obs and var read column by column, in every form AnnData has written them in."""

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from uce.cells.stores import Store, read_vector
from uce.errors import InputError

LONGEST_NAME = 65_536
Names = npt.NDArray[np.object_]


def is_record(store: Store, path: str) -> bool:
    """Whether the frame is one array of records, as anndata wrote before 0.7."""
    node = store.find(path)
    return node is not None and hasattr(node, "shape") and node.dtype.names is not None


def frame_columns(store: Store, path: str) -> list[str]:
    """Names of the columns of a frame, without its index."""
    if is_record(store, path):
        return list(store.need(path).dtype.names[1:])
    index = _index_name(store, path)
    return [key for key in store.keys(path) if key not in (index, "__categories")]


def _index_name(store: Store, path: str) -> str:
    name = str(store.attribute(path, "_index") or "")
    return name or next((key for key in ("_index", "index") if key in store.keys(path)), "_index")


def frame_length(store: Store, path: str) -> int | None:
    """Number of rows of a frame, None if there is no such frame."""
    node = store.find(path)
    if node is None:
        return None
    if hasattr(node, "shape"):
        return int(node.shape[0])
    index = store.find(f"{path}/{_index_name(store, path)}")
    if index is None:
        return None
    return int(
        index.shape[0]
        if hasattr(index, "shape")
        else store.need_array(f"{path}/{_index_name(store, path)}/values").shape[0]
    )


def read_names(store: Store, path: str) -> Names:
    """The index of a frame as text.

    Raises
    ------
    InputError
        There is no index, or a name longer than 65,536 characters.
    """
    if is_record(store, path):
        record = store.need(path)
        return to_text(read_vector(store, record[record.dtype.names[0]], path), f"{store.file}: {path}")
    return read_column(store, path, _index_name(store, path))


def read_column(store: Store, path: str, name: str) -> Names:
    """One column of a frame as text; None where a value is missing."""
    where = f"{path}/{name}"
    if is_record(store, path):
        codes = read_vector(store, store.need(path)[name], where)
        categories = store.find(f"uns/{name}_categories")
        if categories is None:
            return to_text(codes, f"{store.file}: {where}")
        return _decode(store, codes, read_vector(store, categories, where), where)
    node = store.need(where)
    if hasattr(node, "shape"):
        values = read_vector(store, node, where)
        categories = _linked_categories(store, node, where)
        if categories is None:
            return to_text(values, f"{store.file}: {where}")
        return _decode(store, values, categories, where)
    keys = set(store.keys(where))
    if {"codes", "categories"} <= keys:
        codes = read_vector(store, store.need_array(f"{where}/codes"), where)
        return _decode(store, codes, read_vector(store, store.need_array(f"{where}/categories"), where), where)
    if {"values", "mask"} <= keys:
        text = to_text(read_vector(store, store.need_array(f"{where}/values"), where), f"{store.file}: {where}")
        text[read_vector(store, store.need_array(f"{where}/mask"), where).astype(bool)] = None
        return text
    kind = store.attribute(where, "encoding-type")
    msg = f"{store.file}: column {where} has the unknown encoding {kind!r}; write the file with anndata >= 0.8."
    raise InputError(msg)


def _linked_categories(store: Store, node: Any, path: str) -> npt.NDArray[Any] | None:
    """Categories that anndata 0.7 kept beside the codes, under a reference (HDF5) or a path (zarr)."""
    link = node.attrs.get("categories")
    if link is None:
        return None
    # zarr states the path from the frame, HDF5 refers to the array itself.
    frame = path.rpartition("/")[0]
    target = store.root[link].name if isinstance(link, h5py.Reference) else f"{frame}/{link}"
    return read_vector(store, store.need_array(target), target)


def _decode(store: Store, codes: npt.NDArray[Any], categories: npt.NDArray[Any], where: str) -> Names:
    names = np.array([*to_text(categories, f"{store.file}: {where}"), None], dtype=object)
    if codes.size and (codes.min() < -1 or codes.max() >= names.size - 1):
        msg = f"{store.file}: {where} refers to a category that does not exist; the file is damaged."
        raise InputError(msg)
    return np.asarray(names[codes.astype(np.int64)], dtype=object)


def to_text(values: npt.NDArray[Any] | Iterable[Any], where: str) -> Names:
    """Values as Python strings, bytes as UTF-8 (else Latin-1), missing values as None."""
    array = np.asarray(values, dtype=object)
    text = np.empty(array.shape, dtype=object)
    text[:] = [_one(value) for value in array.ravel().tolist()]
    longest = max((len(item) for item in text if item is not None), default=0)
    if longest > LONGEST_NAME:
        msg = f"{where}: a name of {longest} characters, {LONGEST_NAME} at most; rename it."
        raise InputError(msg)
    return text


def _one(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if value is None or value is pd.NA or value is pd.NaT or value != value:  # noqa: PLR0124  not a number
        return None
    return str(value)


def is_text_column(store: Store, path: str, name: str) -> bool:
    """Whether a column of a frame holds text rather than numbers."""
    where = f"{path}/{name}"
    if is_record(store, path):
        return store.need(path).dtype[name].kind in "SUO" or store.find(f"uns/{name}_categories") is not None
    node = store.find(where)
    if node is None:
        return False
    if not hasattr(node, "shape"):
        inner = store.find(f"{where}/categories")
        node = store.find(f"{where}/values") if inner is None else inner
        return node is not None and hasattr(node, "shape") and node.dtype.kind in "SUOT"
    return node.dtype.kind in "SUOT" or node.attrs.get("categories") is not None


def read_text_frame(store: Store, path: str) -> pd.DataFrame:
    """The index and all text columns of a frame; numbers are left where they are."""
    names = read_names(store, path)
    columns = {n: read_column(store, path, n) for n in frame_columns(store, path) if is_text_column(store, path, n)}
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def read_numbers(store: Store, path: str, name: str) -> npt.NDArray[np.float64] | None:
    """A column of plain numbers in float64, None if there is no such column or it is none."""
    if is_record(store, path):
        record = store.need(path)
        column = record[name] if name in record.dtype.names else None
    else:
        column = store.find(f"{path}/{name}")
    if column is None or not hasattr(column, "shape") or column.dtype.kind not in "iuf":
        return None
    return read_vector(store, column, f"{path}/{name}").astype(np.float64)


def text_columns(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The index and the text columns of a frame in memory, as plain strings."""
    kept = {}
    for i, name in enumerate(frame.columns):
        column = frame.iloc[:, i]
        values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
        if pd.api.types.is_string_dtype(values) or pd.api.types.is_object_dtype(values):
            kept[str(name)] = to_text(column.to_numpy(dtype=object), f"{where}/{name}")
    return pd.DataFrame(kept, index=pd.Index(to_text(frame.index.to_numpy(dtype=object), where), dtype=object))
