"""The published side files: offsets, places of genes, symbol-to-vector files. Read without running anything in them.

The numbers a published model was trained with depend on orders that no file states: the position of a gene is that of
its symbol among the keys of a dictionary, the code of a chromosome its rank among all names of all species. They are
derived here. A gene's place is looked up by its first listing ("aligned"), or as the published program did it
("published"): its look-up returns *every* listing of a repeated symbol, so each symbol behind one that is listed twice
got the place of an earlier gene. Only zebrafish and frog list symbols twice.
"""

import csv
import gzip
import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError  # the exception alone: torch's restricted reader raises it
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from uce.errors import ModelError, UsageError
from uce.files import printable, shorten

Lookup = Literal["aligned", "published"]

_COLUMNS = ("gene_symbol", "chromosome", "start", "species")
_MOST_OFFSETS_BYTES = 1 << 20
_MOST_PLACES_BYTES = 256 << 20
_KEPT = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BININT", "BININT1", "BININT2", "INT", "LONG1", "LONG")
_SILENT = ("PROTO", "FRAME", "EMPTY_DICT", "DICT", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT")
_CLOSING = ("SETITEM", "SETITEMS", "STOP")
_SUFFIX = ".gene_symbol_to_embedding_ESM2.pt"


@dataclass(frozen=True, eq=False)
class Places:
    """The rows of the published table of chromosomes, in file order, all species together.

    Attributes
    ----------
    symbols, chromosomes, species
        (rows,) text; symbols are upper case, species are as the published program calls them.
    starts
        (rows,) first base of the gene.
    """

    symbols: NDArray[np.str_]
    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    species: NDArray[np.str_]

    @cached_property
    def codes(self) -> dict[tuple[str, str], int]:
        """(species, chromosome) -> code: the rank of the text "species_chromosome" among all of them, as published."""
        pairs = sorted(set(zip(self.species.tolist(), self.chromosomes.tolist(), strict=True)), key="_".join)
        return {pair: code for code, pair in enumerate(pairs)}

    def rows(self, species: str, symbols: Sequence[str], *, lookup: Lookup = "aligned") -> NDArray[np.int64]:
        """Row of each upper-case symbol, -1 where the species does not list it.

        Parameters
        ----------
        symbols
            Their order matters to the published look-up alone, and there it changes the result.

        Raises
        ------
        UsageError
            An unknown look-up.
        """
        if lookup not in get_args(Lookup):
            msg = f"lookup = {lookup!r}: choose one of {', '.join(get_args(Lookup))}."
            raise UsageError(msg)
        listed: dict[str, list[int]] = {}
        for row in np.flatnonzero(self.species == species).tolist():
            listed.setdefault(str(self.symbols[row]), []).append(row)
        if lookup == "aligned":
            return np.array([listed.get(symbol, (-1,))[0] for symbol in symbols], dtype=np.int64)
        every = iter([row for symbol in symbols for row in listed.get(symbol, ())])
        return np.array([next(every) if symbol in listed else -1 for symbol in symbols], dtype=np.int64)


def read_places(path: Path) -> Places:
    """Read `species_chrom.csv`, plain or gzipped.

    Raises
    ------
    ModelError
        The file is missing or not of this form.
    """
    text = _read_bytes(path, most=_MOST_PLACES_BYTES, unpack=path.suffix == ".gz")
    try:
        rows = list(csv.reader(io.StringIO(text.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: not readable as CSV ({printable(str(error))}). Download it again."
        raise ModelError(msg) from error
    header = rows[0] if rows else []
    if sorted(header) != sorted(_COLUMNS) or len(rows) < 2:
        msg = f"{path}: columns {shorten(header) or 'none'} found; {', '.join(_COLUMNS)} are needed."
        raise ModelError(msg)
    place = header.index("start")
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header) or not row[place].isdecimal() or len(row[place]) > 18:
            msg = f"{path}: line {line} is damaged ({printable(','.join(row))}). Download it again."
            raise ModelError(msg)
    column = dict(zip(header, zip(*rows[1:], strict=True), strict=True))
    return Places(
        symbols=np.array([symbol.upper() for symbol in column["gene_symbol"]]),
        chromosomes=np.array(column["chromosome"]),
        starts=np.array(column["start"], dtype=np.int64),
        species=np.array(column["species"]),
    )


def read_offsets(path: Path) -> dict[str, int]:
    """Read `species_offsets` (species -> first row in the table of tokens), the published pickle or JSON.

    The pickle is never executed: its opcodes are listed, and only those of a flat dictionary of numbers are admitted.

    Raises
    ------
    ModelError
        The file is missing, holds anything else, or asks for code to be run.
    """
    content = _read_bytes(path, most=_MOST_OFFSETS_BYTES)
    try:
        items = list(json.loads(content).items()) if path.suffix == ".json" else _flat_items(content)
    except (ValueError, AttributeError, RecursionError) as error:
        msg = f"{path}: {printable(str(error), limit=200)}; a plain dictionary of species to rows is needed."
        raise ModelError(msg) from error
    if not items or not all(isinstance(key, str) and type(value) is int and value >= 0 for key, value in items):
        msg = f"{path}: not a dictionary of species to rows. Download it again."
        raise ModelError(msg)
    return dict(items)


def _flat_items(content: bytes) -> list[tuple[Any, Any]]:
    """Keys and values of a pickled flat dictionary, by its opcodes.

    Raises
    ------
    ValueError
        For any other pickle, naming what it would have run.
    """
    flat = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _KEPT:
            flat.append(argument)
        elif opcode.name not in (*_SILENT, *_CLOSING):
            named = next(_globals(content), None)
            reason = f"asks to run {named}" if named else f"holds a {opcode.name}"
            msg = f"{reason}, which is refused"
            raise ValueError(msg)
    if len(flat) % 2:
        msg = "a key without a value"
        raise ValueError(msg)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _globals(content: bytes) -> Iterator[str]:
    """The names a pickle would import, "module.name", as far as its opcodes can be read."""
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:
        return


def _read_bytes(path: Path, *, most: int, unpack: bool = False) -> bytes:
    if not path.is_file():
        msg = f"{path}: no such file. Give the path of the published {path.name}."
        raise ModelError(msg)
    try:
        with gzip.open(path) if unpack else path.open("rb") as stream:
            content: bytes = stream.read(most + 1)
    except (OSError, EOFError) as error:
        msg = f"{path}: cannot be read ({printable(str(error))}). Download it again."
        raise ModelError(msg) from error
    if len(content) > most:
        msg = f"{path}: more than {most:,} bytes; the published file is far smaller. Download it again."
        raise ModelError(msg)
    return content


# What torch's reader was seen to raise on bytes that were changed or cut.
_DAMAGED = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, OverflowError, MemoryError),
)


def read_tensors(path: Path) -> Any:
    """What torch saved in a file, mapped from the disk where its form allows; tensors in plain containers only.

    Raises
    ------
    ModelError
        The file is missing, damaged, or holds anything that would run code; the message names it.
    """
    import torch

    if not path.is_file():
        msg = f"{path}: no such file. Give the path of the published file."
        raise ModelError(msg)
    try:
        with warnings.catch_warnings():
            # torch also warns of unusual pickles, just before it refuses them.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (UnpicklingError, *_DAMAGED) as error:
        named = _refused(path, str(error)) if isinstance(error, UnpicklingError) else ""
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0] or type(error).__name__
        msg = f"{path}: not readable as tensors ({printable(reason)}). Download it again."
        if named.startswith("numpy."):
            way = "Save it with plain text keys and tensors, or as .npz"
            msg = f"{path}: holds {named}, which only code can read. {way}."
        elif named:
            msg = f"{path}: asks to run {named}, which is refused. Only tensors are read; do not use this file."
        raise ModelError(msg) from error


