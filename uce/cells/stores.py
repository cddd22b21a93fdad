"""Reading elements of an HDF5 file or a zarr store without trusting it: links, bombs, missing filters."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from scipy import sparse

from uce.cells.layouts import Rows
from uce.errors import InputError, UceError
from uce.files import printable, shorten

LARGEST_RATIO = 1e5  # bytes once read to bytes of the whole file
MAX_LINKS = 8
FILTERS = {32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32015: "Zstandard", 32026: "Blosc2"}
READ_ERRORS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
)  # what h5py, zarr and their codecs raise on damaged bytes


@dataclass(frozen=True)
class Store:
    """An open HDF5 file or zarr group; paths are looked up step by step, each step checked.

    Attributes
    ----------
    file : name for messages.
    root : open group.
    size : bytes of the file, None where it is a folder.
    """

    file: str
    root: Any
    size: int | None

    @property
    def is_zarr(self) -> bool:
        """Whether this is zarr rather than HDF5."""
        return not isinstance(self.root, h5py.Group)

    def find(self, path: str) -> Any | None:
        """The group or array at `path`, None if there is none.

        Raises
        ------
        InputError
            The element lies in another file (external link, virtual or external storage), its links run in a circle,
            it is far larger than the file could hold, or its compression filter is missing.
        """
        node = self._walk(self.root, path, MAX_LINKS)
        if isinstance(node, h5py.Dataset):
            self._check_dataset(node, path)
        elif node is not None and hasattr(node, "shape"):
            self._check_size(node, path)
        return node

    def need(self, path: str) -> Any:
        """The element at `path`; InputError if there is none."""
        node = self.find(path)
        if node is None:
            msg = f"{self.file}: no element {path}; the file is damaged or not an AnnData file."
            raise InputError(msg)
        return node

    def need_array(self, path: str) -> Any:
        """The array at `path`; InputError if it is missing or a group."""
        node = self.need(path)
        if not hasattr(node, "shape"):
            msg = f"{self.file}: {path} is a group where an array is expected; the file is damaged."
            raise InputError(msg)
        return node

    def keys(self, path: str = "") -> list[str]:
        """Names in the group at `path`, none if it is missing or an array."""
        node = self.find(path) if path else self.root
        return [] if node is None or hasattr(node, "shape") else [str(key) for key in node]

    def attribute(self, path: str, name: str) -> Any | None:
        """One attribute of the element at `path`, bytes decoded; None if the element or the attribute is missing."""
        # One by one: HDF5 can loop for ever over a damaged attribute, so none is read that is not needed.
        node = self.find(path) if path else self.root
        if node is None or name not in node.attrs:
            return None
        value = node.attrs[name]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def _walk(self, group: Any, path: str, links_left: int) -> Any | None:
        node = group
        for step in [part for part in path.split("/") if part]:
            if hasattr(node, "shape"):
                return None
            if isinstance(node, h5py.Group):
                link = node.get(step, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    msg = f"{self.file}: {path} is a link into another file ({printable(link.filename)}); refused."
                    raise InputError(msg)
                if isinstance(link, h5py.SoftLink):
                    if links_left == 0:
                        msg = f"{self.file}: the links at {path} run in a circle; the file is damaged."
                        raise InputError(msg)
                    start = node.file if link.path.startswith("/") else node
                    node = self._walk(start, link.path, links_left - 1)
                    if node is None:
                        return None
                    continue
            if step not in node:
                return None
            node = node[step]
        return node

    def _check_dataset(self, dataset: h5py.Dataset, path: str) -> None:
        if dataset.is_virtual or dataset.external:
            msg = f"{self.file}: {path} keeps its values in other files; refused. Copy them into one file first."
            raise InputError(msg)
        self._check_size(dataset, path)
        filters = dataset.id.get_create_plist()
        codes = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
        missing = [code for code in codes if not _filter_available(code)]
        if missing:
            name = FILTERS.get(missing[0], "unknown")
            msg = (
                f"{self.file}: {path} is compressed with HDF5 filter {missing[0]} ({name}), which is not installed; "
                "pip install hdf5plugin, or write the file again with gzip."
            )
            raise InputError(msg)

    def _check_size(self, array: Any, path: str) -> None:
        if self.size is None:
            return
        logical = int(np.prod([int(n) for n in array.shape], dtype=object)) * array.dtype.itemsize
        if logical > LARGEST_RATIO * max(1, self.size):
            msg = (
                f"{self.file}: {path} claims {logical / 1e9:.3g} GB in a file of {self.size} bytes; refused. "
                "The file is damaged or made to exhaust memory."
            )
            raise InputError(msg)


def read_vector(store: Store, array: Any, path: str, part: slice = slice(None)) -> npt.NDArray[Any]:
    """A slice of an array on disk, with a clear error for damaged bytes."""
    with reading(f"{store.file}: {path}"):
        return np.asarray(array[part])


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the errors of h5py, zarr and their codecs on damaged bytes into an InputError about `what`."""
    try:
        yield
    except UceError:
        raise
    except READ_ERRORS as error:
        reason = printable(str(error), limit=120)
        msg = f"{what} cannot be read ({reason}); the file is damaged, fetch or write it again."
        raise InputError(msg) from error


