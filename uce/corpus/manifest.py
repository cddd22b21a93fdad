"""The manifest of a corpus: a CSV with a row per dataset. Somebody's spreadsheet, so nothing in it is trusted."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from uce.corpus.expressions import parse_expression
from uce.errors import InputError, UceError, UsageError
from uce.files import nearest, printable, shorten
from uce.genes.catalogue import canonical_species

FORM = "a CSV with the columns dataset_id (or dataset), path (or file), species"
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIXES = (".zarr.zip", ".h5ad", ".h5")
_ROLES = ("train", "validation", "test")
# Field of a row -> the columns it is read from, best first: `file` where the manifest has both, as `path` then says
# where in a source repository the data came from.
_COLUMNS = {
    "name": ("dataset_id", "dataset"),
    "path": ("file", "path"),
    "species": ("species",),
    "split": ("split", "role"),
    "study": ("study", "collection", "accession"),
    "assay": ("assay", "technology"),
    "tissue": ("tissue",),
    "layer": ("layer",),
    "gene_column": ("gene_column",),
    "donor_column": ("donor_column",),
    "cell_type_column": ("cell_type_column",),
    "batch_column": ("batch_column",),
    "filter": ("filter",),
    "weight": ("weight",),
    "licence": ("licence", "license"),
    "sha256": ("sha256",),
}
_NEEDED = ("name", "path", "species")


@dataclass(frozen=True)
class DatasetRow:
    """One row of a manifest, checked. Texts that are not given are "".

    Attributes
    ----------
    line
        Where it stands in the file; the header is line 1.
    name, path, species
        Safe as the name of a folder; below the data folder, or an https address; Latin name.
    split, study
        "train", "validation", "test"; what keeps sister datasets together (collection, DOI or accession).
    filter
        An expression that cells must fulfil, see `uce.corpus.expressions`.
    weight
        How often the dataset is drawn in training, relative to its size.
    """

    line: int
    name: str
    path: str
    species: str
    split: str = ""
    study: str = ""
    assay: str = ""
    tissue: str = ""
    layer: str = ""
    gene_column: str = ""
    donor_column: str = ""
    cell_type_column: str = ""
    batch_column: str = ""
    filter: str = ""
    weight: float = 1.0
    licence: str = ""
    sha256: str = ""

    @property
    def is_address(self) -> bool:
        """Whether the file is on the network until `uce corpus fetch` has brought it."""
        return self.path.startswith("https://")

    def file(self, folder: Path) -> Path:
        """The file of this row; one that was fetched has the name of the dataset.

        Raises
        ------
        InputError
            A link leads out of the folder.
        """
        if self.is_address:
            tail = urlsplit(self.path).path.lower()
            return folder / f"{self.name}{next((end for end in _SUFFIXES if tail.endswith(end)), '.h5ad')}"
        path = folder / self.path
        if not path.resolve().is_relative_to(folder.resolve()):
            msg = f"{path}: a link leads out of {folder}. Put the file itself there, or give another --folder."
            raise InputError(msg)
        return path


def read_manifest(path: str | Path) -> tuple[list[DatasetRow], list[str]]:
    """The rows of a manifest, in its order, and the names of the columns that are not used.

    Raises
    ------
    InputError
        The file is missing or no such table, or a row cannot be used; the message names the line.
    """
    path = Path(path)
    lines = list(_lines(path))
    header = [name.strip() for name in lines[0][1]] if lines else []
    places = _places(header, path)
    rows: list[DatasetRow] = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            msg = f"{path}: line {line}: {len(cells)} fields where the header has {len(header)}."
            raise InputError(msg)
        values = {field: cells[place].strip() for field, place in places.items()}
        try:
            rows.append(_row(line, values))
        except UceError as error:
            msg = f"{path}: line {line}: {error}"
            raise InputError(msg) from error
    if not rows:
        msg = f"{path}: no datasets in it; {FORM} is needed."
        raise InputError(msg)
    _refuse_repeats(rows, path)
    return rows, [name for place, name in enumerate(header) if place not in places.values()]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of the rows that are not blank and no comment, the header first."""
    if not path.is_file():
        msg = f"{path}: no such manifest; {FORM} is needed."
        raise InputError(msg)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read ({printable(str(error), limit=80)}). Save it as CSV in UTF-8."
        raise InputError(msg) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not cells[0].startswith("#"):
                yield reader.line_num, cells
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num}: not readable as CSV ({printable(str(error))})."
        raise InputError(msg) from error


