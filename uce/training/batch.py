"""What the batches of all objectives share: thinned counts, sentences without hidden genes, and the way to tensors.

All of it is a function of (corpus, configuration, part), and a process's share does not depend on how many processes
there are: whatever is random about a cell is drawn under its sample number.
Letters in shapes: B cells of one process, L tokens, P width of gene vectors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from uce.cells.sentences import SentenceRule, Sentences, write_sentences
from uce.training.corpus import Corpus
from uce.training.order import SENTENCE, words
from uce.training.stream import Cells

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from uce.training.settings import PretrainConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """The sentences of one process in one part; an objective's own batch adds what it asks of them.

    Gene vectors are named by their row and looked up on the device, where they stay: they are the bulk of a batch.

    Attributes
    ----------
    species
        Whose token vectors are meant.
    vectors
        (tokens,) rows of the species' token vectors: the distinct tokens of the batch.
    tokens
        (sentences, L) position in `vectors` for every token of a sentence.
    keep
        (sentences, L) true for tokens, false for padding.
    """

    looked_up: ClassVar[tuple[str, ...]] = ("vectors",)

    species: str
    vectors: NDArray[np.int64]
    tokens: NDArray[np.int64]
    keep: NDArray[np.bool_]


def to_tensors(batch: Batch, tables: "Mapping[str, Tensor]", device: "torch.device") -> "dict[str, Tensor]":
    """A batch on the device, its gene vectors looked up; arrays that are None are left out.

    Parameters
    ----------
    tables
        Species to (tokens of its vocabulary, P) float32 on the device.
    """
    import torch

    arrays = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "species"}
    tensors = {name: torch.as_tensor(array, device=device) for name, array in arrays.items() if array is not None}
    return tensors | {name: tables[batch.species][tensors[name]] for name in batch.looked_up}


def token_tables(corpora: "Iterable[Corpus]", device: "torch.device") -> "dict[str, Tensor]":
    """What `to_tensors` looks up: the token vectors of every species of some corpora."""
    import torch

    datasets = [dataset for corpus in corpora for dataset in corpus.datasets]
    vectors = {dataset.species: dataset.vocabulary.vectors for dataset in datasets}
    return {species: torch.as_tensor(table, device=device) for species, table in vectors.items()}


def draw_sentences(
    cells: Cells,
    counts: "csr_matrix",
    hidden: NDArray[np.bool_],
    config: "PretrainConfig",
    part: int,
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
        rule=SentenceRule(draws=config.draws_at(part), max_tokens=config.rule.max_tokens),
        seed=words(config.seed, SENTENCE, numbers),
        exclude=hidden,
        n_chromosomes=len(vocabulary.chromosome_names),
        threads=1,
    )


def pack(parts: Sequence[Sentences]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """`vectors`, `tokens` and `keep` of a `Batch` of all sentences, those of the first part first."""
    longest = max(1, *(part.tokens.shape[1] for part in parts))
    stacked = np.concatenate([np.pad(part.tokens, ((0, 0), (0, longest - part.tokens.shape[1]))) for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    tokens, positions = np.unique(stacked, return_inverse=True)
    # The first token is kept even of an empty sentence: attention needs something to look at.
    keep = np.arange(longest) < np.maximum(lengths, 1)[:, None]
    return tokens.astype(np.int64), positions.reshape(stacked.shape).astype(np.int64), keep


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
