"""10x Genomics output: .h5 files of all versions, CellBender's among them, and the folder with matrix.mtx."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from uce.cells.frames import to_text
from uce.cells.layouts import CompressedRows, Rows, SelectedColumns, check_compressed
from uce.cells.slots import Cells, Slot, Source, check_number_type, check_shape
from uce.cells.spill import Triplets, check_positions, spill_rows
from uce.cells.stores import Store, read_vector
from uce.errors import InputError, UsageError
from uce.files import printable, shorten

LINES = 1_000_000  # entries of matrix.mtx parsed at a time
FEATURE_NAMES = ("features.tsv", "genes.tsv")
ENTRY_TYPES = {0: np.int64, 1: np.int64, 2: np.float64}


def tenx_source(store: Store, *, genome: str | None, stack: ExitStack, notes: list[str]) -> Source:
    """Cell Ranger 3 and later: one group `matrix`, features with ids, names, types and genomes.

    Raises
    ------
    InputError
        The arrays do not fit together.
    UsageError
        The genome asked for is not in the file.
    """
    columns = {
        new: _texts(store, f"matrix/features/{old}")
        for old, new in (("name", "gene_name"), ("feature_type", "feature_type"), ("genome", "genome"))
        if old in store.keys("matrix/features")
    }
    var = pd.DataFrame(columns, index=_index(_texts(store, "matrix/features/id")))
    if "gene_id" in store.keys("matrix/features"):
        var["gene_id"] = _texts(store, "matrix/features/gene_id")
        if "gene_name" in store.keys("matrix/features"):
            var["gene_name"] = _texts(store, "matrix/features/gene_name")
    targets, var = _select(var, genome=genome, file=store.file, notes=notes)
    return _source(store, "matrix", var, targets, stack=stack, notes=notes)


def legacy_source(store: Store, *, genome: str | None, stack: ExitStack, notes: list[str]) -> Source:
    """Cell Ranger 1 and 2: one group per genome.

    Raises
    ------
    UsageError
        Several genomes and none chosen, or the chosen one is not there.
    """
    genomes = [key for key in store.keys("") if {"barcodes", "genes", "data"} <= set(store.keys(key))]
    if genome is None and len(genomes) > 1:
        msg = f"{store.file}: holds {len(genomes)} genomes ({shorten(genomes)}); choose one with --genome."
        raise UsageError(msg)
    chosen = genomes[0] if genome is None else _check_genome(genome, genomes, store.file)
    var = pd.DataFrame({}, index=_index(_texts(store, f"{chosen}/genes")))
    if store.find(f"{chosen}/gene_names") is not None:
        var["gene_name"] = _texts(store, f"{chosen}/gene_names")
    if len(genomes) > 1:
        notes.append(f"genome {printable(chosen)} of {shorten(genomes)}.")
    return _source(store, chosen, var, None, stack=stack, notes=notes)


def _source(
    store: Store,
    group: str,
    var: pd.DataFrame,
    targets: npt.NDArray[np.int64] | None,
    *,
    stack: ExitStack,
    notes: list[str],
) -> Source:
    n_cells = int(store.need_array(f"{group}/barcodes").shape[0])

    def rows() -> Rows:
        where = f"{store.file}: {group}"
        declared = read_vector(store, store.need_array(f"{group}/shape"), f"{group}/shape").astype(np.int64)
        n_features = len(var) if targets is None else targets.size
        check_shape(store.file, group, (int(declared[1]), int(declared[0])), n_cells, n_features)
        data, indices, indptr = (store.need_array(f"{group}/{part}") for part in ("data", "indices", "indptr"))
        check_number_type(data.dtype, where)
        shape = (n_cells, n_features)
        check_compressed(where, n_data=data.shape[0], n_indices=indices.shape[0], indptr=indptr, shape=shape)
        # Stored as columns of features by cells, which are the rows of cells by features.
        stored = CompressedRows(where, data, indices, indptr, shape)
        return stored if targets is None else SelectedColumns(stored, targets, len(var))

    cells = _no_columns(partial(_texts, store, f"{group}/barcodes"))
    slots = {"matrix": Slot("matrix", rows, lambda: var)}
    return Source(store.file, "10x-h5", n_cells, slots, cells, None, notes, stack)


def _no_columns(names: Callable[[], npt.NDArray[np.object_]]) -> Cells:
    def no_column(name: str) -> npt.NDArray[np.object_]:
        raise KeyError(name)

    return Cells([], names, no_column, lambda _: None)


def _select(
    var: pd.DataFrame, *, genome: str | None, file: str, notes: list[str]
) -> tuple[npt.NDArray[np.int64] | None, pd.DataFrame]:
    """Columns of the chosen genome, probes of a gene joined; and the var that is left."""
    targets: npt.NDArray[np.int64] | None = None
    if genome is not None:
        known = sorted(set(var.get("genome", pd.Series(dtype=object)).dropna()) - {""})
        keep = np.asarray(var.get("genome") == _check_genome(genome, known, file), dtype=bool)
        targets = np.where(keep, np.cumsum(keep) - 1, -1)
        var = var[keep]
    if "gene_id" in var.columns:
        genes, first, inverse = np.unique(var["gene_id"].fillna("").astype(str), return_index=True, return_inverse=True)
        notes.append(f"{len(var)} probes summed into {len(genes)} genes.")
        targets = inverse.astype(np.int64) if targets is None else np.where(targets >= 0, inverse[targets], -1)
        var = var.iloc[first].set_axis(_index(genes.astype(object)), axis=0).drop(columns="gene_id")
    return targets, var


def _check_genome(genome: str, known: list[str], file: str) -> str:
    if genome not in known:
        msg = f"{file}: no genome {genome!r}; there are {shorten(known) or 'none'}."
        raise UsageError(msg)
    return genome


def _texts(store: Store, path: str) -> npt.NDArray[np.object_]:
    return to_text(read_vector(store, store.need_array(path), path), f"{store.file}: {path}")


def _index(names: npt.NDArray[np.object_]) -> pd.Index:
    return pd.Index(["" if name is None else name for name in names], dtype=object)


def folder_source(path: Path, *, genome: str | None, stack: ExitStack) -> Source:
    """matrix.mtx with barcodes.tsv and features.tsv or genes.tsv beside it, each plain or gzipped.

    Raises
    ------
    InputError
        A file is missing or damaged, or the sizes of the three do not agree.
    UsageError
        A genome was asked for: the files do not state any.
    """
    if genome is not None:
        msg = (
            f"{path}: genome={genome!r} is for 10x .h5 files; a folder holds one genome, or prefixes in its gene names."
        )
        raise UsageError(msg)
    matrix = _matrix_file(path)
    prefix = matrix.name.split("matrix.mtx")[0]
    barcodes = _table(_beside(path, prefix, ("barcodes.tsv",)))
    features = _table(_beside(path, prefix, FEATURE_NAMES))
    names = ("id", "gene_name", "feature_type")
    width = min((len(row) for row in features), default=1)
    var = pd.DataFrame(
        {names[i]: [row[i] for row in features] for i in range(1, min(width, 3))},
        index=pd.Index([row[0] for row in features], dtype=object),
    )

    def rows() -> Rows:
        return _text_rows(matrix, len(barcodes), len(features), stack)

    cell_names = np.array([row[0] for row in barcodes], dtype=object)
    slots = {"matrix": Slot("matrix", rows, lambda: var)}
    return Source(str(path), "10x-folder", len(barcodes), slots, _no_columns(lambda: cell_names), stack=stack)


def _matrix_file(path: Path) -> Path:
    found = sorted(entry for entry in path.iterdir() if entry.name.endswith(("matrix.mtx", "matrix.mtx.gz")))
    if len({entry.name.removesuffix(".gz") for entry in found}) > 1:
        msg = f"{path}: several matrices ({shorten([entry.name for entry in found])}); give each its own folder."
        raise InputError(msg)
    return found[0]


def _beside(path: Path, prefix: str, names: tuple[str, ...]) -> Path:
    for name in names:
        for file in (path / f"{prefix}{name}.gz", path / f"{prefix}{name}"):
            if file.is_file():
                return file
    msg = f"{path}: no {prefix}{' or '.join(names)} (plain or .gz) beside the matrix."
    raise InputError(msg)


def _open_text(file: Path) -> TextIO:
    if file.name.endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8", errors="surrogateescape", newline="")
    return file.open(encoding="utf-8", errors="surrogateescape", newline="")


def _table(file: Path) -> list[list[str]]:
    """Fields of a tab-separated file without header; empty lines at the end do not count."""
    try:
        with _open_text(file) as stream:
            lines = stream.read().replace("\r\n", "\n").rstrip("\n").split("\n")
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{file}: cannot be read ({printable(str(error))}); damaged or incomplete, fetch it again."
        raise InputError(msg) from error
    return [line.split("\t") for line in lines] if lines != [""] else []


def _text_rows(file: Path, n_cells: int, n_features: int, stack: ExitStack) -> Rows:
    """matrix.mtx as rows of cells, through a temporary copy: text cannot be read from the middle."""
    try:
        with _open_text(file) as stream:
            fields, size = _matrix_header(stream, file)
            turned = size[:2] == (n_cells, n_features) and n_cells != n_features
            if not turned and size[:2] != (n_features, n_cells):
                msg = (
                    f"{file}: {size[0]} x {size[1]}, but there are {n_features} features and {n_cells} barcodes in the "
                    "files beside it; they are not of one data set."
                )
                raise InputError(msg)
            entries = _entries(
                stream, file, shape=(n_cells, n_features), turned=turned, pattern="pattern" in fields, expected=size[2]
            )
            return spill_rows(
                entries,
                where=str(file),
                shape=(n_cells, n_features),
                dtype=np.dtype(float),
                n_entries=size[2],
                stack=stack,
            )
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        msg = f"{file}: cannot be read ({printable(str(error), limit=120)}); damaged or incomplete, fetch it again."
        raise InputError(msg) from error


def _matrix_header(stream: TextIO, file: Path) -> tuple[list[str], tuple[int, int, int]]:
    fields = stream.readline(1000).lower().split()
    if fields[:3] != ["%%matrixmarket", "matrix", "coordinate"] or fields[4:] != ["general"]:
        msg = f"{file}: its first line is {printable(' '.join(fields))!r}; a MatrixMarket coordinate matrix is needed."
        raise InputError(msg)
    while (line := stream.readline()).startswith("%") or (line and not line.strip()):
        pass
    size = line.split()
    if len(size) != 3 or not all(part.isdigit() for part in size):
        msg = f"{file}: {printable(line.strip())!r} where rows, columns and entries are expected; the file is damaged."
        raise InputError(msg)
    return fields, (int(size[0]), int(size[1]), int(size[2]))


def _entries(
    stream: TextIO, file: Path, *, shape: tuple[int, int], turned: bool, pattern: bool, expected: int
) -> Triplets:
    """Entries as zero-based cell, feature and value; the number of lines must be the one announced."""
    found = 0
    width = 2 if pattern else 3
    dtypes = {i: ENTRY_TYPES[i] for i in range(width)}
    for part in _parts(stream, width, dtypes) if expected else ():
        cells, features = (part[0], part[1]) if turned else (part[1], part[0])
        rows, columns = cells.to_numpy() - 1, features.to_numpy() - 1
        check_positions(rows, shape[0], f"{file}: cell")
        check_positions(columns, shape[1], f"{file}: feature")
        found += len(part)
        yield rows, columns, np.ones(len(part)) if pattern else part[2].to_numpy()
    if found != expected:
        msg = f"{file}: {found} entries, {expected} announced; an incomplete download? Fetch it again."
        raise InputError(msg)


def _parts(stream: TextIO, width: int, dtypes: dict[int, Any]) -> Iterator[pd.DataFrame]:
    yield from pd.read_csv(
        stream, sep=r"\s+", header=None, names=list(range(width)), dtype=dtypes, chunksize=LINES, engine="c"
    )
