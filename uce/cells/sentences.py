"""A cell as a sentence: the genes drawn from its counts, chromosome by chromosome, as token ids.

The rule is that of the published code (Rosen et al., bioRxiv 2023.11.28.568918): `draws` genes with replacement, in
proportion to log1p(count); CLS, then for each chromosome drawn, in random order, its token, its genes by position
(a gene drawn twice stands there twice), and the closing token.

What the published code leaves to one unseeded stream is here a pure function of the cell: draws and order come from a
counter-based generator keyed by the seed and an order-free hash of the (gene, count) pairs. So neither the file, nor
the other cells, nor the columns without a gene, nor the number of threads can change a sentence. It is the same for
the same gene table: chromosomes are shuffled by a hash of the cell key and their code, and the code is the table's.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uce.errors import InputError, UsageError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.cells.drawing import Rows

_MASK64 = (1 << 64) - 1
_CELLS_PER_THREAD = 64  # below this a thread costs more than it brings


@dataclass(frozen=True)
class SentenceRule:
    """How long a sentence is.

    A sentence longer than `max_tokens` gives up whole chromosomes: they are taken in their random order, and one that
    no longer fits is left out. A chromosome that would not fit into an empty sentence either is cut to the room left,
    at its end. The closing token is always there, and the draws lost are counted.
    """

    draws: int = 1024  # genes drawn per cell, with replacement
    max_tokens: int = 1536  # longest sentence, all tokens counted

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("max_tokens", 4)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 20:
                msg = f"{name}: {value!r} found; give a whole number from {least} to {(1 << 20) - 1}."
                raise UsageError(msg)


@dataclass(frozen=True)
class Sentences:
    """The sentences of some cells.

    Attributes
    ----------
    tokens
        (cells, longest), each sentence from the left, 0 after its end.
    lengths
        (cells,), tokens of each sentence; 0 for a cell without a count.
    left_out
        (cells,), draws left out because the sentence would have been too long.
    """

    tokens: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    left_out: npt.NDArray[np.int32]


def cell_keys(
    counts: "csr_matrix",
    gene_keys: npt.NDArray[np.uint64],
    *,
    seed: int | npt.NDArray[np.uint64] = 0,
    replicate: int = 0,
) -> npt.NDArray[np.uint64]:
    """The 128 bits, (cells, 2), that decide the draws of each cell.

    Parameters
    ----------
    counts
        (cells, genes) in rank order, canonical CSR.
    gene_keys
        (genes,) stable hashes of the gene ids.
    seed
        One for all cells, or (cells,).
    replicate
        Number of an independent repetition.
    """
    from uce.cells.drawing import key_rows

    keys = np.empty((counts.shape[0], 2), dtype=np.uint64)
    rows = _rows(counts, len(gene_keys), exclude=None)
    key_rows(rows, _words(gene_keys), _seeds(seed, len(keys)), _word(replicate), keys)
    return keys


def write_sentences(
    counts: "csr_matrix",
    gene_chromosomes: npt.NDArray[np.integer[Any]],
    gene_keys: npt.NDArray[np.uint64],
    *,
    rule: SentenceRule,
    seed: int | npt.NDArray[np.uint64] = 0,
    replicate: int = 0,
    exclude: npt.NDArray[np.bool_] | None = None,
    n_chromosomes: int | None = None,
    threads: int | None = None,
) -> Sentences:
    """Draw and write the sentence of every cell.

    Parameters
    ----------
    counts
        (cells, genes) in rank order (by chromosome code, start, id), canonical CSR, not negative.
    gene_chromosomes
        (genes,) chromosome code of each rank, ascending.
    gene_keys
        (genes,) stable hashes of the gene ids.
    rule
        Draws and longest sentence.
    seed
        One for all cells, or (cells,) to draw each cell under its own.
    replicate
        Number of an independent repetition.
    exclude
        (non-zeros of `counts`,) true for entries that must not be drawn. The rest of the draw is under the same key.
    n_chromosomes
        Chromosomes of the vocabulary; by default as many as the genes lie on.
    threads
        At most so many; by default those numba may use. The sentences do not depend on it.

    Raises
    ------
    InputError
        A count is negative, infinite or not a number.
    """
    from numba import config

    from uce.cells.drawing import Genes, Plan, Written, write_rows

    codes = _chromosome_codes(gene_chromosomes, len(gene_keys))
    rows, cells = _rows(counts, len(codes), exclude=exclude), counts.shape[0]
    _check_counts(rows)
    genes = Genes(codes, _words(gene_keys), _count_chromosomes(codes, n_chromosomes))
    plan = Plan(rule.draws, _seeds(seed, cells), _word(replicate))
    tokens = np.zeros((cells, _longest(rule, genes.n_chromosomes)), dtype=np.int32)
    written = Written(tokens, np.zeros(cells, dtype=np.int32), np.zeros(cells, dtype=np.int32))

    # Threads of our own: numba's can neither be used before a fork nor by two callers at once.
    n = max(1, min(threads or config.NUMBA_NUM_THREADS, cells // _CELLS_PER_THREAD))  # type: ignore[attr-defined]
    parts = [(cells * i // n, cells * (i + 1) // n) for i in range(n)]
    if n == 1:
        write_rows(parts[0], rows, genes, plan, written)
    else:
        with ThreadPoolExecutor(n) as pool:
            list(pool.map(lambda part: write_rows(part, rows, genes, plan, written), parts))
    longest = int(written.lengths.max(initial=0))
    return Sentences(np.ascontiguousarray(tokens[:, :longest]), written.lengths, written.left_out)


def arrange(
    drawn: npt.NDArray[np.integer[Any]],
    chromosome_order: npt.NDArray[np.integer[Any]],
    *,
    gene_chromosomes: npt.NDArray[np.integer[Any]],
    max_tokens: int = 1536,
    n_chromosomes: int | None = None,
) -> tuple[npt.NDArray[np.int32], int]:
    """The tokens of one cell, and the draws left out, from its drawn ranks (any order) and its chromosome order.

    This is the second half of `write_sentences`, which decides the two arguments by the cell's key.
    """
    from uce.cells.drawing import find_chromosomes, place_tokens

    codes = _chromosome_codes(gene_chromosomes, len(gene_chromosomes))
    if np.any((drawn < 0) | (drawn >= len(codes))):
        msg = f"drawn: ranks from {drawn.min()} to {drawn.max()} found; there are {len(codes)} genes."
        raise ValueError(msg)
    genes, repeats = (numbers.astype(np.int32) for numbers in np.unique(drawn, return_counts=True))
    spans = np.empty((_count_chromosomes(codes, n_chromosomes), 3), dtype=np.int64)
    found = find_chromosomes(genes, repeats, codes, spans)
    order = np.asarray(chromosome_order, dtype=np.int64)
    if not np.array_equal(np.sort(order), found):
        msg = f"chromosome_order: {order.tolist()} found; name each chromosome drawn once: {found.tolist()}."
        raise ValueError(msg)
    tokens = np.zeros(_longest(SentenceRule(max(1, len(drawn)), max_tokens), len(spans)), dtype=np.int32)
    length, left_out = place_tokens(genes, repeats, spans, order, tokens)
    return tokens[:length], int(left_out)


def _longest(rule: SentenceRule, n_chromosomes: int) -> int:
    return min(rule.max_tokens, 1 + rule.draws + 2 * min(rule.draws, n_chromosomes))


def _rows(counts: "csr_matrix", genes: int, *, exclude: npt.NDArray[np.bool_] | None) -> "Rows":
    from uce.cells.drawing import Rows

    if counts.shape[1] != genes:
        msg = f"counts: {counts.shape[1]} columns found; the vocabulary has {genes} genes."
        raise ValueError(msg)
    if not counts.has_canonical_format:
        msg = "counts: columns unsorted or repeated within a row; call counts.sum_duplicates() first."
        raise ValueError(msg)
    if exclude is None:
        exclude = np.zeros(0, dtype=np.bool_)
    elif exclude.shape != counts.data.shape or exclude.dtype != np.bool_:
        msg = f"exclude: {exclude.dtype} of shape {exclude.shape} found; give booleans of shape {counts.data.shape}."
        raise ValueError(msg)
    return Rows(
        np.ascontiguousarray(counts.indptr, dtype=np.int64),
        np.ascontiguousarray(counts.indices, dtype=np.int32),
        np.ascontiguousarray(counts.data, dtype=np.float64),
        np.ascontiguousarray(exclude),
    )


def _check_counts(rows: "Rows") -> None:
    counts = rows.counts
    if counts.min(initial=0.0) >= 0 and counts.max(initial=0.0) < np.inf:  # false for NaN too
        return
    entry = int(np.flatnonzero(~((counts >= 0) & (counts < np.inf)))[0])
    cell = int(np.searchsorted(rows.indptr, entry, side="right")) - 1
    msg = f"counts: {counts[entry]} found in row {cell}; a sentence needs counts that are finite and not negative."
    raise InputError(msg)


def _chromosome_codes(gene_chromosomes: npt.NDArray[np.integer[Any]], genes: int) -> npt.NDArray[np.int32]:
    codes = np.ascontiguousarray(gene_chromosomes, dtype=np.int32)
    if codes.shape != (genes,) or np.any(codes[1:] < codes[:-1]) or codes.min(initial=0) < 0:
        msg = f"gene_chromosomes: give a code from 0 for each of the {genes} genes, ascending: genes in rank order."
        raise ValueError(msg)
    return codes


def _count_chromosomes(codes: npt.NDArray[np.int32], given: int | None) -> int:
    used = int(codes[-1]) + 1 if len(codes) else 0
    if given is not None and given < used:
        msg = f"n_chromosomes: {given} found; the genes lie on {used}."
        raise ValueError(msg)
    return used if given is None else given


def _seeds(seed: int | npt.NDArray[np.uint64], cells: int) -> npt.NDArray[np.uint64]:
    seeds = _words(seed) if isinstance(seed, np.ndarray) else np.full(cells, _word(seed))
    if seeds.shape != (cells,):
        msg = f"seed: shape {seeds.shape} found; give one seed, or one per cell: ({cells},)."
        raise ValueError(msg)
    return seeds


def _word(number: int) -> np.uint64:
    return np.uint64(int(number) & _MASK64)


def _words(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(numbers, dtype=np.uint64)
