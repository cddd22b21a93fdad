"""Genes out: the vectors of a species' table, and what a model makes of each gene in the cells it stands in."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

import uce
from uce.cells.counts import Counts, Policy, open_counts
from uce.cells.parts import block_ranges
from uce.devices import check_precision, memory_bytes, pick_device
from uce.embedding import DEFAULT_MODEL
from uce.engines import Settings, project_vocabulary, stream_gene_states
from uce.errors import UsageError
from uce.files import nearest, printable, shorten
from uce.genes.collection import load_gene_table
from uce.genes.resolver import MIN_SHARE
from uce.genes.tables import GeneTable
from uce.genes.vocabulary import Vocabulary
from uce.jobs import Job, plan_of, prepare_job, refuse_changed, say_notes
from uce.model.checkpoint import Model, load_model
from uce.progress import Progress, say

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

Floats = npt.NDArray[np.float32]


def gene_embeddings(
    species: str | None = None,
    *,
    cells: "AnnData | str | Path | None" = None,
    model: str | Path | Model = DEFAULT_MODEL,
    group_by: str | None = None,
    where: str | None = None,
    gene_column: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    genome: str | None = None,
    min_coverage: float = MIN_SHARE,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
    quiet: bool = False,
) -> "AnnData":
    """The gene vectors of a species that a model reads and, given cells, their means in context.

    Memory does not grow with the cells: one sum is kept per gene and group.

    Parameters
    ----------
    species
        Such as "human" or "mus_musculus". May be left out where the cells' gene names explain one species clearly.
    cells
        An AnnData, or a path that :func:`uce.embed_file` reads. None: vectors without context only.
    model
        A loaded model, a model folder, or the name of an installed one.
    group_by
        Column of `obs`: also give the means over the cells of each of its labels.
    where
        `COLUMN=VALUE`: average only the cells with this label in this column of `obs`.
    seed
        The draw of genes. A cell has the sentence that :func:`uce.embed` reads under the same seed.
    gene_column, layer, use_raw, counts_policy, genome, min_coverage, batch_size, precision, device, quiet
        As in :func:`uce.embed_file`.

    Returns
    -------
    AnnData with a row per gene of the species' table (index: gene id; `symbol`, `chromosome`, `start`, `origin` of the
    vector, number of `proteins`):

    - `X`, (genes, protein_dim) float32: the table's vectors;
    - `obsm["X_projected"]`, (genes, dim): after the model's first layer, which sees one gene at a time;
    - `obsm["X_context"]`, (genes, dim), given cells: mean over cells of the last block's output at the gene's tokens
      (of a gene drawn several times, first their mean within the cell); NaN where the gene was in no sentence;
    - `obs["n_cells"]`, given cells: in how many cells' sentences the gene stood;
    - `obsm["X_context:LABEL"]` and `obs["n_cells:LABEL"]`, given `group_by`: the same within each group. Characters
      that a file cannot hold in a name are replaced, see `uns["uce"]["groups"]`;
    - `uns["uce"]`: what made them.

    Raises
    ------
    UsageError
        An option that does not fit the cells; the message names the nearest column or label.
    InputError, ModelError
        As in :func:`uce.embed_file`.

    Examples
    --------
    >>> import uce
    >>> genes = uce.gene_embeddings("human", cells="pbmc.h5ad", group_by="cell_type")   # doctest: +SKIP
    >>> genes[genes.obs["n_cells"] >= 10].obsm["X_context:B"]                           # doctest: +SKIP
    """
    size = None if batch_size == "auto" else batch_size
    settings = Settings(pick_device(device), check_precision(precision), seed, batch_size=size)
    loaded = model if isinstance(model, Model) else load_model(model)
    if cells is None:
        table = load_gene_table(_needed(species, group_by=group_by, where=where), encoder=loaded.gene_encoder)
        encoder = loaded.encoder.to(settings.device)
        return _without_context(loaded, table, *project_vocabulary(loaded, table, encoder))
    with open_counts(cells, layer=layer, use_raw=use_raw, policy=counts_policy, genome=genome) as counts:
        groups, labels = _choose_cells(counts, group_by=group_by, where=where)
        job = prepare_job(
            counts,
            loaded,
            settings,
            species=species,
            species_key=None,
            gene_column=gene_column,
            counts_policy=counts_policy,
            min_coverage=min_coverage,
        )
        say_notes(job, quiet=quiet)
        sums, read = _average(job, groups, max(1, len(labels)), quiet=quiet)
        refuse_changed(job)
        (reader,) = job.readers.values()
        genes = _without_context(loaded, reader.match.table, reader.vocabulary, reader.projected)
        _add_context(genes, sums, reader.vocabulary.ranks, labels)
        _record_cells(genes, job, groups, labels, read=read, group_by=group_by, where=where)
    say(f"context: {np.sum(genes.obs['n_cells'] > 0):,} of {genes.n_obs:,} genes, from {read:,} cells", quiet=quiet)
    return genes


def _needed(species: str | None, *, group_by: str | None, where: str | None) -> str:
    """The species, where there are no cells to find it by and to choose from."""
    for name, value in (("group-by", group_by), ("where", where)):
        if value is not None:
            msg = f"--{name} {printable(value)}: chooses among cells. Give cells, or leave it out."
            raise UsageError(msg)
    if species is None:
        msg = "no species: without cells it cannot be found. Give --species, such as human."
        raise UsageError(msg)
    return species


def _without_context(model: Model, table: GeneTable, vocabulary: Vocabulary, projected: "Tensor") -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    columns = {
        "symbol": table.symbols,
        "chromosome": table.chromosomes,
        "start": table.starts,
        "origin": table.origins,
        "proteins": table.proteins,
    }
    record = {
        "version": uce.__version__,
        "model": model.name,
        "model_sha256": model.sha256,
        "gene_vectors": table.encoder,
        "species": {table.species: table.sha256},
    }
    return AnnData(
        X=table.vectors.copy(),
        obs=pd.DataFrame(columns, index=pd.Index(table.ids.astype(object))),
        obsm={"X_projected": projected.cpu().numpy()[vocabulary.first_gene + vocabulary.ranks]},
        uns={"uce": record},
    )


def _choose_cells(
    counts: Counts, *, group_by: str | None, where: str | None
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The group of every cell, (cells,), -1 where it is left out; and the groups' labels, none without `group_by`."""
    chosen = np.ones(counts.n_cells, np.bool_) if where is None else _cells_where(counts, where)
    groups = np.where(chosen, 0, -1)
    if group_by is None:
        return groups, []
    labels, numbers = np.unique(counts.obs_column(group_by)[chosen], return_inverse=True)
    groups[chosen] = numbers
    return groups, labels.tolist()


