"""Principal components of a corpus, fitted: what the bundled ones come from, and a rival that learns from any subset.

A dataset weighs the square root of its number of cells, so that none dominates. The axes are those of the orthogroups
that vary most (log1p of counts per 10,000, not scaled); a group that a dataset did not measure has the mean of the
others there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.baselines.corpus_pca import CorpusPca, orthogroups, sum_groups
from uce.evaluation.baselines.pca import COMPONENTS, principal_axes
from uce.evaluation.cells import log_cp10k
from uce.genes.collection import load_gene_table
from uce.training.corpus import Corpus, Dataset

GROUPS = 3000


@dataclass(frozen=True, eq=False)
class Logs:
    """log1p CP10k (cells, groups) of a dataset, with the sorted names of the groups that it measured."""

    name: str
    values: csr_matrix
    groups: NDArray[np.str_]

    @property
    def weight(self) -> float:
        """Of one cell; those of the whole dataset sum to the square root of their number."""
        return float(self.values.shape[0] ** -0.5)


def read_logs(dataset: Dataset, corpus: Corpus) -> Logs:
    """All cells of a dataset."""
    groups = ranked_groups(dataset, corpus)
    ends = np.cumsum(dataset.shards)
    stored = dataset.stored([(int(end - size), int(end)) for end, size in zip(ends, dataset.shards, strict=True)])
    summed, names = sum_groups(dataset.by_rank(stored), groups)
    return Logs(dataset.name, log_cp10k(summed), names)


def ranked_groups(dataset: Dataset, corpus: Corpus) -> NDArray[np.str_]:
    """(genes,) in rank order, the orthogroup of each gene; "" where there is none or it was not measured.

    Raises
    ------
    NotPossible
        There is no bundled gene table of the species.
    """
    table = load_gene_table(dataset.species, encoder=corpus.gene_encoder)
    groups = np.empty(len(table), dtype=np.object_)
    groups[dataset.vocabulary.ranks] = orthogroups(table)
    groups[~dataset.measured] = ""
    return groups.astype(np.str_)


def fit(datasets: list[Logs], sha256: str, *, n_groups: int = GROUPS, dim: int = COMPONENTS) -> CorpusPca:
    """Weighted mean and axes of the groups that vary most among all cells; fewer axes than cells."""
    groups = np.unique(np.concatenate([data.groups for data in datasets]))
    mean, variance = moments(datasets, groups)
    chosen = np.sort(np.argsort(-variance, kind="stable")[:n_groups])
    groups, mean = groups[chosen], mean[chosen]
    covariance = np.zeros((len(groups), len(groups)))
    for data in datasets:
        _, here, there = np.intersect1d(groups, data.groups, return_indices=True)
        centred = data.values[:, there].toarray() - mean[here].astype(np.float32)
        covariance[np.ix_(here, here)] += data.weight * (centred.T @ centred)
    covariance /= sum(data.weight * data.values.shape[0] for data in datasets)
    cells = sum(data.values.shape[0] for data in datasets)
    axes, along = principal_axes(covariance, max(1, min(dim, cells - 1)))
    facts = {
        "corpus_sha256": sha256,
        "split": "train",
        "datasets": {data.name: data.values.shape[0] for data in datasets},
        "weight": "square root of the cells of a dataset",
        "values": "log1p of counts per 10,000 of a cell, summed by orthogroup; less the mean, not scaled",
        "share_of_variance": round(float(along.sum() / np.trace(covariance)), 4),
    }
    return CorpusPca(groups, mean.astype(np.float32), axes.astype(np.float32), facts)


def moments(datasets: list[Logs], groups: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(groups,) weighted mean where measured, and what each group adds to the total variance."""
    weights, sums, squares = np.zeros((3, len(groups)))
    for data in datasets:
        here = np.searchsorted(groups, data.groups)
        values = data.values.astype(np.float64)
        weights[here] += data.weight * values.shape[0]
        sums[here] += data.weight * np.asarray(values.sum(axis=0)).ravel()
        squares[here] += data.weight * np.asarray(values.power(2).sum(axis=0)).ravel()
    mean = sums / weights
    return mean, squares - weights * mean**2
