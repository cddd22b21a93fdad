"""HDF5 files from elsewhere: what a small file may claim or point at is refused before anything is read."""

from pathlib import Path
from typing import Any

from uce.errors import ModelError
from uce.files import printable

_MOST_VALUES, _MOST_TEXTS = 1 << 29, 2_000_000
# gzip packs at most 1,032 bytes into one; what is never filled is not stored at all.
_MOST_PACKED, _FREE_BYTES = 2_000, 4_096


def refuse_traps(path: Path, file: Any) -> None:
    """Look at every dataset of an open `h5py.File` without reading it.

    Raises
    ------
    ModelError
        A link or a dataset has its content elsewhere, or a dataset claims more values than are read (2**29 numbers,
        2,000,000 texts) or than what is stored of it can hold.
    """
    import h5py

    names: list[str] = []
    file.visit_links(names.append)  # h5py cannot pass on an error from within a visit: nothing is opened there
    for name in names:
        item = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        dataset = isinstance(item, h5py.Dataset)
        if item is None or (dataset and (item.is_virtual or item.external)):
            msg = f"{path}: {printable(name)} points at other files or places; a file must hold its own content."
            raise ModelError(msg)
        if dataset and _claims_too_much(item):
            msg = f"{path}: {printable(name)} claims the shape {item.shape}, more than is read or than the file holds."
            raise ModelError(msg)


def _claims_too_much(dataset: Any) -> bool:
    most = _MOST_VALUES if dataset.dtype.kind in "fiub" else _MOST_TEXTS
    stored = dataset.id.get_storage_size() + _FREE_BYTES
    return (dataset.size or 0) > most or dataset.nbytes > _MOST_PACKED * stored
