"""Long text files of genomes, line by line, plain or gzip; damage is an error that names the file."""

import gzip
import zlib
from collections.abc import Generator
from pathlib import Path

from uce.errors import InputError
from uce.files import printable


def read_lines(path: str | Path, kind: str) -> Generator[str, None, None]:
    """The lines of a file, all ended by one newline character; bytes that are no UTF-8 (in descriptions) are replaced.

    Close it (`contextlib.closing`) where it may not be read to its end.

    Parameters
    ----------
    kind
        What is expected there, for the message ("a FASTA file of proteins").

    Raises
    ------
    InputError
        The file is missing, or cannot be read to its end.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rt", encoding="utf-8-sig", errors="replace") as stream:
            yield from stream
    except FileNotFoundError as error:
        msg = f"{path}: no such file; {kind} is expected there."
        raise InputError(msg) from error
    except (EOFError, zlib.error, OSError) as error:
        why = printable(str(error), limit=120)
        msg = f"{path}: cannot be read to its end ({why}). It is damaged or not complete; get it again."
        raise InputError(msg) from error
