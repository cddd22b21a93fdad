"""Principal components of the training corpus, for cells of any species: the linear rival of a pretrained model.

They were fitted once (`scripts/build_corpus_pca.py`) in the space of the orthogroups that the bundled gene tables
share: a group stands for one human gene, and for the genes of other species that refer to it and to no other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from uce.errors import UceError
from uce.evaluation.cells import Cells, Texts, log_cp10k
from uce.evaluation.embeddings import Floats, Mask
from uce.evaluation.orthology import gene_groups
from uce.evaluation.results import NotPossible
from uce.genes.collection import load_gene_table
from uce.genes.tables import GeneTable

FILE = "corpus_pca.npz"
FEWEST_GROUPS = 100


@dataclass(frozen=True, eq=False)
class CorpusPca:
    """What was fitted on the training corpus.

    Attributes
    ----------
    groups
        (groups,) human gene that each stands for, sorted.
    mean
        (groups,) float32 mean of log1p CP10k.
    axes
        (groups, dim) float32.
    facts
        SHA-256 of the corpus, its datasets with their numbers of cells, and how the axes were found.
    """

    groups: Texts
    mean: Floats
    axes: Floats
    facts: Mapping[str, Any]


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  fits nothing on these cells
    """(cells, 50) components of the training corpus; see `project`.

    Raises
    ------
    NotPossible
        There are no counts or no model, or the species has (almost) no groups.
    """
    reader = cells.need_reader()
    ranks = reader.vocabulary.ranks
    rows = reader.match.resolution.rows
    groups = np.empty(len(ranks), dtype=np.object_)
    groups[ranks] = orthogroups(reader.match.table)
    measured = np.zeros(len(ranks), dtype=bool)
    measured[ranks[rows[rows >= 0]]] = True
    return project(cells.ranked, np.where(measured, groups, "").astype(np.str_), load_corpus_pca())


def project(counts: csr_matrix, groups: Texts, fitted: CorpusPca) -> Floats:
    """(cells, dim) components of `counts` (cells, genes), each gene with its group or "" (none, or not measured).

    Counts are summed by group and taken per 10,000 of the cell's counts in all groups, then log1p, less the mean of the
    corpus. A group that was not measured counts as that mean, so it moves nothing. A cell without counts is a row of
    NaN.

    Raises
    ------
    NotPossible
        Fewer than 100 groups were measured.
    """
    summed, names = sum_groups(counts, groups)
    shared, theirs, ours = np.intersect1d(names, fitted.groups, return_indices=True)
    if len(shared) < FEWEST_GROUPS:
        msg = f"only {len(shared)} genes have a place in the principal components of the corpus; {FEWEST_GROUPS} needed"
        raise NotPossible(msg)
    axes = fitted.axes[ours]
    vectors = np.asarray(log_cp10k(summed)[:, theirs] @ axes, dtype=np.float32) - fitted.mean[ours] @ axes
    vectors[summed.getnnz(axis=1) == 0] = np.nan
    return np.ascontiguousarray(vectors, dtype=np.float32)


def sum_groups(counts: csr_matrix, groups: Texts) -> tuple[csr_matrix, Texts]:
    """Counts (cells, groups) of genes of one group together, and the sorted names of the groups; "" is no group."""
    names, codes = np.unique(groups, return_inverse=True)
    into = csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)), shape=(len(codes), len(names)))
    kept = names != ""
    return (counts @ into)[:, kept].tocsr(), names[kept]


def orthogroups(table: GeneTable) -> Texts:
    """(genes,) the human gene whose orthogroup each gene of a table is in, "" where there is none or several.

    Raises
    ------
    NotPossible
        There is no bundled table of the species.
    """
    try:
        known = gene_groups(load_gene_table(table.species))
    except UceError as error:
        raise NotPossible(f"orthogroups are not known: {error}") from error
    anchors = _anchors()
    return np.array([anchors.get(known.get(gene, b""), "") for gene in table.ids.tolist()], dtype=np.str_)


@cache
def _anchors() -> Mapping[bytes, str]:
    """Orthogroup -> the human gene that it stands for."""
    return {group: gene for gene, group in gene_groups(load_gene_table("homo_sapiens")).items()}


@cache
def load_corpus_pca() -> CorpusPca:
    """The bundled one."""
    with files("uce").joinpath("data", FILE).open("rb") as stream, np.load(stream, allow_pickle=False) as content:
        return CorpusPca(
            content["groups"],
            content["mean"].astype(np.float32),
            content["axes"].astype(np.float32),
            json.loads(str(content["facts"])),
        )
