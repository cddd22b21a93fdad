"""Which columns of a matrix are genes: other measured features are left out, regions of a genome are refused."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from uce.cells.layouts import Rows, SelectedColumns
from uce.cells.slots import Slot, Source
from uce.errors import InputError
from uce.files import shorten

GENE_TYPE = "Gene Expression"
TYPE_COLUMNS = ("feature_types", "feature_type")
REGION = r"^[\w.]+[:\-_]\d{3,}[\-_]\d{3,}$"  # chr1:1000-2000


def keep_genes(source: Source) -> Source:
    """The source with antibodies, peaks, guides and the like left out of every slot, where var tells them apart.

    Raises
    ------
    InputError
        When the names of a slot are asked for: none of its columns is a gene.
    """
    slots = {name: _gene_slot(slot, source) for name, slot in source.slots.items()}
    return replace(source, slots=slots)


def _gene_slot(slot: Slot, source: Source) -> Slot:
    @cache
    def selection() -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
        var = slot.var()
        keep = gene_mask(var, source.file)
        if not keep.all():
            source.notes.append(_dropped(var, keep))
        var = var[keep]
        _refuse_regions(var, source.file)
        return var, keep

    def rows() -> Rows:
        _, keep = selection()
        if keep.all():
            return slot.rows()
        targets = np.where(keep, np.cumsum(keep) - 1, -1)
        return SelectedColumns(slot.rows(), targets, int(keep.sum()))

    return Slot(slot.name, rows, lambda: selection()[0])


def gene_mask(var: pd.DataFrame, file: str) -> npt.NDArray[np.bool_]:
    """Which rows of var are genes: all, unless a column of feature types says otherwise."""
    if not len(var):
        msg = f"{file}: no genes in the table var; there is nothing to embed."
        raise InputError(msg)
    for column in TYPE_COLUMNS:
        if column not in var.columns:
            continue
        types = var[column].to_numpy()
        if (types == GENE_TYPE).any():
            return np.asarray(types == GENE_TYPE, dtype=bool)
        if np.isin(types, ["Peaks", "Antibody Capture", "CRISPR Guide Capture", "Multiplexing Capture"]).all():
            msg = f"{file}: no gene expression in it; its features are {shorten(sorted(set(types)))}."
            raise InputError(msg)
    return np.ones(len(var), dtype=bool)


def _dropped(var: pd.DataFrame, keep: npt.NDArray[np.bool_]) -> str:
    column = next(name for name in TYPE_COLUMNS if name in var.columns and (var[name] == GENE_TYPE).any())
    counts = var.loc[~keep, column].fillna("untyped").value_counts()
    kinds = shorten([f"{n} {kind}" for kind, n in counts.items()])
    return f"{int((~keep).sum())} features that are not genes left out: {kinds}."


def _refuse_regions(var: pd.DataFrame, file: str) -> None:
    names = var.index.to_series().astype(str)
    if names.str.match(REGION).mean() > 0.5:
        msg = f"{file}: not a gene matrix: its features are regions such as {names.iloc[0]}; give gene counts."
        raise InputError(msg)
