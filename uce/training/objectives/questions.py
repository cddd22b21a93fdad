"""A batch of the masked objective: what is hidden from each cell, the sentence of the rest, which genes are asked for.

A gene that is asked for is never in the sentence: it is hidden before the draw (masking tokens afterwards would leave
the copies of a gene drawn twice). A gene the file does not measure is never asked for.
Letters in shapes: B cells, L tokens, U genes asked for of any cell, Q questions to one cell, P width of gene vectors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from uce.training.batch import Batch, draw_sentences, pack, rows_of, thin
from uce.training.corpus import Dataset
from uce.training.order import ASK, HIDE, THIN, generator, generators, uniforms
from uce.training.stream import Cells

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.objectives.masked import MaskedSettings
    from uce.training.settings import PretrainConfig

# Genes seen in fewer or more cells of a dataset than this say nothing about a cell beyond its dataset.
_ASKED_RATES = (0.01, 0.99)
_FEWEST_SEEN = 10  # genes a cell needs to take part


@dataclass(frozen=True, eq=False)
class MaskedBatch(Batch):
    """Sentences without what is hidden, (B, L), and questions about it.

    Attributes
    ----------
    queries
        (U,) rows of the species' token vectors: the genes asked for.
    asked
        (B, Q) row of `queries` for every question; None: all U are asked of every cell, Q = U.
    labels
        (B, Q) float32, 1 where the gene was seen in the cell.
    offsets
        (B, Q) float32, logit of the gene's detection rate in the dataset plus the cell's log depth, centred.
    valid
        (B,) false for cells with too few genes to take part.
    """

    looked_up: ClassVar[tuple[str, ...]] = ("vectors", "queries")

    queries: NDArray[np.int64]
    asked: NDArray[np.int64] | None
    labels: NDArray[np.float32]
    offsets: NDArray[np.float32]
    valid: NDArray[np.bool_]


def make_batch(
    settings: "MaskedSettings", everyone: Cells, config: "PretrainConfig", part: int, *, rank: int, world: int
) -> MaskedBatch:
    """The share of process `rank` in the cells of a part."""
    cells = everyone.part(rank, world)
    dataset, counts = cells.dataset, cells.counts
    if settings.masking == "panel":
        hidden, ranks, asked, labels = _hide_panel(settings, counts, dataset, config.seed, part)
    else:
        hidden, ranks, asked, labels = _hide_in_cells(settings, counts, dataset, config.seed, cells.samples)
    shown = _thinned(cells, config) if config.data.thinning else counts
    sentences = draw_sentences(cells, shown, hidden, config, part, numbers=cells.samples)
    vectors, tokens, keep = pack([sentences])
    rates = dataset.rates[ranks]
    logits = np.log(rates / (1 - rates))
    # Centred over the whole part, so that the number of processes does not change an offset.
    depths = cells.depths - everyone.depths.mean()
    offsets = (logits[None, :] if asked is None else logits[asked]) + depths[:, None]
    return MaskedBatch(
        species=dataset.species,
        vectors=vectors,
        tokens=tokens,
        keep=keep,
        queries=dataset.vocabulary.first_gene + ranks,
        asked=asked,
        labels=labels,
        offsets=offsets.astype(np.float32),
        valid=(np.diff(counts.indptr) >= _FEWEST_SEEN) & (sentences.lengths > 0),
    )


_Hidden = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.float32]]


def _hide_panel(settings: "MaskedSettings", counts: "csr_matrix", dataset: Dataset, seed: int, part: int) -> _Hidden:
    """Hide the same random genes from all cells of the part; ask all cells for the same ones of them."""
    genes = np.arange(counts.shape[1])
    panel = uniforms(seed, HIDE, part * len(genes) + genes) < settings.mask_fraction
    low, high = _ASKED_RATES
    askable = np.flatnonzero(panel & dataset.measured & (dataset.rates > low) & (dataset.rates < high))
    if not len(askable):  # a toy dataset: ask whatever is hidden, or the first gene
        askable = np.flatnonzero(panel & dataset.measured)[:1] if (panel & dataset.measured).any() else genes[:1]
        panel = panel | np.isin(genes, askable)
    order = np.argsort(uniforms(seed, ASK, part * len(genes) + askable), kind="stable")
    ranks = np.sort(askable[order[: settings.queries]])
    place = np.full(counts.shape[1], -1)
    place[ranks] = np.arange(len(ranks))
    labels = np.zeros((counts.shape[0], len(ranks)), dtype=np.float32)
    seen = place[counts.indices]
    labels[rows_of(counts)[seen >= 0], seen[seen >= 0]] = 1
    return panel[counts.indices], ranks, None, labels


def _hide_in_cells(
    settings: "MaskedSettings", counts: "csr_matrix", dataset: Dataset, seed: int, samples: NDArray[np.int64]
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


def _thinned(cells: Cells, config: "PretrainConfig") -> "csr_matrix":
    """Some of the cells keep 20 to 100 % of their counts."""
    randoms = generators(config.seed, THIN, cells.samples)
    draws = [(random.random(), 0.2 + 0.8 * random.random()) for random in randoms]
    return thin(cells.counts, [kept if draw < config.data.thinning else 1.0 for draw, kept in draws], randoms)
