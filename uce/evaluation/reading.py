"""From a file or an AnnData to the cells that are judged, and the vectors that are already there."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.cells.counts import open_source
from uce.cells.labels import is_labelled
from uce.cells.slots import Source
from uce.cells.stores import reading
from uce.engines import Settings as Computing
from uce.errors import InputError, UsageError
from uce.evaluation.cells import Cells
from uce.evaluation.counts import CountsOptions, with_counts
from uce.evaluation.embeddings import Floats, as_vectors
from uce.evaluation.results import NotPossible
from uce.evaluation.subsamples import stratified
from uce.files import nearest, shorten
from uce.model.checkpoint import Model

if TYPE_CHECKING:
    from anndata import AnnData

_SEVERAL = {"batch": "batches", "group": "groups", "dataset": "datasets", "assay": "assays"}


@dataclass(frozen=True)
class Columns:
    """Columns of `obs` that say what a cell is and where it comes from.

    Attributes
    ----------
    label
        What each cell is.
    batch
        Its technical batch.
    group, dataset, assay
        Independent units: donor, study, technology.
    """

    label: str
    batch: str | None = None
    group: str | None = None
    dataset: str | None = None
    assay: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Role -> column, of those that were given."""
        return {role: column for role, column in asdict(self).items() if column is not None}


@dataclass(frozen=True, eq=False)
class Judged:
    """What was read.

    Attributes
    ----------
    cells
        Those that are judged, in the order of the source.
    given
        `obsm` key -> vectors (cells, dim) of these cells.
    broken
        `obsm` key -> why it holds no vectors.
    records
        What this package wrote down about them, by key.
    facts
        Numbers of cells and what was left out, for the report.
    draws
        Positions in `cells` of every subsample; one draw of all of them where they are few enough.
    embed
        Whether the model embeds these cells anew, rather than only lending its gene vectors to baselines.
    """

    cells: Cells
    given: dict[str, Floats]
    broken: dict[str, str]
    records: dict[str, Any]
    facts: dict[str, Any]
    draws: tuple[NDArray[np.int64], ...]
    embed: bool = True

    def record_of(self, name: str) -> dict[str, Any]:
        """What this package wrote down when it made the vectors of a row; empty where it did not."""
        return dict(self.records.get(name.removeprefix("obsm/"), {}))


def read_cells(
    data: "str | Path | AnnData",
    columns: Columns,
    *,
    keys: Sequence[str] = (),
    model: Model | None = None,
    computing: Computing | None = None,
    options: CountsOptions | None = None,
    need_model: bool = True,
    max_cells: int = 20_000,
    draws: int = 1,
    seed: int = 0,
) -> Judged:
    """Read labels, vectors and counts of the cells that can be judged.

    Parameters
    ----------
    data
        .h5ad, AnnData zarr, or an AnnData; it is not changed.
    columns
        Of `obs`.
    keys
        Of `obsm`.
    model, computing
        What the genes are made ready for, and how it computes; None reads counts without resolving genes.
    options
        How counts and genes are found.
    need_model
        Whether counts that do not suit the model are an error, or only a reason why it has no reader.
    max_cells, draws, seed
        More cells than `max_cells` are drawn from `draws` times, stratified by batch and label.

    Raises
    ------
    UsageError
        A column or key that is not there; the nearest one is offered.
    InputError
        The source cannot be read, no cell has a label, or a model is needed and the counts do not suit it.
    """
    options = options or CountsOptions()
    opened = open_source(data, genome=options.genome)
    with closing(opened.stack):
        table = {role: _column(opened, column) for role, column in columns.given.items()}
        _refuse_missing_keys(opened, keys)
        kept, facts = _usable(opened, columns, table)
        drawn = [
            stratified(_texts(table["label"])[kept], _texts(table.get("batch"), opened.n_cells)[kept], max_cells, rng)
            for rng in (np.random.default_rng([seed, 1, number]) for number in range(draws))
        ]
        rows = kept if len(kept) <= max_cells else kept[np.unique(np.concatenate(drawn))]
        positions = (
            (np.arange(len(rows)),)
            if len(kept) <= max_cells
            else tuple(np.searchsorted(rows, kept[draw]) for draw in drawn)
        )
        given, broken = _vectors(opened, keys, rows)
        with reading(f"{opened.file}: uns/uce"):
            records = opened.records()
        names = _distinct(_texts(opened.cells.names()))[rows]
        name, species = _name(data), opened.organism

    roles = {role: _texts(table[role])[rows] for role in _SEVERAL if role in table}
    cells = Cells(
        name,
        names,
        _texts(table["label"])[rows],
        batches=roles.get("batch"),
        groups=roles.get("group"),
        datasets=roles.get("dataset"),
        assays=roles.get("assay"),
        rows=rows,
    )
    cells = with_counts(data, cells, model, computing, options, needed=need_model)
    facts |= {"judged": len(rows), "subsamples": len(positions), "cells_of_one": len(positions[0])}
    facts |= {"organism": species, "species": cells.reader.match.table.species if cells.reader else None}
    return Judged(cells, given, broken, records, facts, positions)


