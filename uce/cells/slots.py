"""What an opened source offers: candidate matrices, each with its own genes, and the table of cells."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from uce.cells.layouts import Rows
from uce.errors import InputError

NUMBER_KINDS = "iufb"


@dataclass(frozen=True)
class Slot:
    """A matrix that may hold the counts; `rows` and `var` are made when first needed."""

    name: str
    rows: Callable[[], Rows]
    var: Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class Cells:
    """The table of cells, read a column at a time."""

    columns: list[str]
    names: Callable[[], npt.NDArray[np.object_]]
    text: Callable[[str], npt.NDArray[np.object_]]
    numbers: Callable[[str], npt.NDArray[np.float64] | None]


@dataclass(frozen=True)
class Source:
    """An opened file or object before anything is known of its values.

    Attributes
    ----------
    slots : candidates by name ("X", "raw", "layers/counts"), in the order they are stored.
    obsm : what reads each array of `obsm`, by its key.
    records : reads `uns["uce"]`, what this package wrote down of its results; empty where it wrote none.
    stamp : size, time and inode of the file when it was opened, () for an object in memory.
    """

    file: str
    kind: str
    n_cells: int
    slots: dict[str, Slot]
    cells: Cells
    organism: str | None = None
    notes: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    obsm: dict[str, Callable[[], Any]] = field(default_factory=dict)
    records: Callable[[], dict[str, Any]] = dict
    stamp: Callable[[], tuple[int, ...]] = tuple


def check_number_type(dtype: np.dtype[Any], where: str) -> None:
    """Raise InputError if values of this type cannot be counts."""
    if dtype.kind not in NUMBER_KINDS:
        msg = f"{where}: values of type {dtype}, whole numbers needed; store the counts as int32 or float32."
        raise InputError(msg)


def check_shape(file: str, name: str, shape: tuple[int, ...], n_cells: int, n_genes: int | None) -> None:
    """Raise InputError, with the numbers, if a matrix does not fit its tables of cells and genes."""
    if len(shape) != 2 or shape[0] != n_cells or (n_genes is not None and shape[1] != n_genes):
        genes = "?" if n_genes is None else n_genes
        msg = (
            f"{file}: {name} has shape {tuple(int(n) for n in shape)}, but there are {n_cells} cells in obs and "
            f"{genes} genes in var; the file is damaged, write it again."
        )
        raise InputError(msg)


def organism_of(values: dict[str, Any], column: Callable[[str], npt.NDArray[np.object_] | None]) -> str | None:
    """The organism a file states in uns or, for all cells alike, in obs; None if it states none."""
    for key in ("organism", "species", "organism_ontology_term_id"):
        if isinstance(stated := values.get(key), str) and stated:
            return stated.removeprefix("NCBITaxon:")
        found = column(key)
        if found is not None and found.size and len(single := set(found.tolist()) - {None}) == 1:
            return str(single.pop()).removeprefix("NCBITaxon:")
    return None
