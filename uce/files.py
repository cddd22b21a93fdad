"""Writing without half files, refusing to overwrite, hashing, and where the user's own data lives."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from uce.errors import OutputExistsError, StorageError, UsageError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and takes the final name, else it is removed.

    A folder is flushed with all that is in it: under its final name it is whole, even after a power failure.

    Raises
    ------
    StorageError
        The folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    # Process ids repeat on other hosts, which may share this folder.
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{uuid4().hex[:8]}")
    try:
        try:
            yield temporary
            for inner in temporary.rglob("*"):
                if not inner.is_symlink():
                    _flush(inner)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in _STORAGE_ERRORS:
            raise
        msg = f"{path}: cannot be written ({os.strerror(error.errno or 0)}). Choose another place, or free some space."
        raise StorageError(msg) from error


_STORAGE_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EDQUOT}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON with sorted keys, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def refuse_overwrite(path: str | Path, *, overwrite: bool) -> Path:
    """Return `path` if nothing is there, or if overwriting was asked for.

    Raises
    ------
    OutputExistsError
        Something of this name exists and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        msg = f"{path} exists. Choose another --output, or pass --overwrite."
        raise OutputExistsError(msg)
    return path


def make_folder(folder: str | Path) -> Path:
    """Create `folder`, with all above it, where it is missing, and prove that it takes files.

    Raises
    ------
    StorageError
        It cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        own = folder.is_relative_to(user_folder())
        way = "Point UCE_HOME at a folder of yours" if own else "Choose another place"
        msg = f"{folder}: cannot be made ({error.strerror}). {way}."
        raise StorageError(msg) from error
    check_writable(folder)
    return folder


def picture_path(path: str | Path) -> Path:
    """`path`, if its ending is that of a picture that can be drawn.

    Raises
    ------
    UsageError
        It is another.
    """
    path = Path(path)
    if path.suffix.lower() not in {".png", ".pdf", ".svg"}:
        msg = f"{path}: not a picture. Use a name that ends in .png, .pdf or .svg."
        raise UsageError(msg)
    return path


def check_writable(folder: str | Path, *, needed_bytes: int = 0) -> None:
    """Prove, before any work, that `folder` exists, takes a file and has room for `needed_bytes`.

    Raises
    ------
    StorageError
        Naming what is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"{folder}: no such folder. Create it first, or choose another --output."
        raise StorageError(msg)
    probe = folder / f".uce-probe-{os.getpid()}"
    try:
        # An actual write: the permission bits say nothing to an administrator or on a read-only mount.
        probe.write_bytes(b"x")
    except OSError as error:
        msg = f"{folder}: cannot write there ({error.strerror}). Choose another --output."
        raise StorageError(msg) from error
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        gap = f"{needed_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        msg = f"{folder}: {gap}. Free some space, or choose another --output."
        raise StorageError(msg)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_arrays(*arrays: npt.NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and content of arrays (text arrays by their UTF-8 lines), as hexadecimal text."""
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype.kind in "OU":
            joined = "\n".join(str(item) for item in array.ravel())
            digest.update(f"text{array.shape}".encode() + joined.encode())
        else:
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            digest.update(little.data)
    return digest.hexdigest()


def user_folder() -> Path:
    """The folder for models and gene tables of this user: `$UCE_HOME`, else `~/.local/share/uce`. Not created here."""
    if home := os.environ.get("UCE_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "uce"


def nearest(name: str, choices: "list[str]") -> str:
    """A clause ` Did you mean X?` for the choice closest to `name`, or an empty text."""
    found = get_close_matches(name, choices, n=1)
    return f" Did you mean {found[0]}?" if found else ""


def shorten(items: "list[str]", *, limit: int = 5) -> str:
    """The first `limit` items joined by commas, with the total where some are left out; control characters escaped."""
    shown = ", ".join(printable(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"


def printable(text: str, *, limit: int = 60) -> str:
    """`text` without control characters (they would reach the terminal) and cut to `limit` characters."""
    clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[:limit])
    return clean if len(text) <= limit else clean + "..."
