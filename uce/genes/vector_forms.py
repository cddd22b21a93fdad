"""The forms in which gene vectors made elsewhere are stored, each told by its content; nothing in a file is run."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uce.errors import ModelError
from uce.files import printable, shorten
from uce.genes.bundled import reference_vectors
from uce.genes.hdf5 import refuse_traps
from uce.genes.sources import read_tensors

WIDEST = 65_536
_MOST_VALUES = 1 << 29
_FORMS = "a dictionary of gene vectors (.pt), TranscriptFormer's .h5, an .h5ad or an .npz"
# What h5py, anndata, numpy and torch were seen to raise on bytes that were changed or cut.
DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError),
    *(SystemError, zlib.error, zipfile.BadZipFile),
)

Content = tuple[Sequence[str], NDArray[np.float32], Sequence[str]]
"""Keys, vectors (keys, width), symbols beside the keys (or none)."""


def form_of(path: Path) -> tuple[str, Callable[[Path], Content]]:
    """Name and reader of a file's form.

    Raises
    ------
    ModelError
        The file is missing or of no form that is read. The readers raise it, too, and any of `DAMAGED`.
    """
    if not path.is_file():
        msg = f"{path}: no such file; {_FORMS} is expected there."
        raise ModelError(msg)
    with path.open("rb") as stream:
        start = stream.read(8)
    if start == b"\x89HDF\r\n\x1a\n":
        return "HDF5", _read_hdf5
    if start[:1] == b"\x80":
        return "pt", _read_dictionary
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        return ("npz", _read_archive) if arrays else ("pt", _read_dictionary)
    what = "cut short" if start[:2] == b"PK" else "no file of gene vectors"
    msg = f"{path}: {what}. Give {_FORMS}."
    raise ModelError(msg)


def _read_dictionary(path: Path) -> Content:
    content = read_tensors(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        msg = f"{path}: not a dictionary of gene names to vectors. Give {_FORMS}."
        raise ModelError(msg)
    first: dict[str, str] = {}
    found = {first.setdefault(key.upper(), key): value for key, value in content.items()}
    return list(found), _stack(path, found, found.values()), ()


def _read_hdf5(path: Path) -> Content:
    import h5py

    with h5py.File(path, "r") as file:
        refuse_traps(path, file)
        if "keys" in file and "arrays" in file:
            return _read_transcriptformer(path, file)
        if "obs" in file and "X" in file:
            return _read_anndata(path, file)
    msg = f"{path}: neither `keys` and `arrays` (TranscriptFormer) nor `obs` and `X` (AnnData) in it. Give {_FORMS}."
    raise ModelError(msg)


def _read_transcriptformer(path: Path, file: Any) -> Content:
    names = file["keys"][()]
    keys = [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names.ravel().tolist()]
    arrays = file["arrays"]
    for key in keys:
        # A name with "/" would be a way to somewhere else in the file.
        if not key or "/" in key or key == "." or key not in arrays:
            msg = f"{path}: no vector `arrays/{printable(key)}` for a key. Copy or make the file again."
            raise ModelError(msg)
    return keys, _stack(path, keys, (arrays[key] for key in keys)), ()


def _read_anndata(path: Path, file: Any) -> Content:
    from anndata.io import read_elem

    try:
        obs, X = read_elem(file["obs"]), file["X"]
    except Exception as error:  # anndata's own errors have no public class
        msg = f"{path}: obs cannot be read ({printable(str(error), limit=120)}). Copy or make the file again."
        raise ModelError(msg) from error
    if len(getattr(X, "shape", ())) != 2 or len(X) != len(obs) or X.dtype.kind != "f":
        msg = f"{path}: X is not a dense matrix of vectors, one row for each of {len(obs):,} names in obs."
        raise ModelError(msg)
    symbols = obs["symbol"].astype(object).where(obs["symbol"].notna(), "") if "symbol" in obs else ()
    return list(map(str, obs.index)), X[()].astype(np.float32), list(map(str, symbols))


def _read_archive(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        declared = sum(member.file_size for member in archive.infolist())
    if declared > 4 * _MOST_VALUES:
        msg = f"{path}: claims {declared:,} bytes; at most {4 * _MOST_VALUES:,} are read."
        raise ModelError(msg)
    with np.load(path, allow_pickle=False) as content:
        named = next((name for name in ("keys", "gene_id", "symbol") if name in content), "")
        if not named or "vectors" not in content:
            msg = f"{path}: arrays {shorten(content.files)}; `vectors`, and `keys`, `gene_id` or `symbol` are needed."
            raise ModelError(msg)
        names, vectors = content[named].astype(np.str_), content["vectors"].astype(np.float32)
        symbols = content["symbol"].astype(np.str_) if "symbol" in content else names
    if names.ndim != 1 or vectors.ndim != 2 or not len(names) == len(vectors) == len(symbols):
        msg = (
            f"{path}: {named} of shape {names.shape} for vectors of shape {vectors.shape}; one name for each is needed."
        )
        raise ModelError(msg)
    keys, first, codes = np.unique(names, return_index=True, return_inverse=True)
    return keys.tolist(), grouped_means(vectors, codes), symbols[first].tolist() if named != "symbol" else ()


def grouped_means(vectors: NDArray[np.float32], groups: ArrayLike) -> NDArray[np.float32]:
    """(groups, width): plain mean of the vectors of every group; `groups` (rows,) counts from 0 without gaps."""
    groups = np.asarray(groups)
    order = np.argsort(groups, kind="stable")
    return reference_vectors(vectors, np.bincount(groups), order, np.ones(len(order), np.float32))


def _stack(path: Path, keys: Iterable[str], values: Iterable[Any]) -> NDArray[np.float32]:
    """One matrix of vectors that each must be of one dimension and one width, tensors or HDF5 datasets or lists."""
    rows: list[NDArray[np.float32]] = []
    for key, value in zip(keys, values, strict=True):
        shape = tuple(getattr(value, "shape", None) or np.shape(value))
        width = len(rows[0]) if rows else shape[0] if shape else 0
        if shape != (width,) or not 0 < width <= WIDEST or len(rows) * width > _MOST_VALUES:
            msg = f"{path}: {printable(key)} has the shape {shape}; one vector of {width or 'some'} numbers is needed."
            raise ModelError(msg)
        # Tensors of training may want a gradient, and half precision is not known to numpy.
        plain = value.detach().float() if hasattr(value, "detach") else value[()] if hasattr(value, "shape") else value
        rows.append(np.asarray(plain, dtype=np.float32))
    return np.stack(rows) if rows else np.zeros((0, 1), np.float32)
