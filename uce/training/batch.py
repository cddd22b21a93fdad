"""A training batch: what is hidden from each cell, the sentence of the rest, and which genes are asked for.

A gene that is asked for is never in the sentence: it is hidden before the draw (masking tokens afterwards would leave
the copies of a gene drawn twice). A gene the file does not measure is never asked for.
Letters in shapes: B cells, L tokens, U genes asked for of any cell, Q questions to one cell, P width of gene vectors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.cells.sentences import SentenceRule, Sentences, write_sentences
from uce.training.corpus import Corpus, Dataset
from uce.training.order import ASK, HIDE, SENTENCE, THIN, generator, samples_of_step, uniforms, words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.objectives.masked import MaskedSettings
    from uce.training.settings import PretrainConfig

# Genes seen in fewer or more cells of a dataset than this say nothing about a cell beyond its dataset.
_ASKED_RATES = (0.01, 0.99)
_FEWEST_SEEN = 10  # genes a cell needs to take part


@dataclass(frozen=True, eq=False)
class Batch:
    """The cells of one process at one step; all of one dataset.

    Attributes
    ----------
    vectors
        (tokens, P) float32, vectors of the distinct tokens of the batch.
    tokens
        (B, L) row of `vectors` for every token of a sentence.
    keep
        (B, L) true for tokens, false for padding.
    queries
        (U, P) float32, vectors of the genes asked for.
    asked
        (B, Q) row of `queries` for every question; None: all U are asked of every cell, Q = U.
    labels
        (B, Q) float32, 1 where the gene was seen in the cell.
    offsets
        (B, Q) float32, logit of the gene's detection rate in the dataset plus the cell's log depth, centred.
    valid
        (B,) false for cells with too few genes to take part.
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    keep: NDArray[np.bool_]
    queries: NDArray[np.float32]
    asked: NDArray[np.int64] | None
    labels: NDArray[np.float32]
    offsets: NDArray[np.float32]
    valid: NDArray[np.bool_]


def make_batch(corpus: Corpus, config: "PretrainConfig", step: int, *, rank: int = 0, world: int = 1) -> Batch:
    """The part of process `rank` of the batch of a step: cells rank, rank + world, ... of it."""
    dataset_number, samples, cells = samples_of_step(
        config.seed, step, batch_size=config.batch_size, sizes=corpus.sizes, balance=config.data.balance
    )
    dataset = corpus.datasets[dataset_number]
    # Centred over the whole batch, so that the number of processes does not change an offset.
    depths = (dataset.depths[cells] - dataset.depths[cells].mean())[rank::world]
    samples, cells = samples[rank::world], cells[rank::world]
    counts = dataset.counts[cells]
    if config.objective.masking == "panel":
        hidden, ranks, asked, labels = _hide_panel(counts, dataset, config, step)
    else:
        hidden, ranks, asked, labels = _hide_in_cells(counts, dataset, config.objective, config.seed, samples)
    sentences = _draw(counts, hidden, dataset, config, samples, draws=config.draws_at(step))
    tokens, positions = np.unique(sentences.tokens, return_inverse=True)
    rates = dataset.rates[ranks]
    logits = np.log(rates / (1 - rates))
    offsets = (logits[None, :] if asked is None else logits[asked]) + depths[:, None]
    vectors = dataset.vocabulary.vectors
    return Batch(
        vectors=vectors[tokens],
        tokens=positions.reshape(sentences.tokens.shape),
        keep=np.arange(sentences.tokens.shape[1]) < np.maximum(sentences.lengths, 1)[:, None],
        queries=vectors[dataset.vocabulary.first_gene + ranks],
        asked=asked,
        labels=labels,
        offsets=offsets.astype(np.float32),
        valid=(np.diff(counts.indptr) >= _FEWEST_SEEN) & (sentences.lengths > 0),
    )


_Hidden = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.float32]]