def check_chunks(store: Store, *paths: str) -> None:
    """Raise InputError if a chunk of the vectors of a sparse zarr matrix is missing: zarr would read zeros instead.

    A vector of one chunk may rightly be all zeros (the indices of one gene), and is not checked.
    """
    for path in paths:
        array = store.need_array(path)
        # Chunks of a shard are counted as if every shard were full.
        shards = getattr(array, "shards", None) or array.chunks
        needed = -(-array.shape[0] // shards[0]) * (shards[0] // array.chunks[0])
        there = array.nchunks_initialized
        if needed > 1 and there < needed:
            msg = f"{store.file}: {path} has {there} of {needed} chunks; an incomplete copy? Fetch it again."
            raise InputError(msg)


@dataclass(frozen=True)
class GuardedRows:
    """Rows of another matrix; bytes that cannot be decoded are the user's damaged file, not a bug."""

    rows: Rows
    file: str

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.rows.dtype

    def block(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop` as CSR."""
        with reading(f"{self.file}: rows {start} to {stop}"):
            return self.rows.block(start, stop)


def _filter_available(code: int) -> bool:
    if h5py.h5z.filter_avail(code):
        return True
    if find_spec("hdf5plugin") is None:
        return False
    __import__("hdf5plugin")  # registers its filters
    return bool(h5py.h5z.filter_avail(code))


def open_hdf5(path: Path, stack: ExitStack, notes: list[str]) -> Store:
    """Open an HDF5 file for reading, without locks where the disk refuses them.

    Raises
    ------
    InputError
        Truncated, being written, or not HDF5.
    """
    size = path.stat().st_size
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        if not re.search(r"unable to lock file|already open for write", str(error)):
            raise InputError(_open_failure(path, size, str(error))) from error
        try:
            handle = h5py.File(path, "r", locking=False)
        except OSError as second:
            raise InputError(_open_failure(path, size, str(second))) from second
        notes.append("opened without a file lock: another program may be writing to it, or the disk has no locks.")
    return Store(str(path), stack.enter_context(handle), size)


def _open_failure(path: Path, size: int, reason: str) -> str:
    if found := re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", reason):
        return f"{path}: {found[1]} of {found[2]} bytes are there; an incomplete download or copy? Fetch it again."
    if "already open" in reason or "consistency flags" in reason:
        return f"{path}: open for writing elsewhere; close it there, or copy the file."
    return f"{path}: HDF5 cannot open it ({printable(reason, limit=160)}); {size} bytes, damaged or incomplete."


def open_zarr(path: Path, stack: ExitStack) -> Store:
    """Open a zarr folder, or a zip of one, for reading."""
    import zarr
    import zarr.storage

    # A consolidated copy of the metadata may be older than the arrays it describes.
    options: dict[str, Any] = {} if zarr.__version__.startswith("2.") else {"use_consolidated": False}
    with reading(str(path)):
        if path.is_dir():
            return Store(str(path), zarr.open_group(str(path), mode="r", **options), None)
        store = zarr.storage.ZipStore(str(path), mode="r")
        stack.callback(store.close)
        return Store(str(path), zarr.open_group(store, path=zip_root(path), mode="r", **options), path.stat().st_size)


def zip_root(path: Path) -> str | None:
    """Folder inside a zip that holds the zarr group, "" at the top, None if there is no zarr in it."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        msg = f"{path}: the zip archive is damaged or incomplete ({error}); fetch it again."
        raise InputError(msg) from error
    marks = [name for name in names if name.rsplit("/", 1)[-1] in (".zgroup", "zarr.json")]
    if not marks:
        return None
    top = min(marks, key=lambda name: (name.count("/"), name))
    return top.rpartition("/")[0]


def listed(names: list[str]) -> str:
    """Names for a message, cut at five; "none" where there are none."""
    return shorten(names) or "none"