def _name(data: Any) -> str:
    return Path(data).name.removesuffix(".h5ad").removesuffix(".zarr") if isinstance(data, str | Path) else "cells"


def _column(opened: Source, name: str) -> NDArray[np.object_]:
    if name not in opened.cells.columns:
        msg = (
            f"{opened.file}: obs has no column {name!r}.{nearest(name, opened.cells.columns)} "
            f"Columns: {shorten(opened.cells.columns, limit=12) or 'none'}."
        )
        raise UsageError(msg)
    with reading(f"{opened.file}: obs/{name}"):
        return opened.cells.text(name)


def _refuse_missing_keys(opened: Source, keys: Sequence[str]) -> None:
    for key in keys:
        if key not in opened.obsm:
            there = shorten(sorted(opened.obsm), limit=12) or "none"
            msg = f"{opened.file}: obsm has no {key!r}.{nearest(key, list(opened.obsm))} Keys: {there}."
            raise UsageError(msg)


def _usable(
    opened: Source, columns: Columns, table: Mapping[str, NDArray[np.object_]]
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Rows with a label and with a value in every other column that was given; how many lacked which."""
    labelled = is_labelled(table["label"])
    if not labelled.any():
        shown = shorten(sorted({str(label) for label in table["label"] if label is not None}))
        msg = f"{opened.file}: no cell has a label in obs column {columns.label!r} (it holds {shown or 'nothing'})."
        raise InputError(msg)
    complete = labelled.copy()
    lacking = {}
    for role in _SEVERAL:
        if role in table:
            there = np.array([value is not None and str(value).strip() != "" for value in table[role]])
            lacking[columns.given[role]] = int((labelled & ~there).sum())
            complete &= there
    kept = np.flatnonzero(complete)
    if not len(kept):
        msg = f"{opened.file}: no cell has both a label and a value in {shorten(list(lacking))}."
        raise InputError(msg)
    if len(kept) > 1 and len(np.unique(_texts(table["label"])[kept])) == len(kept):
        msg = f"{opened.file}: every cell has a label of its own in obs column {columns.label!r}. Give another."
        raise InputError(msg)
    return kept, {
        "file": Path(opened.file).name,
        "columns": columns.given,
        "cells": opened.n_cells,
        "without_label": int((~labelled).sum()),
        "lacking": {name: count for name, count in lacking.items() if count},
        "labels": len(np.unique(_texts(table["label"])[kept])),
        **{_SEVERAL[role]: len(np.unique(_texts(table[role])[kept])) for role in table if role != "label"},
    }


def _texts(values: NDArray[np.object_] | None, n: int = 0) -> NDArray[np.str_]:
    if values is None:
        return np.full(n, "", dtype=np.str_)
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)


def _distinct(names: NDArray[np.str_]) -> NDArray[np.object_]:
    """The names of cells, those that several have with their row: rows of two embeddings are matched by them."""
    found, codes, times = np.unique(names, return_inverse=True, return_counts=True)
    told = [f"{found[code]} (row {row})" if times[code] > 1 else str(found[code]) for row, code in enumerate(codes)]
    return np.array(told, dtype=object)


def _vectors(opened: Source, keys: Sequence[str], rows: NDArray[np.int64]) -> tuple[dict[str, Floats], dict[str, str]]:
    given, broken = {}, {}
    for key in keys:
        try:
            with reading(f"{opened.file}: obsm/{key}"):
                given[key] = as_vectors(opened.obsm[key](), opened.n_cells, f"obsm[{key!r}]")[rows]
        except (NotPossible, InputError) as error:
            broken[key] = str(error)
    return given, broken