def _refused(path: Path, message: str) -> str:
    """The name that torch refused to import, from its message, else from the pickle itself; "" if there is none."""
    if found := re.search(r"GLOBAL ([\w.]+)", message):
        return found[1]
    with path.open("rb") as stream:
        content = stream.read(_MOST_OFFSETS_BYTES)
    # A bare pickle, or the first part of torch's archive, where it stands as it is.
    start = re.search(rb"\x80[\x02-\x05]", content)
    named = _globals(content[start.start() if start else 0 :])
    return next((name for name in named if not name.startswith(("collections.OrderedDict", "torch."))), "")


def find_vectors(folder: Path) -> dict[str, Path]:
    """The symbol-to-vector files of a folder by latin name: "Homo_sapiens.GRCh38..." -> "homo_sapiens".

    Raises
    ------
    ModelError
        There is none, or two of one species.
    """
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    found = {path.name.split(".")[0].lower(): path for path in paths}
    if not paths or len(found) < len(paths):
        what = f"two of one species among {shorten([path.name for path in paths])}" if paths else "none found"
        msg = f"{folder}: files *{_SUFFIX} are needed, one per species; {what}."
        raise ModelError(msg)
    return found


def read_vectors(path: Path) -> dict[str, Any]:
    """Upper-case symbol -> vector, in the order that gives every gene its row.

    Where two keys are one in upper case, the first gives the place and the last the vector, as published.

    Raises
    ------
    ModelError
        Not a dictionary of symbols to vectors of one width.
    """
    import torch

    content = read_tensors(path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        msg = f"{path}: not a dictionary of gene symbols to vectors. Give the published file."
        raise ModelError(msg)
    vectors = {key.upper(): value for key, value in content.items()}
    widths = {tuple(value.shape) if torch.is_tensor(value) else None for value in vectors.values()}
    if len(widths) > 1 or len(widths.pop() or ()) != 1:
        msg = f"{path}: not one vector per symbol, all of one width. Give the published file."
        raise ModelError(msg)
    return vectors


def published_chromosome_vectors(
    taxon: int, chromosomes: Collection[str], species_label: str, width: int
) -> dict[str, NDArray[np.float32]]:
    """Chromosome -> (width,) vector of a new species, drawn by the published recipe so that all people have the same.

    One draw by torch's generator on the CPU, seeded with the NCBI taxonomy id, rows in the order of the sorted texts
    "species_chromosome": give all chromosomes of the species' genes. As torch 2.13 draws them; others may differ.
    """
    import torch

    names = sorted(set(chromosomes), key=lambda name: f"{species_label}_{name}")
    drawn = torch.normal(0.0, 1.0, size=(len(names), width), generator=torch.Generator().manual_seed(taxon))
    return dict(zip(names, drawn.numpy(), strict=True))
