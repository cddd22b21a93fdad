"""What the batches of all objectives share: which cells a step shows, thinned counts, sentences without hidden genes.

All of it is a function of (corpus, configuration, step), and a process's part of a batch does not depend on how many
processes there are: whatever is random about a cell is drawn under its sample number.
Letters in shapes: B cells of one process, L tokens, P width of gene vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.cells.sentences import SentenceRule, Sentences, write_sentences
from uce.genes.vocabulary import Vocabulary
from uce.training.corpus import Corpus, Dataset
from uce.training.order import SENTENCE, samples_of_step, words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.settings import PretrainConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """The sentences of one process at one step; an objective's own batch adds what it asks of them.

    Attributes
    ----------
    vectors
        (tokens, P) float32, vectors of the distinct tokens of the batch.
    tokens
        (sentences, L) row of `vectors` for every token of a sentence.
    keep
        (sentences, L) true for tokens, false for padding.
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    keep: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one dataset, and the sample numbers under which they are shown.

    Attributes
    ----------
    dataset
        Whose cells they are.
    samples
        (B,) global sample numbers.
    rows
        (B,) cells of the dataset; one may come twice.
    """

    dataset: Dataset
    samples: NDArray[np.int64]
    rows: NDArray[np.int64]

    @cached_property
    def counts(self) -> "csr_matrix":
        """(B, genes) in rank order."""
        return self.dataset.counts[self.rows]

    @property
    def depths(self) -> NDArray[np.float64]:
        """(B,) log of the counts of each cell."""
        return self.dataset.depths[self.rows]

    def part(self, rank: int, world: int) -> "Cells":
        """The share of process `rank`: cells rank, rank + world, ..."""
        return Cells(self.dataset, self.samples[rank::world], self.rows[rank::world])


def cells_of_step(corpus: Corpus, config: "PretrainConfig", step: int) -> Cells:
    """All cells of a step, those of every process."""
    number, samples, rows = samples_of_step(
        config.seed, step, batch_size=config.batch_size, sizes=corpus.sizes, balance=config.data.balance
    )
    return Cells(corpus.datasets[number], samples, rows)


def draw_sentences(
    cells: Cells,
    counts: "csr_matrix",
    hidden: NDArray[np.bool_],
    config: "PretrainConfig",
    step: int,
    *,
    numbers: NDArray[np.int64],
) -> Sentences:
    """The sentences of the cells without their hidden genes.

    Parameters
    ----------
    cells
        Whose vocabulary is spoken.
    counts
        (B, genes) what is shown of them: their counts, or thinned ones.
    hidden
        (non-zeros of `counts`,) true for entries that must not be drawn.
    numbers
        (B,) the number under which each sentence is drawn.
    """
    vocabulary = cells.dataset.vocabulary
    return write_sentences(
        counts,
        vocabulary.gene_chromosomes,
        vocabulary.gene_keys,
        rule=SentenceRule(draws=config.draws_at(step), max_tokens=config.rule.max_tokens),
        seed=words(config.seed, SENTENCE, numbers),
        exclude=hidden,
        n_chromosomes=len(vocabulary.chromosome_names),
        threads=1,
    )


def pack(
    vocabulary: Vocabulary, parts: Sequence[Sentences]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """`vectors`, `tokens` and `keep` of a `Batch` of all sentences, those of the first part first."""
    longest = max(1, *(part.tokens.shape[1] for part in parts))
    stacked = np.concatenate([np.pad(part.tokens, ((0, 0), (0, longest - part.tokens.shape[1]))) for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    tokens, positions = np.unique(stacked, return_inverse=True)
    # The first token is kept even of an empty sentence: attention needs something to look at.
    keep = np.arange(longest) < np.maximum(lengths, 1)[:, None]
    return vocabulary.vectors[tokens], positions.reshape(stacked.shape), keep


def thin(counts: "csr_matrix", kept: Sequence[float], randoms: Sequence[np.random.Generator]) -> "csr_matrix":
    """Counts as a shallower sequencing would have given them: each molecule of a cell is kept with one chance.

    Parameters
    ----------
    counts
        (B, genes) whole numbers.
    kept
        (B,) chance of each cell; 1 leaves it as it is, 0 leaves nothing.
    randoms
        (B,) a generator for each cell.

    Returns
    -------
    (B, genes), the same entries, some of them now zero; binomial, so that Poisson counts stay Poisson.
    """
    thinned = counts.copy()
    for row, (chance, random) in enumerate(zip(kept, randoms, strict=True)):
        entries = slice(counts.indptr[row], counts.indptr[row + 1])
        thinned.data[entries] = random.binomial(counts.data[entries].astype(np.int64), chance)
    return thinned


def rows_of(counts: "csr_matrix") -> NDArray[np.int64]:
    """(non-zeros,) the row of each entry."""
    return np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
