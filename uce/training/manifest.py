"""The manifest of a corpus: a CSV that names datasets, their files, species and roles. Nothing in it is trusted."""

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uce.errors import InputError, UsageError
from uce.files import nearest, printable, sha256_file, shorten

if TYPE_CHECKING:
    import pandas as pd

    from uce.training.settings import DataSettings

COLUMNS = ("dataset", "file", "species", "role")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def read_manifest(settings: "DataSettings") -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """The rows whose role is asked for, and the names of the other datasets.

    Raises
    ------
    UsageError
        The manifest is missing or no such table, a row of it cannot be used (the message counts lines from 1, the
        header being line 1), or no row is left.
    """
    path = Path(settings.manifest)
    rows = _read_table(path)
    if missing := [column for column in COLUMNS if column not in rows.columns]:
        needed = f"the columns {', '.join(COLUMNS)}, separated by commas, are needed"
        msg = f"{path}: column {missing[0]} is missing; {needed}."
        raise UsageError(msg)
    _check_rows(rows, path)
    known = rows["dataset"].tolist()
    if strangers := [name for name in settings.leave_out if name not in known]:
        msg = f"{path}: data.leave_out names {strangers[0]}, which is not in it.{nearest(strangers[0], known)}"
        raise UsageError(msg)
    kept = rows[rows["role"].isin(settings.roles) & ~rows["dataset"].isin(settings.leave_out)]
    if not len(kept):
        found = shorten(sorted(set(rows["role"])))
        msg = f"{path}: no dataset is left with role {shorten(list(settings.roles))}; its roles are {found}."
        raise UsageError(msg)
    return kept, tuple(rows["dataset"].drop(kept.index))


def _read_table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        msg = f"{path}: no such manifest. Name a CSV file with the columns {', '.join(COLUMNS)} as data.manifest."
        raise UsageError(msg)
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, comment="#", encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 at byte {error.start}. Save it as CSV in UTF-8."
        raise UsageError(msg) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        msg = f"{path}: not a table of comma-separated values ({printable(str(error), limit=100)})."
        raise UsageError(msg) from error


def _check_rows(rows: "pd.DataFrame", path: Path) -> None:
    """Names that are safe in file names and occur once; files below the data folder."""
    repeated = rows["dataset"].duplicated()
    for line, (name, file, again) in enumerate(zip(rows["dataset"], rows["file"], repeated, strict=True), 2):
        if not _NAME.fullmatch(name):
            msg = f"{path}: line {line}: dataset {printable(name)!r}; letters, digits, '.', '_' and '-' are allowed."
            raise UsageError(msg)
        if again:
            msg = f"{path}: line {line}: dataset {name} is listed twice. Remove one of the lines."
            raise UsageError(msg)
        parts = PurePosixPath(file.replace("\\", "/")).parts
        if not parts or parts[0] in ("/", "~") or ".." in parts or ":" in parts[0]:
            msg = f"{path}: line {line}: file {printable(file)!r}; a path below data.folder is needed."
            raise UsageError(msg)


def check_file(path: Path, sha256: str) -> None:
    """Refuse a file of the manifest that is missing or has another hash than the one recorded ("" is none).

    Raises
    ------
    InputError
        Naming the file.
    """
    if not path.is_file():
        msg = f"{path}: no such file. Set data.folder to the folder with the files of the manifest."
        raise InputError(msg)
    if sha256 and (found := sha256_file(path)) != sha256:
        msg = f"{path}: sha256 is {found[:12]}.., the manifest says {sha256[:12]}... Copy the file again."
        raise InputError(msg)