def _places(header: list[str], path: Path) -> dict[str, int]:
    lowered = [name.lower() for name in header]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        found = "semicolons" if ";" in header[0] else "tabs"
        msg = f"{path}: separated by {found}. Save it as CSV with commas."
        raise InputError(msg)
    if repeated := sorted({name for name in lowered if name and lowered.count(name) > 1}):
        msg = f"{path}: line 1: column {printable(repeated[0])} is there twice. Remove one."
        raise InputError(msg)
    places = {}
    for field, names in _COLUMNS.items():
        place = next((lowered.index(name) for name in names if name in lowered), None)
        if place is not None:
            places[field] = place
        elif field in _NEEDED:
            hint = nearest(names[0], lowered)
            msg = f"{path}: line 1: no column {' or '.join(names)} among {shorten(header) or 'none'}.{hint}"
            raise InputError(f"{msg} {FORM} is needed.")
    return places


def _row(line: int, values: dict[str, str]) -> DatasetRow:
    for field, value in values.items():
        # A spreadsheet would run it when somebody opens the tables of the corpus.
        if value.startswith(("=", "+", "@")):
            msg = f"{_COLUMNS[field][0]} {printable(value)!r} is a spreadsheet's formula. Give its value."
            raise InputError(msg)
    checks: dict[str, Callable[[str], object]] = {
        "name": _checked_name,
        "path": _checked_path,
        "species": canonical_species,
        "split": partial(_one_of, _ROLES),
        "weight": _checked_weight,
        "sha256": _checked_hash,
        "filter": _checked_filter,
    }
    checked = {field: checks[field](value) if field in checks else value for field, value in values.items()}
    return DatasetRow(line, **checked)  # type: ignore[arg-type]  # the fields of _COLUMNS, each checked


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        msg = (
            f"dataset {printable(name)!r}; letters, digits, '.', '_' and '-' are allowed, up to 128, no '.' at an end."
        )
        raise UsageError(msg)
    return name


def _checked_path(text: str) -> str:
    if text.startswith("https://"):
        if urlsplit(text).hostname is None or any(not c.isprintable() or c.isspace() for c in text):
            msg = f"{printable(text)!r} is no address."
            raise UsageError(msg)
        return text
    plain = text.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if not parts or parts[0].startswith(("/", "~")) or ".." in parts or ":" in parts[0] or not plain.isprintable():
        msg = f"path {printable(text)!r}; a path below the folder of the data, or an https address, is needed."
        raise UsageError(msg)
    return plain


def _one_of(allowed: tuple[str, ...], value: str) -> str:
    if value and value not in allowed:
        msg = f"split {printable(value)!r}: {', '.join(allowed)}, or nothing.{nearest(value, list(allowed))}"
        raise UsageError(msg)
    return value


def _checked_weight(value: str) -> float:
    try:
        weight = float(value or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        msg = f"weight {printable(value)!r}: a number above 0 is needed."
        raise UsageError(msg)
    return weight


def _checked_hash(value: str) -> str:
    if value and not _SHA256.fullmatch(value.lower()):
        msg = f"sha256 {printable(value)!r}: 64 hexadecimal digits are needed, or nothing."
        raise UsageError(msg)
    return value.lower()


def _checked_filter(value: str) -> str:
    if value:
        parse_expression(value)
    return value


def _refuse_repeats(rows: list[DatasetRow], path: Path) -> None:
    """Names become folders, and some disks do not tell upper from lower case."""
    seen: dict[str, DatasetRow] = {}
    for row in rows:
        if (other := seen.setdefault(row.name.casefold(), row)) is not row:
            msg = f"{path}: line {row.line}: dataset {row.name} is listed on line {other.line} already. Rename one."
            raise InputError(msg)
