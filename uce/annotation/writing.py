"""Columns of the cells and the record into an AnnData, or into a copy of the input on disk."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from uce.annotation.sources import Side
from uce.cells.counts import open_counts
from uce.errors import OutputExistsError
from uce.files import atomic_path, shorten
from uce.outputs import add_embedding
from uce.rewriting import copy_h5ad, copy_zarr, write_counts

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = (
    "label", "best_label", "confidence", "vote_share", "label_2", "margin", "unknown", "unknown_score", "nn_agreement",
    "nn_distance", "nn_distance_pct",
)  # fmt: skip


def refuse_existing(name: str, columns: Iterable[str], prefix: str, *, overwrite: bool) -> None:
    """Refuse, before any work, to write over columns of `obs`.

    Raises
    ------
    OutputExistsError
        Some are there and `overwrite` is false.
    """
    there = sorted(set(columns) & {f"{prefix}_{column}" for column in COLUMNS})
    if there and not overwrite:
        msg = f"{name}: obs has {shorten(there)}. Choose another --key-added, or pass --overwrite."
        raise OutputExistsError(msg)


def add_to_anndata(adata: "AnnData", columns: Mapping[str, Any], prefix: str, facts: dict[str, Any]) -> None:
    """Write the columns to `adata.obs`, in place of earlier ones, and the record to `adata.uns`."""
    for column in COLUMNS:  # a confidence of an earlier run must not stand beside a share of the vote
        if f"{prefix}_{column}" in adata.obs:
            del adata.obs[f"{prefix}_{column}"]
    for name, values in columns.items():
        adata.obs[name] = values
    adata.uns[f"{prefix}_annotate"] = facts


def write_h5ad(
    path: Path, side: Side, columns: Mapping[str, Any], prefix: str, facts: dict[str, Any], *, key: str
) -> None:
    """Write all that the input holds, the columns and the record, and its vectors if they were made just now.

    The input is copied as it is, see `uce.outputs.write_h5ad`; cells are never held in memory.
    """
    with atomic_path(path) as temporary:
        _copy(side, temporary)
        with h5py.File(temporary, "r+") as file:
            _add_columns(file, columns, prefix)
            if side.new:
                shape = (len(side.vectors), side.vectors.shape[1])
                add_embedding(file, iter([side.vectors]), shape=shape, key=key, record=side.record, overwrite=True)
            _add_record(file, f"{prefix}_annotate", facts)


def _copy(side: Side, path: Path) -> None:
    source = Path(str(side.given.data))
    if side.kind == "h5ad":
        copy_h5ad(source, path)
    elif side.kind.startswith("zarr"):
        copy_zarr(source, path)
    else:
        options = side.given.options
        with open_counts(source, policy=options.counts_policy, genome=options.genome) as counts:
            write_counts(path, counts)


def _add_columns(file: h5py.File, columns: Mapping[str, Any], prefix: str) -> None:
    from anndata.io import write_elem

    obs = file["obs"]
    earlier = {f"{prefix}_{column}" for column in COLUMNS}
    order = [str(name) for name in obs.attrs["column-order"] if str(name) not in earlier]
    for name in earlier & set(obs):
        del obs[name]
    for name, values in columns.items():
        write_elem(obs, name, values)
    obs.attrs["column-order"] = [*order, *columns]


def _add_record(file: h5py.File, key: str, facts: dict[str, Any]) -> None:
    from anndata.io import write_elem

    if "uns" not in file:
        write_elem(file, "uns", {})
    if key in file["uns"]:
        del file["uns"][key]
    write_elem(file["uns"], key, facts)