def _cells_where(counts: Counts, where: str) -> npt.NDArray[np.bool_]:
    column, sign, value = where.partition("=")
    if not sign:
        msg = f"--where {printable(where)}: give COLUMN=VALUE, such as cell_type=B."
        raise UsageError(msg)
    labels = counts.obs_column(column)
    chosen: npt.NDArray[np.bool_] = labels == value
    if not chosen.any():
        known = np.unique(labels).tolist()
        msg = (
            f"{counts.file}: no cell has {printable(value)} in obs column {column!r}.{nearest(value, known)} "
            f"There are: {shorten(known) or 'none'}."
        )
        raise UsageError(msg)
    return chosen


class ContextSums:
    """Sums over cells of the states of genes, by group of cells.

    Attributes
    ----------
    states
        (groups, genes, dim) float64, sum over cells of the mean state of the gene's tokens in the cell.
    cells
        (groups, genes) int64, how many cells that sum is over.
    """

    def __init__(self, groups: int, genes: int, dim: int) -> None:
        self.states = np.zeros((groups, genes, dim))
        self.cells = np.zeros((groups, genes), np.int64)

    def add(self, groups: npt.NDArray[np.int64], genes: npt.NDArray[np.integer[Any]], states: Floats) -> None:
        """Add cells: `groups` (cells,), `genes` (cells, tokens) with -1 for none, `states` (cells, tokens, dim)."""
        n_genes = self.cells.shape[1]
        cell, place = np.nonzero(genes >= 0)
        # First by gene within the cell, then by gene within the group: one weight per token does both.
        pairs, pair_of, repeats = np.unique(
            cell * n_genes + genes[cell, place], return_inverse=True, return_counts=True
        )
        sums, sum_of = np.unique(groups[pairs // n_genes] * n_genes + pairs % n_genes, return_inverse=True)
        weights = csr_matrix((1 / repeats[pair_of], (sum_of[pair_of], np.arange(len(cell)))), (len(sums), len(cell)))
        self.states.reshape(-1, states.shape[2])[sums] += weights @ states[cell, place].astype(np.float64)
        self.cells.reshape(-1)[sums] += np.bincount(sum_of, minlength=len(sums))


def _average(job: Job, groups: npt.NDArray[np.int64], n_groups: int, *, quiet: bool) -> tuple[ContextSums, int]:
    """Sums over the cells whose group is not -1, and how many of them have a sentence."""
    import torch

    (reader,) = job.readers.values()
    needed = 8 * n_groups * len(reader.match.table) * job.model.config.dim
    if needed > memory_bytes(torch.device("cpu")) / 2:
        size = f"{n_groups:,} groups take {needed / 1e9:,.0f} GB of memory"
        msg = f"--group-by: {size}. Choose a column with fewer labels, or choose cells by --where."
        raise UsageError(msg)
    sums = ContextSums(n_groups, len(reader.match.table), job.model.config.dim)
    read = 0
    with Progress("averaging", int(np.sum(groups >= 0)), unit="cells", quiet=quiet) as progress:
        for start, stop in block_ranges(job.counts.n_cells):
            chosen = np.flatnonzero(groups[start:stop] >= 0)
            if not len(chosen):
                continue
            for batch in stream_gene_states(job.counts.read(start, stop)[chosen], reader):
                sums.add(groups[start + chosen[batch.rows]], batch.ranks, batch.states)
                read += len(batch.rows)
                progress.advance(len(batch.rows))
    return sums, read


def _add_context(genes: "AnnData", sums: ContextSums, ranks: npt.NDArray[np.int64], labels: list[str]) -> None:
    genes.obsm["X_context"] = _means(sums.states.sum(axis=0), sums.cells.sum(axis=0))[ranks]
    genes.obs["n_cells"] = sums.cells.sum(axis=0)[ranks]
    for group, key in enumerate(group_keys(labels)):
        genes.obsm[f"X_context:{key}"] = _means(sums.states[group], sums.cells[group])[ranks]
        genes.obs[f"n_cells:{key}"] = sums.cells[group][ranks]


def _means(states: npt.NDArray[np.float64], cells: npt.NDArray[np.int64]) -> Floats:
    means = np.full(states.shape, np.nan, np.float32)
    there = cells > 0
    means[there] = states[there] / cells[there, None]
    return means


def group_keys(labels: list[str]) -> list[str]:
    """Labels as they can stand in the name of an `obsm`: no slash, no control character, no two alike."""
    keys: list[str] = []
    for label in labels:
        plain = "".join(c if c.isprintable() and c != "/" else "_" for c in label)
        key, number = plain, 1
        while key in keys:
            number += 1
            key = f"{plain}_{number}"
        keys.append(key)
    return keys


def _record_cells(
    genes: "AnnData",
    job: Job,
    groups: npt.NDArray[np.int64],
    labels: list[str],
    *,
    read: int,
    group_by: str | None,
    where: str | None,
) -> None:
    """Add to the record all that decides the means; like the plan of an embedding it has no clock and no path."""
    plan = plan_of(job)
    record = {key: plan[key] for key in plan if key not in ("species_key", "replicates", "block_cells")}
    chosen = groups[groups >= 0]
    record |= {"where": where or "", "group_by": group_by or "", "cells_chosen": len(chosen), "cells_averaged": read}
    if labels:
        record["groups"] = {
            "label": np.array(labels, dtype=object),
            "key": np.array(group_keys(labels), dtype=object),
            "cells": np.bincount(chosen, minlength=len(labels)),
        }
    genes.uns["uce"].update(record)
