"""Fit the principal components that `uce eval` compares pretrained models with: uce/data/corpus_pca.npz.

    uce corpus build data_manifests/training_cells.csv --folder DATA -o CORPUS
    python scripts/build_corpus_pca.py --corpus CORPUS [--output uce/data/corpus_pca.npz]

Only cells of the training split are read. A dataset weighs the square root of its number of cells, so that none
dominates. The axes are those of the 3,000 orthogroups that vary most (log1p of counts per 10,000, not scaled); a group
that a dataset did not measure has the mean of the others there.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.baselines.corpus_pca import CorpusPca, orthogroups, sum_groups
from uce.evaluation.baselines.pca import COMPONENTS, principal_axes
from uce.evaluation.cells import log_cp10k
from uce.files import atomic_path
from uce.genes.collection import load_gene_table
from uce.training.corpus import Corpus, Dataset, open_corpus
from uce.training.settings import DataSettings

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


def main() -> None:
    """Read the corpus, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by `uce corpus build`")
    parser.add_argument("--output", type=Path, default=Path("uce/data/corpus_pca.npz"))
    options = parser.parse_args()
    corpus = open_corpus(DataSettings(corpus=str(options.corpus), split="train"))
    fitted = fit([read_logs(dataset, corpus) for dataset in corpus.datasets], corpus.sha256)
    save(fitted, options.output)
    print(json.dumps(fitted.facts, indent=1))


def read_logs(dataset: Dataset, corpus: Corpus) -> Logs:
    """All cells of a dataset."""
    table = load_gene_table(dataset.species, encoder=corpus.gene_encoder)
    ranks = dataset.vocabulary.ranks
    groups = np.empty(len(ranks), dtype=np.object_)
    groups[ranks] = orthogroups(table)
    groups[~dataset.measured] = ""
    ends = np.cumsum(dataset.shards)
    stored = dataset.stored([(int(end - size), int(end)) for end, size in zip(ends, dataset.shards, strict=True)])
    summed, names = sum_groups(dataset.by_rank(stored), groups.astype(np.str_))
    return Logs(dataset.name, log_cp10k(summed), names)


def fit(datasets: list[Logs], sha256: str, *, n_groups: int = GROUPS, dim: int = COMPONENTS) -> CorpusPca:
    """Weighted mean and axes of the groups that vary most among all cells."""
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
    axes, along = principal_axes(covariance, dim)
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


def save(fitted: CorpusPca, path: Path) -> None:
    """Write the file that `load_corpus_pca` reads; it holds no pickle."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            groups=fitted.groups,
            mean=fitted.mean,
            axes=fitted.axes.astype(np.float16),
            facts=np.array(json.dumps(fitted.facts, sort_keys=True)),
        )


if __name__ == "__main__":
    main()
