"""Tables of text that users write: CSV or TSV, plain or gzip, with a header whose names come in many spellings."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from uce.errors import InputError
from uce.files import printable, shorten

_MOST_BYTES = 512 << 20


def read_columns(
    path: Path, spellings: Mapping[str, Sequence[str]], *, needed: int, form: str
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number and wanted fields of every row that is not blank, without white space around them.

    Parameters
    ----------
    spellings
        What is wanted -> the names it goes by, best first; in lower case with underscores, which spaces and dashes in
        the file count as. Only the first `needed` must be there; a column that is not there gives "".
    form
        The true form of the file, for messages.

    Raises
    ------
    InputError
        The file is missing, damaged or too large, lacks a column, or has rows longer or shorter than its header.
    """
    text = _text(path, form)
    header, _, _ = text.partition("\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",")
    try:
        names = ["_".join(name.lower().replace("-", " ").split()) for name in next(reader, [])]
        columns = [next((names.index(name) for name in known if name in names), None) for known in spellings.values()]
        for what, column in list(zip(spellings, columns, strict=True))[:needed]:
            if column is None:
                msg = f"{path}: line 1: no column {what} among {shorten(names) or 'none'}. The form is {form}."
                raise InputError(msg)
        for row in reader:
            if len(row) not in (0, len(names)):
                msg = f"{path}: line {reader.line_num}: {len(row)} fields where the header has {len(names)}."
                raise InputError(msg)
            if row:
                yield reader.line_num, tuple("" if column is None else row[column].strip() for column in columns)
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num}: not readable as CSV ({printable(str(error))})."
        raise InputError(msg) from error


def _text(path: Path, form: str) -> str:
    if not path.is_file():
        msg = f"{path}: no such file; a table of the form {form} is expected there."
        raise InputError(msg)
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read ({printable(str(error))}). CSV or TSV in UTF-8, plain or gzip, is needed."
        raise InputError(msg) from error
    if len(content) > _MOST_BYTES or "\0" in text:
        what = f"larger than {_MOST_BYTES >> 20} MB" if len(content) > _MOST_BYTES else "not text"
        msg = f"{path}: {what}. Give a table of the form {form}."
        raise InputError(msg)
    return text