def _hide_panel(counts: "csr_matrix", dataset: Dataset, config: "PretrainConfig", step: int) -> _Hidden:
    """Hide the same random genes from all cells of the step; ask all cells for the same ones of them."""
    settings = config.objective
    genes = np.arange(counts.shape[1])
    panel = uniforms(config.seed, HIDE, step * len(genes) + genes) < settings.mask_fraction
    low, high = _ASKED_RATES
    askable = np.flatnonzero(panel & dataset.measured & (dataset.rates > low) & (dataset.rates < high))
    if not len(askable):  # a toy dataset: ask whatever is hidden, or the first gene
        askable = np.flatnonzero(panel & dataset.measured)[:1] if (panel & dataset.measured).any() else genes[:1]
        panel = panel | np.isin(genes, askable)
    order = np.argsort(uniforms(config.seed, ASK, step * len(genes) + askable), kind="stable")
    ranks = np.sort(askable[order[: settings.queries]])
    place = np.full(counts.shape[1], -1)
    place[ranks] = np.arange(len(ranks))
    labels = np.zeros((counts.shape[0], len(ranks)), dtype=np.float32)
    seen = place[counts.indices]
    labels[_rows(counts)[seen >= 0], seen[seen >= 0]] = 1
    return panel[counts.indices], ranks, None, labels


def _hide_in_cells(
    counts: "csr_matrix", dataset: Dataset, settings: "MaskedSettings", seed: int, samples: NDArray[np.int64]
) -> _Hidden:
    """Hide a share of the genes seen in each cell (published); ask half of these and half unseen ones."""
    hidden = np.zeros(counts.nnz, dtype=bool)
    half = settings.queries // 2
    asked = np.zeros((counts.shape[0], 2 * half), dtype=np.int64)
    matched = settings.negatives == "matched"
    for row, sample in enumerate(samples):
        random = generator(seed, HIDE, int(sample))
        start, stop = counts.indptr[row], counts.indptr[row + 1]
        seen = counts.indices[start:stop]
        amount = max(1, round(settings.mask_fraction * len(seen)))
        chosen = random.permutation(len(seen))[:amount]
        hidden[start + chosen] = True
        absent = dataset.measured.copy()
        absent[seen] = False
        unseen = np.flatnonzero(absent)
        rates = dataset.rates if matched else None
        asked[row, :half] = _pick(random, seen[chosen], half, None if rates is None else 1 - rates[seen[chosen]])
        # A cell in which every measured gene is seen has no negatives; its positives are asked twice.
        pool = unseen if len(unseen) else seen[chosen]
        asked[row, half:] = _pick(random, pool, half, None if rates is None else rates[pool])
    ranks, positions = np.unique(asked, return_inverse=True)
    labels = np.zeros(asked.shape, dtype=np.float32)
    labels[:, :half] = 1
    return hidden, ranks, positions.reshape(asked.shape), labels


def _pick(
    random: np.random.Generator,
    pool: NDArray[np.integer[Any]],
    amount: int,
    weights: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """`amount` of `pool`, without repeats where it is large enough."""
    share = None if weights is None else weights / weights.sum()
    return random.choice(pool, amount, replace=len(pool) < amount, p=share).astype(np.int64)


def _draw(
    counts: "csr_matrix",
    hidden: NDArray[np.bool_],
    dataset: Dataset,
    config: "PretrainConfig",
    samples: NDArray[np.int64],
    *,
    draws: int,
) -> Sentences:
    """The sentences of the cells without their hidden genes, each drawn under its sample number."""
    shown = counts
    if config.data.thinning:
        shown = counts.copy()
        shown.data = _thinned(counts, config, samples)
    vocabulary = dataset.vocabulary
    rule = SentenceRule(draws=draws, max_tokens=config.rule.max_tokens)
    return write_sentences(
        shown,
        vocabulary.gene_chromosomes,
        vocabulary.gene_keys,
        rule=rule,
        seed=words(config.seed, SENTENCE, samples),
        exclude=hidden,
        n_chromosomes=len(vocabulary.chromosome_names),
        threads=1,
    )


def _thinned(counts: "csr_matrix", config: "PretrainConfig", samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """The counts of some of the cells as a shallower sequencing would have given them: each is kept with one chance."""
    data: NDArray[np.float64] = counts.data.copy()
    for row, sample in enumerate(samples):
        random = generator(config.seed, THIN, int(sample))
        thin, kept = random.random() < config.data.thinning, 0.2 + 0.8 * random.random()
        if thin:
            entries = slice(counts.indptr[row], counts.indptr[row + 1])
            data[entries] = random.binomial(counts.data[entries].astype(np.int64), kept)
    return data


def _rows(counts: "csr_matrix") -> NDArray[np.int64]:
    return np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
