"""The user's cells: which of them are learned from, which are held out, and all of them as a small corpus."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uce.cells.counts import Counts, open_counts
from uce.cells.labels import is_labelled
from uce.cells.matching import match_species
from uce.corpus.build import build_corpus
from uce.corpus.layout import write_rows
from uce.corpus.quality import SWITCHES, QualityRules
from uce.errors import InputError, UsageError
from uce.files import printable, shorten
from uce.genes.resolver import MIN_SHARE
from uce.model.checkpoint import Model

Mask = NDArray[np.bool_]
# All cells of the file are the user's choice; only the filter that leaves out what is held out works.
_RULES = QualityRules(off=tuple(name for name in SWITCHES if name != "expression"))


@dataclass(frozen=True)
class CellsFile:
    """A file of cells and how its counts and genes are read."""

    path: Path
    species: str | None = None
    layer: str | None = None
    gene_column: str | None = None


@dataclass(frozen=True)
class HoldOut:
    """Cells to keep out of training: those with one of some values in a column of obs."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class UserCells:
    """What is known of the cells of a file before any work.

    Attributes
    ----------
    file, species
        Where they are, and the species (Latin name) whose genes they have.
    column
        Of obs, with the labels; "" where none are read.
    labels
        (cells,) text, "" where a cell has no label, or none are read.
    held_out
        (cells,) those kept out of training.
    hold_out
        How these were chosen, None where there are none.
    units
        (cells,) what is held out together: the value in that column; without one every cell is a unit of its own.
    fingerprint
        Hash of names, shape and some of the counts.
    """

    file: CellsFile
    species: str
    column: str
    labels: NDArray[np.str_]
    held_out: Mask
    hold_out: HoldOut | None
    units: NDArray[np.str_]
    fingerprint: str

    @property
    def name(self) -> str:
        """Of the file, fit to be that of a dataset."""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", self.file.path.stem).strip("_-")[:100] or "cells"

    @property
    def labelled(self) -> Mask:
        """(cells,) those with a label."""
        labelled: Mask = self.labels != ""
        return labelled

    @property
    def learned(self) -> Mask:
        """(cells,) those that labels are learned from."""
        return self.labelled & ~self.held_out


def read_user_cells(file: CellsFile, model: Model, *, column: str = "", hold_out: HoldOut | None = None) -> UserCells:
    """Look at a file of cells, and refuse what cannot be adapted to.

    Parameters
    ----------
    model
        Whose kind of gene vectors the genes are sought in.
    column
        Of obs, with the labels. "": no label is read.

    Raises
    ------
    UsageError
        There is no such column or value.
    InputError
        The file cannot be read, holds no gene of a known species, or has fewer than two labels to learn.
    """
    with open_counts(file.path, layer=file.layer) as counts:
        matches, _ = match_species(
            counts,
            species=file.species,
            gene_column=file.gene_column,
            encoder=model.gene_encoder,
            min_coverage=MIN_SHARE,
        )
        labels = _labels(counts, column) if column else np.zeros(counts.n_cells, np.str_)
        units = counts.obs_column(hold_out.column) if hold_out else np.arange(counts.n_cells).astype(np.str_)
        held_out = _held_out(counts, hold_out, units) if hold_out else np.zeros(counts.n_cells, bool)
        species, fingerprint = next(iter(matches)), counts.fingerprint()
    cells = UserCells(file, species, column, labels, held_out, hold_out, units, fingerprint)
    if column and len(known := np.unique(labels[cells.learned])) < 2:
        beside = " outside of --hold-out" if hold_out else ""
        found = shorten(known.tolist()) or "none"
        msg = f"{file.path}: obs column {column!r} has fewer than two labels{beside} ({found}); name another --labels."
        raise InputError(msg)
    if held_out.all():
        msg = f"{file.path}: --hold-out leaves no cell to learn from."
        raise InputError(msg)
    return cells


def _labels(counts: Counts, column: str) -> NDArray[np.str_]:
    labels = counts.obs_column(column)
    return np.where(is_labelled(labels), labels, "")


def _held_out(counts: Counts, hold_out: HoldOut, values: NDArray[np.str_]) -> Mask:
    if strange := [value for value in hold_out.values if value not in values]:
        there = shorten(np.unique(values).tolist(), limit=12)
        msg = f"{counts.file}: --hold-out: obs column {hold_out.column!r} has no {strange[0]!r}, but {there}."
        raise UsageError(msg)
    held_out: Mask = np.isin(values, hold_out.values)
    return held_out


def build_cells(cells: UserCells, folder: Path, model: Model, *, labelled: bool = False) -> Path:
    """The cells that are not held out as a corpus in `folder`; its manifest is beside it.

    Parameters
    ----------
    labelled
        Only those with a label.

    Raises
    ------
    UsageError, InputError, ModelError, StorageError
        See `uce.corpus.build`.
    """
    row = {
        "dataset": cells.name,
        "file": cells.file.path.name,
        "species": cells.species,
        "role": "train",
        "layer": cells.file.layer or "",
        "gene_column": cells.file.gene_column or "",
        "filter": _filter(cells, labelled=labelled),
        "cell_type_column": cells.column,
    }
    manifest = folder.with_suffix(".csv")
    write_rows(manifest, [row])
    built = build_corpus(manifest, folder, folder=cells.file.path.parent, encoder=model.gene_encoder, rules=_RULES)
    return built.folder


def _filter(cells: UserCells, *, labelled: bool) -> str:
    """The expression that the cells to train on fulfil."""
    conditions = [_unequal(cells.hold_out.column, cells.hold_out.values)] if cells.hold_out else []
    if labelled:
        with open_counts(cells.file.path, layer=cells.file.layer) as counts:
            values = np.unique(counts.obs_column(cells.column)[~cells.labelled])
        conditions.append(_unequal(cells.column, values.tolist()))
    return " and ".join(filter(None, conditions))


def _unequal(column: str, values: Sequence[str]) -> str:
    quoted = [(value, next((mark for mark in "'\"" if mark not in value), "")) for value in (*values,)]
    if "`" in column or not all(mark for _, mark in quoted):
        msg = f"obs column {printable(column)!r}: backticks, or both kinds of quotes in a value, cannot be filtered by."
        raise UsageError(msg)
    return " and ".join(f"`{column}` != {mark}{value}{mark}" for value, mark in quoted)
