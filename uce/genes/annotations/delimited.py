"""Tables of text that users write: CSV or TSV, plain or gzip, with a header whose names come in many spellings."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from uce.errors import InputError
from uce.files import printable, shorten
from uce.genes.annotations.lines import read_lines


def first_line(numbered: Iterable[tuple[int, str]]) -> tuple[int, str] | None:
    """The first of numbered lines that is neither blank nor a comment (#), None without."""
    return next(((number, line) for number, line in numbered if not line.startswith("#") and not line.isspace()), None)


def column_names(header: str) -> list[str]:
    """The names in a line, in lower case with underscores for spaces and dashes; none where it cannot be split."""
    try:
        fields = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except csv.Error:
        return []
    return ["_".join(name.lower().replace("-", " ").split()) for name in fields]


def read_columns(
    path: Path, spellings: Mapping[str, Sequence[str]], *, needed: int, form: str
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number and wanted fields of every row that is not blank, without white space around them.

    Lines before the header that are blank or start with # are skipped.

    Parameters
    ----------
    spellings
        What is wanted -> the names it goes by, best first, as `column_names` writes them. Only the first `needed` must
        be there; a column that is not there gives "".
    form
        The true form of the file, for messages.

    Raises
    ------
    InputError
        The file is missing or damaged, lacks a column, or has rows longer or shorter than its header.
    """
    with closing(read_lines(path, f"a table of the form {form}")) as lines:
        begin, header = first_line(enumerate(lines, start=1)) or (1, "")
        names = column_names(header)
        columns = [next((names.index(name) for name in known if name in names), None) for known in spellings.values()]
        for what, column in list(zip(spellings, columns, strict=True))[:needed]:
            if column is None:
                msg = f"{path}: line {begin}: no column {what} among {shorten(names) or 'none'}. The form is {form}."
                raise InputError(msg)
        reader = csv.reader(lines, delimiter=_delimiter(header))
        try:
            for row in reader:
                place = begin + reader.line_num
                if len(row) not in (0, len(names)):
                    msg = f"{path}: line {place}: {len(row)} fields where the header has {len(names)}."
                    raise InputError(msg)
                if row:
                    yield place, tuple("" if column is None else row[column].strip() for column in columns)
        except csv.Error as error:
            msg = f"{path}: line {begin + reader.line_num}: not readable as CSV ({printable(str(error))})."
            raise InputError(msg) from error


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","
