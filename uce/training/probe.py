"""Do cell types come apart? Nearest neighbours among labelled cells of datasets that are not trained on.

A cell gets the type that most of its neighbours have, itself left out. That is an easy test: neighbours are of the same
dataset, and often of the same donor. So the same is asked of a vector that no training made, the mean of a cell's gene
vectors, weighted by log1p of the counts; what is above it was learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.cells.labels import is_labelled
from uce.cells.sentences import write_sentences
from uce.training.batch import Batch, pack, to_tensors
from uce.training.corpus import Corpus, Dataset
from uce.training.order import BLOCK_CELLS

if TYPE_CHECKING:
    from accelerate import Accelerator
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from uce.training.settings import PretrainConfig

# (batch) -> sums of the objective; (batch, embed=True) -> {"cells": (B, D)}.
Forward = Callable[..., "dict[str, Tensor]"]
FEWEST_CELLS = 10  # of a type that is asked for
_AT_ONCE = 32  # cells of one call of the model


@dataclass(frozen=True, eq=False)
class Probe:
    """Labelled cells of one dataset.

    Attributes
    ----------
    dataset
        Whose cells they are.
    counts
        (cells, genes) CSR in rank order.
    labels
        (cells,) their types; each has ten cells or more.
    neighbours
        Of a cell that are asked.
    """

    dataset: Dataset
    counts: "csr_matrix"
    labels: NDArray[np.str_]
    neighbours: int

    @cached_property
    def baseline(self) -> tuple[float, float]:
        """`score` of the mean gene vectors."""
        vocabulary = self.dataset.vocabulary
        return self.score(self.counts.log1p().astype(np.float32) @ vocabulary.vectors[vocabulary.first_gene :])

    def score(self, vectors: NDArray[np.float32]) -> tuple[float, float]:
        """Macro-F1 and accuracy of the types that the neighbours by cosine give, each cell left out of its own.

        NaN where a vector is not finite.
        """
        from sklearn.metrics import accuracy_score, f1_score
        from sklearn.neighbors import KNeighborsClassifier

        if not np.isfinite(vectors).all():
            return float("nan"), float("nan")
        _, codes = np.unique(self.labels, return_inverse=True)
        vote = KNeighborsClassifier(min(self.neighbours, len(codes) - 1), metric="cosine").fit(vectors, codes)
        voted = vote.predict(None)  # None: of the cells themselves, and none is a neighbour of its own
        return float(f1_score(codes, voted, average="macro")), float(accuracy_score(codes, voted))

    def batch(self, cells: NDArray[np.int64], config: "PretrainConfig") -> Batch:
        """The sentences of some of the cells as an embedding draws them."""
        vocabulary = self.dataset.vocabulary
        sentences = write_sentences(
            self.counts[cells],
            vocabulary.gene_chromosomes,
            vocabulary.gene_keys,
            rule=config.rule,
            n_chromosomes=len(vocabulary.chromosome_names),
            threads=1,
        )
        return Batch(self.dataset.species, *pack([sentences]))


def open_probes(config: "PretrainConfig", corpus: Corpus) -> tuple[Probe, ...]:
    """What can be asked of a corpus: every dataset with two or more types of ten cells or more.

    Read are the first `validation.probe_cells` labelled cells of each; stores were shuffled when they were written.
    """
    if not config.validation.probe_cells:
        return ()
    opened = (_open(dataset, config) for dataset in corpus.datasets)
    return tuple(found for found in opened if found)


def _open(dataset: Dataset, config: "PretrainConfig") -> Probe | None:
    labels = dataset.labels("cell_type")
    if labels is None:
        return None
    labels = labels.astype(str)
    known = np.flatnonzero(is_labelled(labels))[: config.validation.probe_cells]
    _, code, cells = np.unique(labels[known], return_inverse=True, return_counts=True)
    if np.count_nonzero(cells >= FEWEST_CELLS) < 2:
        return None
    rows = known[cells[code] >= FEWEST_CELLS]
    return Probe(dataset, read_rows(dataset, rows), labels[rows], config.validation.neighbours)


def read_rows(dataset: Dataset, rows: NDArray[np.int64]) -> "csr_matrix":
    """Counts of any rows of a dataset, (rows, genes) CSR in rank order. Rows that are stored together are read so."""
    sought, back = np.unique(rows, return_inverse=True)
    shard = np.searchsorted(np.cumsum(dataset.shards), sought, side="right")
    apart = (np.diff(sought) > BLOCK_CELLS) | (np.diff(shard) > 0)
    groups = np.split(sought, np.flatnonzero(apart) + 1)
    spans = [(int(group[0]), int(group[-1]) + 1) for group in groups]
    read = np.concatenate([np.arange(start, stop) for start, stop in spans])
    return dataset.by_rank(dataset.stored(spans)[np.searchsorted(read, sought)[back]])


def probe(
    probes: Sequence[Probe],
    config: "PretrainConfig",
    forward: Forward,
    accelerator: "Accelerator",
    tables: "Mapping[str, Tensor]",
) -> dict[str, Any]:
    """Embed the labelled cells and ask their neighbours. Every process must call this, without gradients.

    Returns
    -------
    On the main process `probe_f1`, `probe_accuracy` and `probe_f1_baseline`, means over the datasets, and under
    `probe` the macro-F1 of each dataset. On other processes nothing.
    """
    embedded = [embed(asked, config, forward, accelerator, tables) for asked in probes]
    if not accelerator.is_main_process:
        return {}
    scores = [asked.score(vectors) for asked, vectors in zip(probes, embedded, strict=True)]
    f1, accuracy = np.mean(scores, axis=0)
    return {
        "probe_f1": float(f1),
        "probe_accuracy": float(accuracy),
        "probe_f1_baseline": float(np.mean([asked.baseline[0] for asked in probes])),
        "probe": {asked.dataset.name: f1 for asked, (f1, _) in zip(probes, scores, strict=True)},
    }


def embed(
    asked: Probe, config: "PretrainConfig", forward: Forward, accelerator: "Accelerator", tables: "Mapping[str, Tensor]"
) -> NDArray[np.float32]:
    """(cells, D) vectors of the cells of a probe, on every process. Process r has cells r, r + R, ...

    Cells are repeated until every process makes equally many calls of equal size: where a model is shared among
    processes, each call needs all of them.
    """
    import torch

    rank, world = accelerator.process_index, accelerator.num_processes
    cells, step = len(asked.labels), _AT_ONCE * world
    filled = np.arange(-(-cells // step) * step) % cells
    own = filled[rank::world].reshape(-1, _AT_ONCE)
    batches = (to_tensors(asked.batch(part, config), tables, accelerator.device) for part in own)
    vectors = torch.cat([forward(batch, embed=True)["cells"].float() for batch in batches])
    gathered = accelerator.gather(vectors).reshape(world, -1, vectors.shape[1]).transpose(0, 1)
    joined: NDArray[np.float32] = gathered.reshape(-1, vectors.shape[1])[:cells].cpu().numpy()
    return joined
