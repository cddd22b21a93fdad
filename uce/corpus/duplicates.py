"""The same cell in two datasets: found by a 64-bit hash of its genes and counts, whatever file it came in."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

Words = npt.NDArray[np.uint64]


def gene_words(ids: Sequence[str]) -> Words:
    """(genes,) a 64-bit word per gene id, the same on any machine and in any table."""
    digests = (hashlib.blake2b(gene.encode("utf-8"), digest_size=8).digest() for gene in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def cell_hashes(counts: sparse.csr_matrix, words: Words) -> Words:
    """(cells,) a 64-bit hash of the (gene, count) pairs of every cell; their order does not matter.

    Each pair is mixed to a word and the words are added up, modulo 2^64.

    Parameters
    ----------
    counts
        (cells, genes) CSR of whole numbers, without stored zeros or repeated columns.
    words
        (genes,) from `gene_words`.
    """
    pairs = _mixed(words[counts.indices] ^ _mixed(counts.data.astype(np.uint64)))
    # Differences of running sums, not reduceat, which has no word for an empty row.
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(pairs, dtype=np.uint64)])
    return _mixed(running[counts.indptr[1:]] - running[counts.indptr[:-1]])


def _mixed(values: Words) -> Words:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def first_of_each(hashes: Sequence[Words]) -> list[npt.NDArray[np.bool_]]:
    """Per dataset, in their order, which cells occur there for the first time in the corpus."""
    joined = np.concatenate([np.zeros(0, np.uint64), *hashes])
    _, first = np.unique(joined, return_index=True)  # the index is that of the first occurrence
    fresh = np.zeros(len(joined), dtype=bool)
    fresh[first] = True
    return np.split(fresh, np.cumsum([len(part) for part in hashes])[:-1]) if hashes else []


def top_gene_hashes(counts: sparse.csr_matrix, words: Words) -> Words:
    """(cells,) a 64-bit hash of the set of a cell's highest genes: equal counts are not needed, only an equal order.

    The set holds the genes whose count is above that of the 201st: at most 200, all of them tied with none outside, so
    no rule for ties is needed, and genes that are lost further down do not change it. Where fewer than 30 genes stand
    out in this way, the set would say little, and the cell has its hash of `cell_hashes`.

    Parameters
    ----------
    counts, words
        As of `cell_hashes`. Counts may have been scaled, or changed in any way that keeps the order of a cell's genes.
    """
    bounds = counts.indptr
    rows = (counts.data[start:stop] for start, stop in pairwise(bounds))
    cuts = np.array([np.partition(row, -_TOP - 1)[-_TOP - 1] if len(row) > _TOP else 0 for row in rows])
    high = (counts.data > np.repeat(cuts, np.diff(bounds))).astype(np.int64)
    top = sparse.csr_matrix((high, counts.indices, bounds), shape=counts.shape, copy=True)  # for it loses entries
    distinct = np.asarray(top.sum(axis=1)).ravel() >= _LEAST
    top.eliminate_zeros()
    return np.where(distinct, cell_hashes(top, words), cell_hashes(counts, words))


_TOP, _LEAST = 200, 30
