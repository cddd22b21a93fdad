"""Finished protein vectors on the disk: one SQLite database per process, readable by all, every row with a checksum."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from uce.errors import StorageError
from uce.progress import say

_BUSY_SECONDS = 60.0
# No index, which could be damaged apart from the rows: all readings go through the rows in their order.
_TABLE = "CREATE TABLE IF NOT EXISTS vectors(sequence BLOB, checksum BLOB, vector BLOB)"
_READ = "SELECT rowid, sequence, checksum, vector FROM vectors WHERE rowid > ? ORDER BY rowid"


class Kept:
    """The database this process writes, `rank-0000.sqlite`. A damaged one is begun again, and that is said."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / f"rank-{rank:04d}.sqlite"

    def __enter__(self) -> Self:
        try:
            self._database = _opened(self.path)
        except sqlite3.OperationalError as error:
            raise _storage_error(self.path, error) from error
        except sqlite3.DatabaseError as error:
            say(f"{self.path}: damaged ({error}); its proteins are computed again.")
            for path in (self.path, self.path.with_name(self.path.name + "-journal")):
                path.unlink(missing_ok=True)
            self._database = _opened(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def write(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Store vectors by the hashes of their sequences, all of them or none.

        Raises
        ------
        StorageError
            The disk is full or cannot be written.
        """
        blobs = [row.astype("<f4").tobytes() for row in vectors]
        rows = [(key, _checksum(key, blob), blob) for key, blob in zip(keys, blobs, strict=True)]
        try:
            with self._database:
                self._database.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error


def finished(
    folder: Path, dim: int, *, seen: dict[tuple[str, int], int] | None = None, quiet: bool = True
) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Hash of the sequence and (dim,) vector of every protein that any process finished in `folder`.

    Rows whose checksum or length is wrong and databases that cannot be read are passed over, and said unless `quiet`.

    Parameters
    ----------
    seen
        Where an earlier call with the same dictionary stopped in each file: only what came since is read.
    """
    seen = {} if seen is None else seen
    for path in sorted(folder.glob("rank-[0-9]*.sqlite")):
        damaged = 0
        try:
            place = (path.name, path.stat().st_ino)
            for row, key, checksum, blob in _rows(path, seen.get(place, 0)):
                seen[place] = row
                whole = isinstance(key, bytes) and isinstance(blob, bytes) and len(blob) == 4 * dim
                if whole and checksum == _checksum(key, blob):
                    yield key, np.frombuffer(blob, dtype="<f4").astype(np.float32)
                else:
                    damaged += 1
        except FileNotFoundError:  # its process begins a damaged one again
            continue
        except sqlite3.DatabaseError as error:
            say(f"{path}: not readable to its end ({error}); what is missing is computed again.", quiet=quiet)
        if damaged:
            say(f"{path}: {damaged} damaged vectors; they are computed again.", quiet=quiet)


def kept_bytes(proteins: int, dim: int) -> int:
    """What so many vectors take in a database, pages included."""
    return round(1.3 * proteins * (4 * dim + 200)) + (1 << 16)


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        if (verdict := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
        with database:
            database.execute(_TABLE)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _rows(path: Path, after: int) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
        database.text_factory = bytes  # a damaged row may say that it is text
        yield from database.execute(_READ, (after,))


def _checksum(key: bytes, blob: bytes) -> bytes:
    return sha256(key + blob).digest()


def _storage_error(path: Path, error: Exception) -> StorageError:
    return StorageError(f"{path}: cannot be written ({error}). Free some space and run the same command again.")
