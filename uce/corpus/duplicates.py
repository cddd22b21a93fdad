"""The same cell in two datasets: found by a 64-bit hash of its genes and counts, whatever file it came in."""

import hashlib
from collections.abc import Sequence

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
