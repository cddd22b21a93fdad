"""Bringing the files of a manifest that are on the network; the only step of a corpus that uses it."""

from dataclasses import dataclass
from pathlib import Path

from uce.corpus.manifest import DatasetRow, read_manifest
from uce.corpus.survey import source_hash
from uce.errors import InputError, StorageError, UceError
from uce.files import make_folder
from uce.progress import say


@dataclass(frozen=True)
class Fetched:
    """What became of the addresses of a manifest: how many files came and were there, and those that failed."""

    fetched: int
    there: int
    failed: dict[str, str]


def fetch_files(manifest: str | Path, folder: str | Path, *, quiet: bool = True) -> Fetched:
    """Fetch every https row of a manifest to `folder`, as DATASET.h5ad; other rows are left alone.

    What was cut short goes on where it stopped. A row's sha256 is checked; a file that has another one is removed.

    Raises
    ------
    InputError
        The manifest cannot be used, or has no address.
    StorageError
        The folder cannot be written.
    """
    rows, _ = read_manifest(manifest)
    wanted = [row for row in rows if row.is_address]
    if not wanted:
        msg = f"{manifest}: no row has an https address; there is nothing to fetch."
        raise InputError(msg)
    folder = make_folder(folder)
    came, there, failed = 0, 0, {}
    for row in wanted:
        try:
            new = _fetch_row(row, row.file(folder), quiet=quiet)
        except StorageError:
            raise
        except UceError as error:
            failed[row.name] = str(error)
            say(f"{row.name}: {error}", quiet=quiet)
            continue
        came, there = came + new, there + (not new)
    return Fetched(came, there, failed)


def _fetch_row(row: DatasetRow, path: Path, *, quiet: bool) -> bool:
    """Have the file of a row; returns whether it had to be fetched."""
    from uce.model.catalogue import fetch

    if path.exists():
        source_hash(path, row)
        return False
    fetch(row.path, path, progress=not quiet)
    try:
        found = source_hash(path, row)
    except InputError as error:
        path.unlink()
        msg = f"{row.path} sent other bytes than the manifest states; they were removed ({error})"
        raise InputError(msg) from error
    if not row.sha256:
        say(f"{row.name}: the manifest has no sha256; the one that came is {found}", quiet=quiet)
    return True
