"""What kind of file a path is, told by its first bytes and its elements rather than by its name."""

import gzip
import re
import zlib
from contextlib import ExitStack
from pathlib import Path

import h5py

from uce.cells.stores import Store, open_hdf5, open_zarr, zip_root
from uce.errors import InputError
from uce.files import nearest, printable, shorten

HDF5_MARK = b"\x89HDF\r\n\x1a\n"
MARKS = {  # first bytes -> what it is, and the way out
    b"PAR1": "a Parquet table",
    b"\x93NUMPY": "a NumPy array",
    b"ARROW1": "an Arrow file",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"%PDF": "a PDF",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"RDX": "an R data file; in R write it with zellkonverter::writeH5AD or anndataR::write_h5ad",
    b"X\n\x00\x00": "an R data file (RDS); in R write it with zellkonverter::writeH5AD or anndataR::write_h5ad",
    b"%%MatrixMarket": "a bare matrix without names; give the folder that also holds barcodes.tsv and features.tsv",
    b"\x1f\x8b": "a gzip archive; unpack it first",
}
USABLE = "Give an .h5ad, a .zarr folder, a .zarr.zip, a 10x .h5 or a 10x folder."


def container_of(path: Path) -> str:
    """Tell "hdf5", "zarr", "zarr-zip" and "10x-folder" apart.

    Raises
    ------
    InputError
        Nothing is there, or it is none of these; the message says what it is instead.
    """
    if re.match(r"^\w+:/+\w", str(path)) and not path.exists():
        address = re.sub(":/+", "://", str(path), count=1)  # a Path has folded the slashes
        msg = f"{address}: an address on the network; download the file first and give its path."
        raise InputError(msg)
    if not path.exists():
        folder = path.parent
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        msg = f"{printable(str(path), limit=300)}: no such file.{nearest(path.name, names)}"
        raise InputError(msg)
    if path.is_dir():
        return _folder_kind(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check its permissions."
        raise InputError(msg) from error
    if h5py.is_hdf5(path) or head.startswith(HDF5_MARK):
        return "hdf5"
    if head.startswith(b"PK\x03\x04") and zip_root(path) is not None:
        return "zarr-zip"
    msg = f"{printable(str(path), limit=300)}: {_describe(path, head)}. {USABLE}"
    raise InputError(msg)


def _folder_kind(path: Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    if names & {".zgroup", "zarr.json"}:
        return "zarr"
    if any(name.endswith(("matrix.mtx", "matrix.mtx.gz")) for name in names):
        return "10x-folder"
    msg = (
        f"{path}: a folder with neither matrix.mtx[.gz] (10x) nor .zgroup or zarr.json (zarr); it holds "
        f"{shorten(sorted(names)) or 'nothing'}. {USABLE}"
    )
    raise InputError(msg)


def _describe(path: Path, head: bytes) -> str:
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip archive without zarr in it"
    if head.startswith(b"\x1f\x8b"):
        return _describe_gzip(path)
    for mark, words in MARKS.items():
        if head.startswith(mark):
            return words
    return _describe_text(head) or "of an unknown kind, or damaged at its beginning"


def _describe_gzip(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            head = stream.read(4096)
    except (OSError, EOFError, zlib.error):
        return "a damaged gzip archive"
    if head[257:262] == b"ustar" or path.name.endswith((".tar.gz", ".tgz")):
        return "a packed folder (tar.gz); unpack it first with: tar xzf FILE, then give the folder"
    inner = next((words for mark, words in MARKS.items() if head.startswith(mark)), None)
    return inner or (f"{_describe_text(head)}, compressed" if _describe_text(head) else MARKS[b"\x1f\x8b"])


def _describe_text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page; the download gave an error page instead of the file"
    if b"\x00" in head or sum(byte < 9 for byte in head):
        return None
    line = head.split(b"\n", 1)[0]
    if line.count(b"\t") or line.count(b",") or line.count(b";"):
        return "a table of text (turn it into an AnnData, cells in rows, and write_h5ad)"
    return "a text file"


def open_store(path: Path, container: str, stack: ExitStack, notes: list[str]) -> Store:
    """Open a file or folder of the given container for reading."""
    return open_hdf5(path, stack, notes) if container == "hdf5" else open_zarr(path, stack)


def layout_of(store: Store) -> str:
    """Tell "anndata", "10x" and "10x-legacy" apart, by the elements at the top of an open store.

    Raises
    ------
    InputError
        Another kind of file, named where it is known.
    """
    keys = set(store.keys())
    matrix = store.find("matrix") if "matrix" in keys else None
    if "obs" in keys and "var" in keys and "mod" not in keys:
        return "anndata"
    if "matrix" in keys and {"barcodes", "data", "indices", "indptr"} <= set(store.keys("matrix")):
        return "10x"
    if any({"barcodes", "genes", "data"} <= set(store.keys(key)) for key in keys):
        return "10x-legacy"
    if "mod" in keys:
        msg = (
            f"{store.file}: an .h5mu of several modalities ({shorten(store.keys('mod'))}); write out the gene one: "
            "mudata.read_h5mu(FILE).mod['rna'].write_h5ad('rna.h5ad')."
        )
    elif {"row_attrs", "col_attrs"} <= keys and hasattr(matrix, "shape"):
        msg = f"{store.file}: a loom file; convert it with anndata.io.read_loom(FILE).write_h5ad('cells.h5ad')."
    elif "assays" in keys or "cell.names" in keys:
        msg = f"{store.file}: an h5Seurat file; convert it with SeuratDisk::Convert or anndataR::write_h5ad."
    elif "barcode_idx" in keys or {"barcodes", "umi"} <= keys:
        msg = f"{store.file}: a 10x molecule_info file; give filtered_feature_bc_matrix.h5 of the same run."
    else:
        top = shorten(sorted(keys)) or "no elements"
        msg = f"{store.file}: no AnnData and no 10x matrix in it; at its top are {top}. {USABLE}"
    raise InputError(msg)
